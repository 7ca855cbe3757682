"""The bundle: one folder that holds all it takes to answer, and the contract between training and every use.

    bundle.json             Info: config, data digest, metrics, the SHA-256 of the files below
    weights.safetensors     all parameters and buffers
    classes.parquet         label, count, prior, group; the row number is the class index
    vocabulary.parquet      word, count, idf; the row number + 1 is the word's id
    enrolled.*              products that it knows without training, if there are any: see :mod:`sicot.enrolled`
    index.faiss             where there are very many classes, what answers are looked up in: see :mod:`sicot.index`
    engine.*                the visual network as processors run it fastest, see :mod:`sicot.engine`; can be missing
    thumbnails.parquet      a small photo of each class, see :mod:`sicot.thumbnails`; can be missing

JSON, Parquet and safetensors only, arrays that faiss reads and a graph that OpenVINO reads: loading a bundle never runs
code from it. Evaluation, batch jobs and the endpoint all answer through :class:`Bundle`.

B batch, H height, W width, T words, S = T + 1 words and the null word, C classes, enrolled ones behind those trained,
D feature dimension, N candidates, K ranked classes.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sicot import config, engine, enrolled, index, storage, thumbnails
from sicot.answer import Answer, Item, Query, Ranked, Top, Word
from sicot.drift import Scores
from sicot.engine import Engine
from sicot.enrolled import Enrolled
from sicot.errors import UserError
from sicot.index import Index, Rows
from sicot.model.attention import pad
from sicot.model.imprint import log_odds
from sicot.model.recognizer import SICoT
from sicot.prepare import images
from sicot.prepare.prepared import ENROLLED, Classes, PreparedSet
from sicot.prepare.text import Vocabulary, tokenise
from sicot.thumbnails import Thumbnails

VERSION = 2
FILES = ("weights.safetensors", "classes.parquet", "vocabulary.parquet")


class Info(BaseModel):
    """What a bundle says of itself."""

    model_config = ConfigDict(extra="forbid")

    version: int = VERSION
    name: str
    digest: str
    """SHA-256 over the files' own: names the model."""
    created: str
    model: config.Model
    images: config.Images
    text: config.Text
    classes: int
    """Classes that it was trained on."""
    enrolled: int = 0
    """Products that were enrolled since."""
    vocabulary: int
    word_dimension: int
    temperature: dict[str, float]
    """By regime; divides the logits, fitted on validation, so that probabilities mean what they say."""
    threshold: dict[str, float]
    """By regime; an answer less sure than this is "unknown product", fitted with the temperature."""
    scores: dict[str, Scores] = {}
    """By regime; how validation's scores were distributed, which those of an endpoint are compared with; not in bundles
    of before."""
    data_digest: str
    training: dict[str, Any]
    """How it was trained: epochs, images/s, commit and so on."""
    metrics: dict[str, Any]
    """Test metrics by regime; empty before evaluation."""
    files: dict[str, str]
    """SHA-256 of each file."""
    index: dict[str, Any] | None = None
    """What was measured of the index, see :func:`sicot.index.build`; None where answers compare with every class."""
    engine: dict[str, Any] | None = None
    """What was measured of the engine, see :func:`sicot.engine.build`; None where there is none."""

    @property
    def made(self) -> tuple[str, ...]:
        """The files that training made: all but what is enrolled."""
        shown = (thumbnails.FILE,) if thumbnails.FILE in self.files else ()
        return (*FILES, *((index.FILE,) if self.index else ()), *(engine.FILES if self.engine else ()), *shown)

    @property
    def ranks(self) -> int:
        """Most classes that an answer can rank."""
        return min(self.index["candidates"], self.classes) if self.index else self.classes + self.enrolled


class Bundle:
    """A model that answers. :meth:`predict` for everyday use; :meth:`encode` and :meth:`answer` are its two halves."""

    def __init__(
        self,
        folder: str,
        info: Info,
        model: SICoT,
        trained: Classes,
        words: Vocabulary,
        enrolled: Enrolled,
        index: Index | None = None,
        engine: Engine | None = None,
        photos: Thumbnails | None = None,
    ):
        self.folder, self.info, self.model, self.vocabulary = folder, info, model.eval(), words
        self.trained, self.enrolled, self.index, self.engine = trained, enrolled, index, engine
        self.photos = photos or Thumbnails.none()
        self.classes = _all_classes(trained, enrolled.labels)
        self.device = model.log_prior_C.device
        self._rows_2ED = enrolled.rows_2ED.to(self.device)
        self._rows_CD = None if index else model.classifier.rows()

    @classmethod
    def load(cls, folder: str | Path, streams: int = 1) -> Bundle:
        """Load and verify the bundle in a local folder.

        Args:
            folder: of the bundle.
            streams: threads that will ask about photos at the same time; see :class:`sicot.engine.Engine`.

        Raises:
            UserError: there is no bundle, it is of another version, or a file is not what the bundle says it is.
        """
        root = Path(folder)
        try:
            raw = json.loads((root / "bundle.json").read_text())
            if not isinstance(raw, dict) or raw.get("version") != VERSION:
                raise UserError(f"{root}/bundle.json is not one this version reads (version {VERSION})")
            info = Info.model_validate(raw)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise UserError(f"no bundle at {root}: it must hold a bundle.json") from error
        except (ValidationError, json.JSONDecodeError) as error:
            raise UserError(f"{root}/bundle.json is not one this version reads (version {VERSION})") from error
        for name in (*info.made, *(enrolled.FILES if info.enrolled else ())):
            if not (root / name).exists() or _sha256(root / name) != info.files.get(name):
                raise UserError(f"{root / name} is missing or not the file that was bundled: fetch the bundle again")
        classes = Classes(storage.read_table(str(root / "classes.parquet")))
        words = storage.read_table(str(root / "vocabulary.parquet"), ["word"])["word"].to_pylist()
        products = Enrolled.read(root) if info.enrolled else Enrolled.none(info.model.dimension)
        if (len(classes), len(words), len(products)) != (info.classes, info.vocabulary, info.enrolled):
            raise UserError(f"{root}/bundle.json does not fit its tables: fetch the bundle again")
        model = _empty(info)
        try:  # tensors stay where they lie in the file, which is mapped into memory
            model.load_state_dict(load_file(root / "weights.safetensors"), assign=True)
        except (SafetensorError, RuntimeError) as error:
            raise UserError(f"{root}/weights.safetensors does not fit {root}/bundle.json") from error
        try:
            lookup = Index.read(root / index.FILE, info.index) if info.index else None
        except RuntimeError as error:
            raise UserError(f"{root / index.FILE} is no index: fetch the bundle again") from error
        network = Engine(root, info.engine["precision"], streams) if info.engine else None
        photos = Thumbnails.read(root) if thumbnails.FILE in info.files else None
        return cls(str(root), info, model, classes, Vocabulary(words), products, lookup, network, photos)

    def to(self, device: str | torch.device) -> Bundle:
        """Answer on another device."""
        self.device = torch.device(device)
        self.engine = self.engine if self.device.type == "cpu" else None
        self.model.to(self.device)
        self._rows_2ED = self.enrolled.rows_2ED.to(self.device)
        self._rows_CD = None if self.index else self.model.classifier.rows()
        return self

    @property
    def regimes(self) -> list[str]:
        """What can be asked: image, image_text, text; image alone for a visual-only model."""
        return ["image", "image_text", "text"] if self.info.model.uses_words else ["image"]

    def regime(self, item: Item) -> str:
        """How an item is asked: without a word that the model knows, a photo is asked alone."""
        if item.image_HW3 is None:
            return "text"
        return "image_text" if self.info.model.uses_words and any(item.words) else "image"

    def thumbnail(self, label: str) -> bytes | None:
        """A small photo of a class, JPEG; None if there is no such class, or no photo of it. Raises BadImage."""
        kept = [row["image"] for row in self.enrolled.of(label) if row["image"]]
        if kept:
            return thumbnails.small(kept[0], self.info.images)
        return self.photos.of(pc.index(self.trained.label, label).as_py())

    def decode(self, photo: bytes) -> np.ndarray:
        """Encoded photo → uint8 [H, W, 3]. Raises :class:`sicot.prepare.images.BadImage`."""
        return images.decode(photo, self.info.images)

    def read(self, title: str, tags: Sequence[str]) -> tuple[list[str], list[int]]:
        """Words of a query and their ids; 0 for words the vocabulary does not have."""
        tokens = tokenise(title, tags, self.info.text)
        return tokens, self.vocabulary.ids(tokens)

    def encode(self, query: Query) -> Item:
        """Decode and tokenise: the part that needs no model and can run beside it.

        Raises:
            BadImage: the photo cannot be read.
            UserError: there is neither a photo nor a word this model knows.
        """
        image_HW3 = self.decode(query.image) if query.image is not None else None
        tokens, words = self.read(query.title, query.tags)
        if image_HW3 is None and not self.info.model.uses_words:
            raise UserError("this model looks at photos only: send one")
        if image_HW3 is None and not any(words):
            raise UserError("nothing to go by: send a photo, or words that the catalogue uses")
        return Item(image_HW3, tokens, words)

    def logits(self, images_BHW3: Tensor | None, words_BT: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Calibrated logits z_BC and attention a_BS (None if no words were looked at); see :meth:`SICoT.answer`."""
        return self.judge(self.see(images_BHW3) if images_BHW3 is not None else None, words_BT)

    @torch.inference_mode()
    def see(self, images_BHW3: Tensor) -> Tensor:
        """Visual features v_BD of photos: what is worth doing once when several questions follow."""
        if self.engine:
            return self.engine.see(images_BHW3)
        return self.model.visual(images_BHW3.to(self.device, non_blocking=True))

    @torch.inference_mode()
    def judge(self, v_BD: Tensor | None, words_BT: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """:meth:`logits` from visual features."""
        words_BT = words_BT.to(self.device, non_blocking=True) if words_BT is not None else None
        x_BD, a_BS = self.model.feature(v_BD, words_BT)
        if a_BS is None or words_BT is None:
            return self._calibrated("image", v_BD, None, x_BD), a_BS
        if v_BD is None:
            return self._calibrated("text", None, words_BT, x_BD), a_BS
        has_words_B1 = (words_BT > 0).any(1, keepdim=True)
        both_BC, photo_BC = (self._calibrated(regime, v_BD, words_BT, x_BD) for regime in ("image_text", "image"))
        return torch.where(has_words_B1, both_BC, photo_BC), a_BS

    def _calibrated(self, regime: str, v_BD: Tensor | None, words_BT: Tensor | None, x_BD: Tensor) -> Tensor:
        """Logits in one regime, those of enrolled products behind the trained classes'."""
        temperature = self.info.temperature[regime]
        z_BC = self.model.classifier(x_BD, self._rows_CD) / temperature
        if not self.info.enrolled:
            return z_BC
        odds_BE = log_odds(self.model, self._rows_2ED, regime, temperature, v_BD, words_BT, x_BD)
        return torch.cat([z_BC, z_BC.logsumexp(1, keepdim=True) + odds_BE], 1)

    @torch.inference_mode()
    def top(self, v_BD: Tensor | None, words_BT: Tensor | None, k: int) -> Top:
        """The k best classes, or all that can be ranked, for visual features, words, or both; see :meth:`judge`.

        With an index the logits are those of its candidates, exact and calibrated, and their softmax is over the
        candidates alone: what the other classes would have got, next to nothing each, is shared out among these.
        """
        k = min(k, self.info.ranks)
        if self.index is None:
            z_BC, a_BS = self.judge(v_BD, words_BT)
            best = z_BC.softmax(1).topk(k)
            return Top(best.values, best.indices, a_BS)
        words_BT = words_BT.to(self.device, non_blocking=True) if words_BT is not None else None
        x_BD, a_BS = self.model.feature(v_BD, words_BT)
        classes_BN = self.index.candidates(x_BD)
        s_BN = Rows.of(self.model.classifier).scores(x_BD, classes_BN) * self.model.classifier.log_scale.exp()
        temperature_B1 = self._temperature(v_BD, words_BT if a_BS is not None else None)
        best = (s_BN / temperature_B1).softmax(1).topk(k)
        return Top(best.values, classes_BN.gather(1, best.indices), a_BS)

    def _temperature(self, v_BD: Tensor | None, words_BT: Tensor | None) -> Tensor:
        """Of each row's regime, [B, 1] or a scalar: a photo without words is asked alone."""
        of = {regime: torch.tensor(each, device=self.device) for regime, each in self.info.temperature.items()}
        if words_BT is None or v_BD is None:
            return of["image" if words_BT is None else "text"]
        return torch.where((words_BT > 0).any(1, keepdim=True), of["image_text"], of["image"])

    def answer(
        self, items: Sequence[Item], k: int = 5, seen: Callable[[float], None] = lambda seconds: None
    ) -> list[Answer]:
        """Answer a batch; items with and without photos may be mixed. At most `Info.ranks` classes are ranked.

        ``seen`` is told how many seconds the visual network took.
        """
        answers: dict[int, Answer] = {}
        with_photo = [i for i, item in enumerate(items) if item.image_HW3 is not None]
        without = [i for i, item in enumerate(items) if item.image_HW3 is None]
        for chosen in (with_photo, without):
            if not chosen:
                continue
            batch = [items[i] for i in chosen]
            photos = [item.image_HW3 for item in batch if item.image_HW3 is not None]
            begun = time.perf_counter()
            v_BD = self.see(torch.from_numpy(np.stack(photos))) if photos else None
            seen(time.perf_counter() - begun)
            worded = v_BD is None or any(any(item.words) for item in batch)  # else words would change nothing
            top = self.top(v_BD, self.pad([item.words for item in batch]) if worded else None, k)
            labels = self.classes.named(top.classes_BK.flatten().tolist())
            groups = self.classes.grouped(top.classes_BK[:, 0].tolist())
            p, weights = top.p_BK.tolist(), top.a_BS.tolist() if top.a_BS is not None else [None] * len(batch)
            for row, i in enumerate(chosen):
                named = labels[row * len(p[row]) : (row + 1) * len(p[row])]
                answers[i] = self._answer(batch[row], p[row], named, weights[row], groups[row])
        return [answers[i] for i in range(len(items))]

    def predict(self, queries: Sequence[Query], k: int = 5) -> list[Answer]:
        """Answer queries in one batch. Raises what :meth:`encode` raises."""
        return self.answer([self.encode(query) for query in queries], k)

    def pad(self, words: Sequence[Sequence[int]]) -> Tensor:
        """Word ids of several products → words_BT, int64, filled up with 0 = no word."""
        return pad(words, self.info.text.max_words)

    def _answer(self, item: Item, p: list[float], labels: list[str], weights: list[float] | None, group: str) -> Answer:
        ranked = [Ranked(label, each) for label, each in zip(labels, p, strict=True)]
        shares = weights[: len(item.words)] if weights else [0.0] * len(item.words)
        words = [
            Word(token, share, known=word > 0)
            for token, share, word in zip(item.tokens, shares, item.words, strict=True)
        ]
        regime = self.regime(item)
        unknown = p[0] < self.info.threshold[regime]
        return Answer(ranked, p[0], unknown, words, weights[-1] if weights else 1.0, regime, group)


def write(
    uri: str,
    name: str,
    model: SICoT,
    prepared: PreparedSet,
    calibration: dict[str, dict[str, Any]],
    training: dict[str, Any],
    settings: config.Index | None = None,
    queries_ND: Tensor | None = None,
    images_NHW3: Tensor | None = None,
) -> Info:
    """Write the bundle of a trained model to ``uri`` (path or URI): aside first, then as a whole.

    Args:
        uri: where to.
        name: of the model.
        model: trained.
        prepared: the set it was trained on.
        calibration: what :func:`sicot.train.calibration.calibrate` fitted.
        training: what to note of it.
        settings: of the index; None for a bundle without one.
        queries_ND: what the classifier is shown in validation, which the index is chosen by: see
            :func:`sicot.index.build`.
        images_NHW3: photos, uint8, that the engine is measured on; None for a bundle without one.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        state = {key: value.detach().to("cpu", torch.float32).contiguous() for key, value in model.state_dict().items()}
        lookup = None
        if settings:
            lookup = index.build(Rows.of(model.classifier).cpu(), queries_ND, settings.candidates, settings.recall)
            lookup.write(root / index.FILE)
            state["means_2CD"] = state["means_2CD"][:, :0]  # only what is enrolled is compared with them
        compiled = None
        if images_NHW3 is not None:
            try:
                compiled = engine.build(model, images_NHW3, root)
            except ValueError as error:
                print(f"{error}: photos will be seen by PyTorch", flush=True)
        save_file(state, root / "weights.safetensors")
        if len(prepared.classes) <= thumbnails.MOST:
            storage.write_table(str(root / thumbnails.FILE), thumbnails.make(prepared))
        for file in ("classes.parquet", "vocabulary.parquet"):
            (root / file).write_bytes(storage.read_bytes(f"{prepared.root}/{file}"))
        # weights are pinned to no file or name on this machine: the bundle carries them
        network = model.config.model_copy(
            update={"visual": model.config.visual.model_copy(update={"weights": None})}, deep=True
        )
        manifest = prepared.manifest
        info = Info(
            name=name,
            digest="",
            created=now(),
            model=network,
            images=manifest.images,
            text=manifest.text,
            classes=manifest.classes,
            vocabulary=manifest.vocabulary,
            word_dimension=manifest.word_dimension,
            temperature=calibration["temperature"],
            threshold=calibration["threshold"],
            scores=calibration.get("scores", {}),
            data_digest=manifest.digest,
            training=training,
            metrics={},
            files={path.name: _sha256(path) for path in sorted(root.iterdir())},
            index=lookup.about if lookup else None,
            engine=compiled,
        )
        info = info.model_copy(update={"digest": digest_of(info)})
        (root / "bundle.json").write_text(info.model_dump_json(indent=1))
        storage.replace_folder(folder, uri, "bundle.json")
    return info


def _empty(info: Info) -> SICoT:
    """The model that a bundle is of, without weights; what there is of every class takes no memory."""
    words, dimension = info.vocabulary + 1, info.model.dimension
    model = SICoT(
        info.model, info.images.size, torch.zeros(0), torch.zeros(words, info.word_dimension), torch.zeros(words)
    )
    with torch.device("meta"):
        model.classifier.weight = nn.Parameter(torch.empty(info.classes, dimension))
        model.log_prior_C = torch.empty(info.classes)
        model.means_2CD = torch.empty(2, 0 if info.index else info.classes, dimension)
    return model


def annotate(uri: str, metrics: dict[str, Any]) -> None:
    """Keep test metrics with the bundle at a path or URI; its digest stays, since the model does."""
    info = Info.model_validate(storage.read_json(f"{uri}/bundle.json")).model_copy(update={"metrics": metrics})
    storage.write_bytes(f"{uri}/bundle.json", info.model_dump_json(indent=1).encode())


def _all_classes(trained: Classes, enrolled: list[str]) -> Classes:
    """The classes trained and, behind them, those enrolled: a group of their own, without training rows."""
    prior = float(trained.table["prior"].to_numpy().min())  # of the rarest; answers do not use it
    rows = [{"label": label, "count": 0, "prior": prior, "group": ENROLLED} for label in enrolled]
    return Classes(pa.concat_tables([trained.table, pa.Table.from_pylist(rows, trained.table.schema)]))


def digest_of(info: Info) -> str:
    """SHA-256 over all that shapes an answer: the files, and the numbers beside them."""
    shaping = {"model", "temperature", "threshold", "files"}
    pinned = json.dumps(info.model_dump(mode="json", include=shaping), sort_keys=True)
    return hashlib.sha256(pinned.encode()).hexdigest()


def now() -> str:
    """The time as a bundle notes it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
