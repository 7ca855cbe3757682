from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Query(_message.Message):
    __slots__ = ("image", "title", "tags", "k")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    image: bytes
    title: str
    tags: _containers.RepeatedScalarFieldContainer[str]
    k: int
    def __init__(self, image: _Optional[bytes] = ..., title: _Optional[str] = ..., tags: _Optional[_Iterable[str]] = ..., k: _Optional[int] = ...) -> None: ...

class Recognition(_message.Message):
    __slots__ = ("request_id", "model", "arm", "ranked", "score", "unknown", "words", "no_word", "milliseconds")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    RANKED_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    NO_WORD_FIELD_NUMBER: _ClassVar[int]
    MILLISECONDS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: Model
    arm: str
    ranked: _containers.RepeatedCompositeFieldContainer[Class]
    score: float
    unknown: bool
    words: _containers.RepeatedCompositeFieldContainer[Word]
    no_word: float
    milliseconds: float
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[_Union[Model, _Mapping]] = ..., arm: _Optional[str] = ..., ranked: _Optional[_Iterable[_Union[Class, _Mapping]]] = ..., score: _Optional[float] = ..., unknown: _Optional[bool] = ..., words: _Optional[_Iterable[_Union[Word, _Mapping]]] = ..., no_word: _Optional[float] = ..., milliseconds: _Optional[float] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "version", "digest")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    digest: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., digest: _Optional[str] = ...) -> None: ...

class Class(_message.Message):
    __slots__ = ("label", "probability")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    label: str
    probability: float
    def __init__(self, label: _Optional[str] = ..., probability: _Optional[float] = ...) -> None: ...

class Word(_message.Message):
    __slots__ = ("token", "weight", "known")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    token: str
    weight: float
    known: bool
    def __init__(self, token: _Optional[str] = ..., weight: _Optional[float] = ..., known: _Optional[bool] = ...) -> None: ...
