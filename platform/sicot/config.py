"""Every setting of sicot, typed, with its default and its meaning: the one place to look it up.

One :class:`Experiment` describes a whole run. A job reads it in three layers, the later one winning:

    defaults below  <  a YAML file (``--preset demo`` or ``--config my.yaml``)  <  command line flags

Any field is a flag: ``--model.attention.rank 64``. The text under each field is what ``--help`` prints.
Unknown names and values out of range are refused before anything starts, in one line that names the field.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from sicot.errors import UserError

PRESETS = Path(__file__).parent / "presets"

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Weight = Annotated[float, Field(ge=0.0)]
Positive = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=1)]

MAX_PHOTO = 256_000_000
"""What is read at most of any photo, bytes."""


class Section(BaseModel):
    """A group of settings."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, validate_default=True)


# ---------------------------------------------------------------- catalogue


class Columns(Section):
    """How the columns of your catalogue are called."""

    id: str = "id"
    """Unique name of a row; made from the row's place in the file where the column is missing."""
    image: str = "image"
    """Photo: encoded bytes, or a path or URI (relative ones are looked up in `catalogue.images`)."""
    title: str = "title"
    """Product title; may be missing."""
    tags: str = "tags"
    """List of strings, or one string split at `catalogue.tags_separator`; may be missing."""
    label: str = "label"
    """Class of the product; may be missing for prediction."""
    split: str = "split"
    """train, val or test; a split is made where the column is missing."""


class Split(Section):
    """How rows are dealt to train, val and test when the catalogue does not say.

    Stratified by class; every class keeps at least one training row; rows with the same photo or the same
    title stay on one side.
    """

    val: Share = 0.1
    """Share of rows for validation."""
    test: Share = 0.1
    """Share of rows for the final test."""
    seed: int = 0
    """Seed of the split."""

    @model_validator(mode="after")
    def _leaves_rows_to_train(self) -> Self:
        if self.val + self.test >= 1:
            raise ValueError("val + test must leave rows to train on: their sum must be below 1")
        return self


class Synthetic(Section):
    """The embedded catalogue: rendered products with noisy Chinese and English words."""

    rows: Count = 3000
    """Number of rows, validation and test included; at least one a class, 3 for every class to be tested."""
    classes: Annotated[int, Field(ge=2, le=1_000_000)] = 60
    """Number of products."""
    imbalance: Annotated[float, Field(ge=1.0)] = 50.0
    """Training rows of the most frequent class over those of the rarest (Zipf's law in between)."""
    image_size: Annotated[int, Field(ge=16, le=1024)] = 96
    """Side of the square photos, pixels."""
    word_noise: Share = 0.25
    """Share of words that are dropped, irrelevant or of another product."""
    no_text: Share = 0.05
    """Share of rows without any words."""
    seed: int = 0
    """Seed of the catalogue: the same seed gives the same bytes."""

    @model_validator(mode="after")
    def _enough_rows(self) -> Self:
        if self.rows < self.classes:
            raise ValueError("rows must be at least as many as classes: every class has a row to train on")
        return self


class Catalogue(Section):
    """Where the products come from."""

    path: str = "synthetic"
    """`synthetic`, or a file, folder, glob or URI (local, s3://, gs://) of Parquet, CSV or WebDataset files."""
    format: Literal["auto", "parquet", "csv", "webdataset", "folder"] = "auto"
    """File format; `auto` goes by the file names. `folder`: photos in one folder a class, `mug/1.jpg`."""
    images: str | None = None
    """Folder or URI prefix of relative image paths; default: beside the catalogue file.

    Photos are opened in here, in the catalogue's own folder, and at s3://, gs:// and https://, nowhere else: name a
    folder that holds them all if the catalogue has absolute paths."""
    tags_separator: str = ","
    """Separator where tags are one string."""
    columns: Columns = Columns()
    split: Split = Split()
    synthetic: Synthetic = Synthetic()


# ---------------------------------------------------------------- prepare


class Images(Section):
    """What is done to a photo before training."""

    size: Annotated[int, Field(ge=16, le=1024)] = 128
    """Side of the square the model sees, pixels."""
    fit: Literal["squash", "pad", "crop"] = "squash"
    """How a photo becomes a square: squash its sides, pad the shorter, or crop the longer."""
    quality: Annotated[int, Field(ge=50, le=100)] = 90
    """JPEG quality of the prepared photos."""
    max_pixels: Count = 50_000_000
    """Photos with more pixels are refused unread (decompression bombs)."""
    max_bytes: Annotated[int, Field(ge=1, le=MAX_PHOTO)] = 20_000_000
    """Photo files above this size are refused, bytes."""


class Text(Section):
    """What is done to titles and tags."""

    max_words: Annotated[int, Field(ge=1, le=512)] = 32
    """Words kept per product, the title's first."""
    pairs: bool = False
    """Also use pairs of neighbouring title words as words."""
    min_count: Count = 2
    """Words rarer than this in the training split are left out of the vocabulary."""
    max_vocabulary: Count = 100_000
    """Size of the vocabulary; the most frequent words win."""
    max_characters: Count = 2000
    """Titles are cut here, characters."""


class Word2Vec(Section):
    """Word vectors trained on the catalogue's own words (training split only)."""

    dimension: Annotated[int, Field(ge=2, le=1024)] = 100
    """Length of a word vector."""
    epochs: Count = 10
    """Passes over the training words."""
    window: Count = 10
    """Words on either side that count as context; titles are short, so most of them."""
    negatives: Count = 10
    """Random words drawn against each true one."""


class Groups(Section):
    """Which classes count as head, medium and tail, by their training rows."""

    head_above: Count = 100
    """A class with more training rows is head."""
    tail_below: Count = 20
    """A class with fewer training rows is tail; the rest is medium."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.tail_below > self.head_above + 1:
            raise ValueError("tail_below must not be above head_above + 1: the groups would overlap")
        return self


class Prepare(Section):
    """The Ray Data job that turns a catalogue into a prepared set."""

    images: Images = Images()
    text: Text = Text()
    word2vec: Word2Vec = Word2Vec()
    groups: Groups = Groups()
    max_quarantined: Share = 0.2
    """The job fails when a larger share of the rows is bad."""
    rows_per_block: Count = 1024
    """Rows a task works on, and rows per written file; an interrupted job continues behind finished files."""
    seed: int = 0
    """Seed of the word vectors and of the order in which rows are stored."""


# ---------------------------------------------------------------- model


class Visual(Section):
    """The visual stream: v = normalise(P · trunk(photo))."""

    trunk: str = "mobilenet_v2"
    """Any torchvision classifier by its name."""
    weights: str | None = None
    """Weights of the trunk: a file (.pt state dict or .safetensors), a torchvision name such as DEFAULT, or none."""
    freeze: Share = 0.0
    """Share of the trunk's layers, from the photo on, that keep their weights and batch statistics; 1: all of them."""
    dropout: Share = 0.0
    """Dropout on the trunk's features; a trunk that is kept as it is wants much, 0.4 or so."""


class Attention(Section):
    """Bilinear word attention: which of the words beside a photo to believe."""

    kind: Literal["bilinear", "linear", "mean"] = "bilinear"
    """bilinear: photo and word score together; linear: the word alone; mean: no attention."""
    rank: Annotated[int, Field(ge=0)] = 64
    """Rank of the bilinear form; 0 = full rank."""
    null_word: bool = True
    """Offer the attention a word that stands for nothing, so that it can refuse all words."""
    idf: bool = True
    """Let rare words weigh more from the start (a learnt factor on the inverse document frequency)."""
    temperature: Positive = 1.0
    """Divides the scores before the softmax; lower is sharper."""


class Loss(Section):
    """Weights of the loss parts. The mixed stream teaches the visual one, never the reverse."""

    visual: Weight = 1.0
    """Cross-entropy of the photo's answer."""
    mixed: Weight = 1.0
    """Cross-entropy of the answer from photo and words."""
    text: Weight = 0.5
    """Cross-entropy of the words' answer."""
    distill: Weight = 0.0
    """KL divergence that pulls the photo's answer to the mixed one."""
    contrast: Weight = 0.0
    """InfoNCE that pulls photo and words of a product together."""
    contrast_temperature: Positive = 0.1
    """Temperature of the InfoNCE term."""
    tau: Weight = 1.0
    """Strength of the logit adjustment by the class prior; 0 is plain cross-entropy."""


class Model(Section):
    """SICoT: two streams, co-trained through one classifier."""

    dimension: Annotated[int, Field(ge=2, le=4096)] = 256
    """Length of the feature vectors."""
    visual: Visual = Visual()
    attention: Attention = Attention()
    fusion: Literal["sum", "mlp", "gate"] = "sum"
    """How photo and words become one feature: plain sum, an MLP on both, or a learnt gate."""
    classifier: Literal["cosine", "linear"] = "cosine"
    """Cosine: rows of the classifier are normalised and scaled."""
    scale: Positive = 16.0
    """Scale of the cosine logits at the start (learnt)."""
    word_dropout: Share = 0.1
    """Share of words hidden in training."""
    text_dropout: Share = 0.2
    """Share of products whose words are all hidden in training."""
    text_swap: Share = 0.07
    """Share of products shown another product's words in training, so that words which do not fit are doubted."""
    image_dropout: Share = 0.1
    """Share of products whose photo is hidden from the mixed stream in training, for text-only questions."""
    loss: Loss = Loss()

    @model_validator(mode="after")
    def _trains_something(self) -> Self:
        if self.loss.visual + self.loss.mixed + self.loss.text == 0:
            raise ValueError("loss.visual, loss.mixed and loss.text are all 0: nothing would be trained")
        if self.loss.distill and not self.loss.mixed:
            raise ValueError("loss.distill needs loss.mixed: the teacher would not be trained")
        return self

    @property
    def uses_words(self) -> bool:
        """False for the visual-only baseline: no loss part looks at the words."""
        return self.loss.mixed + self.loss.text + self.loss.contrast > 0

    def visual_only(self) -> Model:
        """The baseline: no loss part that looks at words; all else equal."""
        loss = self.loss.model_copy(update={"visual": 1.0, "mixed": 0.0, "text": 0.0, "distill": 0.0, "contrast": 0.0})
        return self.model_copy(update={"loss": loss})


# ---------------------------------------------------------------- train


class Augment(Section):
    """Random changes to training photos."""

    flip: Share = 0.5
    """Share of photos mirrored left to right."""
    zoom: Share = 0.25
    """Largest change of scale, as a share of the side."""
    shift: Share = 0.1
    """Largest shift, as a share of the side."""
    rotate: Annotated[float, Field(ge=0, le=180)] = 10.0
    """Largest rotation, degrees."""
    light: Share = 0.2
    """Largest change of brightness and contrast."""


class Sharding(Section):
    """How the classifier is trained where classes are very many."""

    above: Count = 50_000
    """With more classes than this, each worker keeps a range of the classifier's rows, with fewer all of them."""
    sampled: Annotated[int, Field(ge=0)] = 16_384
    """Classes that a step compares with, those in its batch among them; 0: all of them."""
    optimiser: Literal["adagrad", "sgd"] = "adagrad"
    """Row-wise Adagrad (a number of state a row), or SGD with momentum (as much state as weights)."""
    learning_rate: Positive = 1.0
    """Learning rate of the rows; of `schedule` cosine, its peak."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """cosine: it rises and falls with that of the rest. constant: for a single epoch, in which most rows are met once,
    early or late; a rate of about 0.1 suits it."""


class Train(Section):
    """How Ray Train co-trains the model."""

    workers: Count = 1
    """Number of Ray Train workers."""
    min_workers: Annotated[int, Field(ge=0)] = 0
    """Go on with as few as these from the last checkpoint where workers are lost for good; 0 waits for all of them."""
    gpu: bool | None = None
    """One GPU per worker; default: if the cluster has any."""
    epochs: Count = 10
    """Passes over the training split."""
    batch_size: Count = 64
    """Rows per worker and step."""
    accumulate: Count = 1
    """Steps whose gradients are averaged before the weights move."""
    learning_rate: Positive = 1e-3
    """Peak learning rate (AdamW, cosine schedule)."""
    trunk_rate: Weight = 0.3
    """The trunk's learning rate, as a factor."""
    word_rate: Weight = 1.0
    """The word vectors' learning rate, as a factor."""
    weight_decay: Weight = 0.02
    """AdamW's weight decay, matrices only."""
    warmup: Share = 0.05
    """Share of all steps in which the learning rate climbs."""
    clip: Weight = 1.0
    """Gradients are clipped at this norm; 0 switches clipping off."""
    ema: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Decay of the averaged weights that are evaluated and kept (less in the first steps); 0 switches it off."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Stop after this many epochs without better validation macro accuracy; 0 = train to the end."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 autocast where the GPU or processor is faster in it, fp32 elsewhere."""
    channels_last: bool = True
    """Memory layout of the convolutions."""
    compile: bool = False
    """Compile the trunk with torch.compile."""
    checkpoint_steps: Annotated[int, Field(ge=0)] = 0
    """Also save a checkpoint every so many steps; 0 = at the end of each epoch only."""
    max_failures: Annotated[int, Field(ge=0)] = 3
    """How many lost workers to replace before giving up."""
    loader_threads: Annotated[int, Field(ge=0)] = 0
    """Threads, in a process beside each worker, that decode photos; 0 = decode in the worker (right on CPUs)."""
    augment: Augment = Augment()
    sharding: Sharding = Sharding()
    seed: int = 0
    """Seed of the weights, the order of rows and the augmentation."""

    @model_validator(mode="after")
    def _fewer_are_fewer(self) -> Self:
        if self.min_workers > self.workers:
            raise ValueError("min_workers must not be above workers")
        return self


# ---------------------------------------------------------------- after training


class Evaluate(Section):
    """How answers are measured."""

    batch_size: Count = 128
    """Rows per step."""
    rows: Annotated[int, Field(ge=0)] = 0
    """The pipeline asks about so many rows of the test split; 0: all of them."""
    bins: Count = 15
    """Bins of the expected calibration error."""
    known_kept: Share = 0.95
    """Share of the right answers on validation that stay known: an answer less sure than these is "unknown product".

    Fitted once, at the end of training, for each way of asking, and kept in the bundle. A higher share refuses fewer
    products of the catalogue and lets more foreign ones pass; 0.95 refuses about one right answer of 20."""
    baseline: bool = True
    """Whether the pipeline also trains the visual-only model, to tell what words are worth."""
    seeds: Annotated[int, Field(ge=0, le=20)] = 0
    """Further seeds for the comparison with the visual-only baseline; 0 = the run's own seed alone."""
    other_title: str | None = None
    """Another title column: the pipeline trains and tests once more with it, reported as image_<column>."""

    @model_validator(mode="after")
    def _seeds_compare(self) -> Self:
        if self.seeds and not self.baseline:
            raise ValueError("seeds compare with the visual-only baseline, which baseline = false leaves out")
        return self


class Index(Section):
    """How a model of very many classes finds the few that an answer is about; decided when its bundle is written."""

    above: Count = 50_000
    """With more classes than this, answers are looked up in an index instead of comparing with every class.

    Probabilities are then shared out among the candidates alone, and no product can be enrolled."""
    candidates: Count = 200
    """Classes that the index proposes; their logits are computed exactly. No answer ranks more."""
    recall: Share = 0.995
    """Share of the ten best classes that must be among the candidates, measured on validation: with words alone,
    or on other rows, it is a little less.

    The fastest index that reaches it is kept; one that compares with every class where no faster one does."""


class Registry(Section):
    """When a new model may become the champion."""

    name: str = "sicot"
    """Name of the registered model."""
    tail_tolerance: Share = 0.01
    """How much tail accuracy may drop for a champion whose overall accuracy does not."""


class Track(Section):
    """MLflow."""

    uri: str | None = None
    """Tracking server or store; default: a SQLite file in `storage`."""
    experiment: str = "sicot"
    """MLflow experiment that runs are filed under."""


class Serve(Section):
    """The endpoint."""

    model: str = "models:/sicot@champion"
    """Model to serve: an MLflow URI or the folder of a bundle. What an alias means is followed while serving."""
    follow_seconds: Positive = 10.0
    """How often to look whether the alias means another version, seconds."""
    host: str = "127.0.0.1"
    """Address to listen on; another than this machine's own needs `keys`."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """Port to listen on."""
    grpc_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Port to listen on for gRPC as well (sicot/rpc/recognizer.proto); without one, HTTP alone is spoken."""
    keys: str | None = None
    """File, path or URI, of the keys that let clients in (see python -m jobs.key); or their lines in the environment
    variable SICOT_KEYS. Without keys, only this machine is answered."""
    replicas: Count = 2
    """Processes that answer."""
    threads: Count = 1
    """Batches that a process answers at the same time, a core each; 1: on the loop that reads requests. Further
    processes are faster than further threads."""
    max_batch: Count = 16
    """Photos answered in one step of the model; it waits no longer than a millisecond for a fuller batch."""
    max_queue: Count = 128
    """Requests that may wait in a process; more are answered 503 at once."""
    max_seconds: Positive = 10.0
    """A request that cannot be answered in this time is answered 503, seconds."""
    max_bytes: Count = 10_000_000
    """Larger request bodies are answered 413, bytes."""
    max_enrol_bytes: Count = 50_000_000
    """The same for requests that enrol a product, which may hold 20 photos of up to `max_bytes`."""
    max_pixels: Count = 40_000_000
    """Photos with more pixels are answered 413, unread."""
    max_k: Count = 100
    """Most ranked classes a request may ask for."""
    cache: Annotated[int, Field(ge=0)] = 1000
    """Answers that a process keeps for requests that come again; 0 keeps none."""
    access_log: bool = False
    """Log a line for every request: method, route, status and time."""
    drift_seconds: Positive = 3600.0
    """Scores of the answers of so long are compared with those of validation, seconds."""
    challenger: str | None = None
    """Model that is tried beside `model`, such as models:/sicot@challenger, which is followed likewise: while nothing
    has the alias, or the champion itself has it, everybody is answered by the champion. Takes the memory of a model."""
    challenger_share: Share = 0.1
    """Share of visitors, as named by the header X-Visitor-ID, whom the challenger answers, always the same ones; of
    requests without that header, the same share."""
    feedback: str | None = None
    """Database that keeps answers and what clients say of them: sqlite:///feedback.db, where all replicas are on one
    machine, or postgresql://user@host/name (the password can come from ~/.pgpass). Without one, neither is kept."""
    feedback_days: Annotated[int, Field(ge=0)] = 365
    """Answers and feedback are deleted from the database after so many days; 0: never."""


class Tune(Section):
    """Ray Tune's search of attention and loss weights.

    It ends with the first of `trials`, `minutes` and `gpu_hours` that is used up. What an earlier start of the same
    search has used counts; with more given, it goes on."""

    trials: Count = 12
    """Number of trials; the first one is the config as it stands."""
    minutes: Positive | None = None
    """Time of the search, minutes; trials under way are cut off then, and go on when more is given."""
    gpu_hours: Positive | None = None
    """GPUs in use by trials, times hours."""
    concurrent: Count = 2
    """Trials at the same time."""
    cpus_per_trial: Positive = 1.0
    """CPUs of a trial, a thread each; logical ones, 0.5 lets two trials take turns on one."""
    gpus_per_trial: Positive = 1.0
    """GPUs of a trial, if `train.gpu`; with 0.25, four trials share one."""
    epochs: Count = 10
    """Longest trial."""
    grace: Count = 1
    """Epochs before ASHA may stop a trial; about a quarter goes on from there, and a quarter of these after four
    times as many."""
    objective: Literal["weighted", "pareto"] = "weighted"
    """weighted: one number, see `tail_weight`; pareto: all trials that none beats in both overall and tail accuracy.

    For the front no trial is stopped early; `best.yaml` is its point of the best weighted objective."""
    tail_weight: Share = 0.5
    """Objective: this share of tail accuracy, the rest overall; on validation, mean of photo alone and with words."""
    screen: Annotated[int, Field(ge=0)] = 0
    """Trials train on cached features of the trunk as it starts, in seconds on CPUs; then so many of the best, and the
    config as it stands, train in full for `train.epochs`. Half of `minutes` is kept for these. 0: no screening."""
    folds: Annotated[int, Field(ge=0, le=20)] = 0
    """Screening measures by so many folds of the training rows, which takes that much longer: where validation has too
    few rows to tell settings apart. 0: on validation."""
    warm_start: str | None = None
    """Begin with what is known: the id of an earlier search's MLflow run, or `same` for all earlier searches of the
    same data and objective. Of other data or another objective, its best points are tried first instead."""
    seed: int = 0
    """Seed of the search."""

    @model_validator(mode="after")
    def _gpus_are_whole_or_shared(self) -> Self:
        if self.gpus_per_trial > 1 and self.gpus_per_trial != int(self.gpus_per_trial):
            raise ValueError("gpus_per_trial must be a share of one GPU, or a whole number of them")
        if self.cpus_per_trial > 1 and self.cpus_per_trial != int(self.cpus_per_trial):
            raise ValueError("cpus_per_trial must be a share of one CPU, or a whole number of them")
        if self.folds == 1:
            raise ValueError("folds must be 0, or 2 and more: with one, nothing would be left to train on")
        if self.folds and not self.screen:
            raise ValueError("folds are how screening measures: give screen, too")
        return self


# ---------------------------------------------------------------- the whole


class Job(BaseSettings):
    """Base of what a job reads from its YAML file and its command line (never from the environment)."""

    model_config = SettingsConfigDict(
        extra="forbid",
        use_attribute_docstrings=True,
        validate_default=True,
        cli_implicit_flags=True,
        cli_avoid_json=True,
        cli_hide_none_type=True,
        cli_use_class_docs_for_groups=True,
        nested_model_default_partial_update=True,
        cli_parse_none_str="none",
        cli_exit_on_error=False,
    )

    storage: str = "runs"
    """Folder or URI that everything is written under."""
    track: Track = Track()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)  # the command line puts itself in front; the environment is not read

    @property
    def tracking_uri(self) -> str:
        """MLflow's store: `track.uri`, or a SQLite file in a local `storage`."""
        if self.track.uri:
            return self.track.uri
        if "://" in self.storage:
            raise UserError("track.uri is needed when storage is a URI: name your MLflow server")
        return f"sqlite:///{Path(self.storage).absolute() / 'mlflow.db'}"

    @property
    def feedback_url(self) -> str | None:
        """The database of answers and feedback on this machine: a SQLite file in a local `storage`, else None."""
        if "://" in self.storage:
            return None
        return f"sqlite:///{Path(self.storage).absolute() / 'feedback.db'}"


class Experiment(Job):
    """One experiment: catalogue in, served recognizer out."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] = "default"
    """Name of the run; its files are in `storage`/name, and the same name continues it."""
    fresh: bool = False
    """Start the run over: delete what an earlier one of this name has left."""
    catalogue: Catalogue = Catalogue()
    prepare: Prepare = Prepare()
    model: Model = Model()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    index: Index = Index()
    registry: Registry = Registry()
    serve: Serve = Serve()
    tune: Tune = Tune()

    @property
    def folder(self) -> str:
        """Where this run's files are: an absolute path or a URI."""
        root = self.storage if "://" in self.storage else str(Path(self.storage).absolute())
        return f"{root.rstrip('/')}/{self.name}"

    def dump(self) -> bytes:
        """The resolved config as YAML that ``--config`` takes."""
        values = self.model_dump(mode="json", exclude={"fresh"})
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True).encode()


JobType = TypeVar("JobType", bound=Job)


def presets() -> list[str]:
    """Names that ``--preset`` takes."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a config file; :class:`UserError` names the file and what is wrong with it."""
    try:
        values = yaml.safe_load(path.read_text())
    except FileNotFoundError as error:
        raise UserError(f"no config file at {path}") from error
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold `section: values`, not a {type(values).__name__}")
    return values


def load(job: type[JobType], argv: list[str] | None = None, program: str | None = None) -> JobType:
    """Read a job's settings from ``argv`` (default: this process's), a preset or a file, and the defaults.

    :class:`UserError` names the field that is wrong. ``--help`` prints every field and exits.
    """
    argv = sys.argv[1:] if argv is None else argv
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset")
    first.add_argument("--config", type=Path)
    layers, rest = first.parse_known_args(argv)
    values: dict[str, Any] = {}
    if layers.preset and layers.config:
        raise UserError("give --preset or --config, not both")
    if layers.preset:
        if layers.preset not in presets():
            raise UserError(f"--preset {layers.preset}: no such preset; there are {', '.join(presets())}")
        values = read_yaml(PRESETS / f"{layers.preset}.yaml")
    elif layers.config:
        values = read_yaml(layers.config)
    values = {
        key: value for key, value in values.items() if key not in Experiment.model_fields or _has(job, key, value)
    }
    try:
        return job(_cli_parse_args=rest, _cli_prog_name=program, **values)  # type: ignore[call-arg]
    except ValidationError as error:
        raise UserError("; ".join(_say(problem) for problem in error.errors()[:3])) from None
    except SettingsError as error:
        raise UserError(str(error)) from None


def _has(job: type[Job], key: str, value: Any) -> bool:
    """Whether a job takes this part of an experiment's file: `model` is a section there, but a URI in some jobs."""
    if job is Experiment:
        return True
    field = job.model_fields.get(key)
    return field is not None and isinstance(value, dict) == isinstance(field.default, BaseModel)


def _say(problem: Any) -> str:
    field = ".".join(str(part) for part in problem["loc"]) or "config"
    what = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        return f"{field}: there is no such setting; see --help"
    given = problem.get("input")
    return f"{field}: {what}" + ("" if isinstance(given, (dict, BaseModel)) else f" (given: {given!r})")
