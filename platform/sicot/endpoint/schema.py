"""What goes over the wire: the fields of a request, an answer, and an error. All of it is shown at /docs."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from sicot.feedback import Arm, Outcome

VISITOR = "X-Visitor-ID"
"""Header that says who visits."""
MAX_TITLE = 2000
MAX_TAGS = 64
MAX_REQUEST_ID = 200
MAX_LABEL = 1000
MAX_CLASSES = 100
"""Most labels that are found at once."""
Tag = Annotated[str, Field(max_length=200)]
Share = Annotated[
    float,
    AfterValidator(lambda share: float(f"{share:.6g}")),  # float32 rounds 1 up to 1.0000001
    Field(json_schema_extra={"minimum": 0.0, "maximum": 1.0}),
]


class Wire(BaseModel):
    """Base of everything on the wire."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class Words(Wire):
    """What a client may say of a product, beside photos."""

    title: Annotated[str, Field(max_length=MAX_TITLE)] = ""
    """Title of the product, in any language."""
    tags: Annotated[list[Tag], Field(max_length=MAX_TAGS)] = []
    """Further words: the field once for each tag, or one comma-separated list."""

    @field_validator("tags", mode="before")
    @classmethod
    def _split_at_commas(cls, value: Any) -> Any:
        """One string with commas is as good as the field repeated."""
        if not isinstance(value, list):
            return value
        return [tag.strip() for part in value for tag in part.replace("，", ",").split(",") if tag.strip()]


class Fields(Words):
    """What a client may ask beside the photo."""

    k: Annotated[int, Field(ge=1)] = 5
    """How many ranked classes to answer with."""


Label = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=300)]


class Product(Words):
    """A product to enrol, beside its photos."""

    label: Label
    """What it is called in answers; spaces around it are dropped."""


class Feedback(Words):
    """What a client may say of an answer, beside the photo; title and tags are kept with a correction."""

    request_id: Annotated[str, Field(min_length=1, max_length=MAX_REQUEST_ID)]
    """Of the answer."""
    outcome: Outcome
    """The answer was right; another product is right; or it ended in what the shop is after, such as a purchase."""
    label: Annotated[str, Field(max_length=MAX_LABEL)] = ""
    """The right product, needed with `corrected`; else the one accepted or converted, by default the answer's first."""

    @model_validator(mode="after")
    def _says_what_is_right(self) -> Self:
        """A correction that names nothing corrects nothing."""
        if self.outcome == "corrected" and not self.label.strip():
            raise ValueError("label: a correction names the right product")
        return self


class Kept(Wire):
    """Feedback that is kept."""

    request_id: str
    """Of the answer."""
    outcome: Outcome
    """What became of it."""


class Model(Wire):
    """Which model answered."""

    name: str
    """Name of the model."""
    version: str
    """Version in the registry; empty where the model was served from a folder."""
    digest: str
    """SHA-256 over the model's files."""


class Class(Wire):
    """A class and how likely it is."""

    label: str
    """The class, as the catalogue calls it."""
    probability: Share
    """Calibrated probability; over all classes, or all candidates of the model's index, they sum to 1."""


class Word(Wire):
    """A word of the request and how much the model looked at it."""

    token: str
    """The word as the model reads it: normalised and segmented."""
    weight: Share
    """Attention on the word."""
    known: bool
    """False where the word is not in the vocabulary; its weight is then 0."""


class Recognition(Wire):
    """The answer to a request."""

    request_id: str
    """The request's X-Request-ID, or a fresh one."""
    model: Model
    """Which model answered."""
    arm: Arm = "champion"
    """Whether that is the model for everyone, or the one that is tried on a share of visitors."""
    ranked: list[Class]
    """The k most likely classes, best first."""
    score: Share
    """How sure the answer is: the probability of the first class."""
    unknown: bool
    """True where no known product is sure enough: the score is below the model's threshold for this way of asking."""
    words: list[Word]
    """Every word of title and tags that was looked at."""
    no_word: Share
    """Attention on "none of these words": 1 if there are no words. `no_word` and all weights sum to 1."""
    milliseconds: Annotated[float, Field(ge=0.0)]
    """Time between the arrival of the request and the answer, on the server."""


EXAMPLE = {
    "request_id": "3f0c7be1-8c1d-4b9a-9f2e-0d6a4f1c2b3a",
    "model": {"name": "sicot", "version": "3", "digest": "9b1c5a…"},
    "arm": "champion",
    "ranked": [
        {"label": "red ceramic teapot", "probability": 0.91},
        {"label": "red enamel kettle", "probability": 0.06},
    ],
    "score": 0.91,
    "unknown": False,
    "words": [
        {"token": "红色", "weight": 0.22, "known": True},
        {"token": "teapot", "weight": 0.64, "known": True},
        {"token": "sale", "weight": 0.01, "known": True},
    ],
    "no_word": 0.13,
    "milliseconds": 18.4,
}
"""A :class:`Recognition`, for /docs."""


class Change(Wire):
    """A product that was enrolled or withdrawn."""

    label: str
    """The product."""
    model: Model
    """The model that answers from now on."""
    enrolled: int
    """How many enrolled products it knows."""


class Known(Wire):
    """A class of the model."""

    label: str
    """The class."""
    enrolled: bool
    """Whether it was enrolled; the model was trained on the others."""
    rows: int
    """How many rows the model was trained on."""


class Found(Wire):
    """Classes of the model."""

    model: Model
    """Which model knows them."""
    total: int
    """How many labels there are with this in them."""
    classes: list[Known]
    """The first of them; labels that begin with it come before others."""


class Limits(Wire):
    """What a request may not exceed."""

    max_bytes: int
    """Bytes of a request's body."""
    max_pixels: int
    """Pixels of a photo."""
    max_k: int
    """Ranked classes."""
    max_title: int = MAX_TITLE
    """Characters of a title."""
    max_tags: int = MAX_TAGS
    """Number of tags."""


class About(Wire):
    """The model that is served."""

    name: str
    """Name of the model."""
    version: str
    """Version in the registry; empty where the model was served from a folder."""
    digest: str
    """SHA-256 over the model's files."""
    created: str
    """When the model was made."""
    classes: int
    """How many classes it tells apart, enrolled products among them."""
    vocabulary: int
    """How many words it knows."""
    threshold: dict[str, float]
    """The score below which an answer is "unknown product", by the way of asking: image, image_text, text."""
    index: dict[str, Any] | None
    """What its classes are looked up in, and how well and fast; null where an answer compares with all of them."""
    metrics: dict[str, Any]
    """How well it did when it was evaluated."""
    limits: Limits
    """What a request may not exceed."""
    feedback: bool = False
    """Whether the endpoint keeps feedback: POST /v1/feedback is there."""
    challenger: Model | None = None
    """The model that is tried on a share of visitors, if there is one."""


class Status(Wire):
    """A health answer."""

    status: str
    """ok, ready, or full."""


class Detail(Wire):
    """What went wrong."""

    code: str
    """A word for programs; see the table of errors."""
    message: str
    """A sentence for people."""


class Error(Wire):
    """Every answer that is no success looks like this."""

    request_id: str
    """The request's X-Request-ID, or a fresh one; empty where the request was sent away before it had one."""
    error: Detail
    """What went wrong."""
