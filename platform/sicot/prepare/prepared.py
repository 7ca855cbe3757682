"""The prepared set: the contract between `prepare` and everything that trains or measures.

    <root>/manifest.json            what is here, from what, and its digest; written last: no manifest, no set
    <root>/{train,val,test}/*.parquet   ROW below; row groups of `ROW_GROUP` rows
    <root>/classes.parquet          label, count (training rows), prior, group; the row number is the class index
    <root>/vocabulary.parquet       word, count (training rows with it), idf; the row number + 1 is the word's id
    <root>/word_vectors.safetensors `vectors` [V + 1, E] float32; row 0 is zero
    <root>/quarantine/*.parquet     id, split, reason, detail of every bad row

Word id 0 means "no word": padding, or a word the vocabulary does not have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from sicot import storage
from sicot.config import Images, Text
from sicot.errors import UserError

VERSION = 1
ROW_GROUP = 256

ROW = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("image", pa.binary()),  # JPEG, size x size
        pa.field("label", pa.int32()),
        pa.field("tokens", pa.list_(pa.string())),  # at most text.max_words, the title's first
        pa.field("words", pa.list_(pa.int32())),  # ids of `tokens`, one for one; 0 = not in the vocabulary
    ]
)
CLASSES = pa.schema(
    [
        pa.field("label", pa.string()),
        pa.field("count", pa.int64()),
        pa.field("prior", pa.float64()),
        pa.field("group", pa.string()),
    ]
)
VOCABULARY = pa.schema([pa.field("word", pa.string()), pa.field("count", pa.int64()), pa.field("idf", pa.float32())])
QUARANTINE = pa.schema([pa.field(name, pa.string()) for name in ("id", "split", "reason", "detail")])

GROUPS = ("head", "medium", "tail")
ENROLLED = "enrolled"  # the group of classes that a bundle knows without training


class Manifest(BaseModel):
    """What a prepared set holds."""

    model_config = ConfigDict(extra="forbid")

    version: int = VERSION
    digest: str
    """SHA-256 over config and content: the same input and config give the same digest."""
    fingerprint: str = ""
    """Hash of the settings and of the catalogue's files by name, size and time: equal means prepared already."""
    images: Images
    text: Text
    head_above: int
    tail_below: int
    rows: dict[str, int]
    """Rows of each split."""
    files: dict[str, list[str]]
    """Files of each split, relative to the root, in order."""
    classes: int
    vocabulary: int
    word_dimension: int
    quarantined: dict[str, int]
    """Bad rows by reason."""
    source: dict[str, Any]
    """The catalogue section of the config that made it."""


@dataclass(frozen=True)
class Classes:
    """The class table: index = row."""

    table: pa.Table

    @cached_property
    def label(self) -> pa.Array:
        """Label of each class index, as a column: for a million classes, and a few of them."""
        return self.table["label"].combine_chunks()

    @cached_property
    def labels(self) -> list[str]:
        """Label of each class index."""
        return self.label.to_pylist()

    def named(self, classes: Sequence[int] | np.ndarray) -> list[str]:
        """Labels of some classes."""
        return self.label.take(pa.array(classes, pa.int64())).to_pylist()

    def shots(self, classes: Sequence[int]) -> list[str]:
        """head, medium or tail of some classes."""
        return self.table["group"].take(pa.array(classes, pa.int64())).to_pylist()

    @cached_property
    def count(self) -> np.ndarray:
        """Training rows of each class, int64 [C]."""
        return self.table["count"].to_numpy()

    @cached_property
    def log_prior(self) -> np.ndarray:
        """Log of the smoothed class prior, float32 [C]; finite for classes without rows."""
        return np.log(self.table["prior"].to_numpy()).astype(np.float32)

    @cached_property
    def group(self) -> np.ndarray:
        """head, medium or tail of each class, str [C]."""
        groups = self.table["group"].combine_chunks().dictionary_encode()
        return np.asarray(groups.dictionary.to_pylist(), str)[groups.indices.to_numpy()]

    def __len__(self) -> int:
        return self.table.num_rows


@dataclass(frozen=True)
class PreparedSet:
    """A prepared set that is complete; see :meth:`open`."""

    root: str
    manifest: Manifest

    @classmethod
    def open(cls, root: str) -> PreparedSet:
        """Open the set at ``root`` (path or URI). :class:`UserError` if there is none or it is of another version."""
        root = root.rstrip("/")
        try:
            raw = storage.read_json(f"{root}/manifest.json")
        except FileNotFoundError as error:
            raise UserError(f"no prepared set at {root}: run `python -m jobs.prepare` first") from error
        if raw.get("version") != VERSION:
            raise UserError(
                f"{root} was prepared by another version ({raw.get('version')}, need {VERSION}): prepare it again"
            )
        return cls(root, Manifest.model_validate(raw))

    @cached_property
    def classes(self) -> Classes:
        """The class table."""
        return Classes(storage.read_table(f"{self.root}/classes.parquet"))

    @cached_property
    def vocabulary(self) -> pa.Table:
        """VOCABULARY rows; id of a word = its row + 1."""
        return storage.read_table(f"{self.root}/vocabulary.parquet")

    @cached_property
    def idf(self) -> np.ndarray:
        """Inverse document frequency by word id, float32 [V + 1]; 0 for id 0."""
        return np.concatenate([[0.0], self.vocabulary["idf"].to_numpy()]).astype(np.float32)

    def word_vectors(self) -> np.ndarray:
        """Word vectors by word id, float32 [V + 1, E]."""
        from safetensors.numpy import load

        return load(storage.read_bytes(f"{self.root}/word_vectors.safetensors"))["vectors"]

    def parquet(self, split: str) -> list[pq.ParquetFile]:
        """The split's files, opened (only their footers are read)."""
        system, root = storage.open_uri(self.root)
        return [pq.ParquetFile(system.open_input_file(f"{root}/{name}")) for name in self.manifest.files[split]]

    def uris(self, split: str) -> list[str]:
        """Full path or URI of the split's files."""
        return [f"{self.root}/{name}" for name in self.manifest.files[split]]
