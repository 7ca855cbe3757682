"""Products that a bundle knows without having been trained on them: what was given for each, and the rows made of it.

    enrolled.parquet        GIVEN below: a row for each photo or words, product by product
    enrolled.safetensors    `rows` [2, E, D], by photos and by words, in the order in which the products appear there

What was given is kept so that another model can make rows of its own from it. E enrolled products, D feature dimension.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from sicot import storage
from sicot.errors import UserError

FILES = ("enrolled.parquet", "enrolled.safetensors")
GIVEN = pa.schema(
    [
        pa.field("label", pa.string()),
        pa.field("image", pa.binary()),  # encoded photo; null where there were only words
        pa.field("title", pa.string()),
        pa.field("tags", pa.list_(pa.string())),
    ]
)
MOST_PRODUCTS = 2000
MOST_BYTES, SIDE = 200_000, 512
"""A photo of more bytes is kept as a square of so many pixels: people send whole camera files, and bundles travel."""


@dataclass(frozen=True)
class Enrolled:
    """The products, in order."""

    given: pa.Table
    rows_2ED: Tensor

    @classmethod
    def none(cls, dimension: int) -> Enrolled:
        """No product yet."""
        return cls(GIVEN.empty_table(), torch.zeros(2, 0, dimension))

    @classmethod
    def read(cls, folder: Path) -> Enrolled:
        """What :meth:`files` holds. :class:`UserError` if the two do not fit together."""
        try:
            rows_2ED = load_file(folder / FILES[1])["rows"]
        except (SafetensorError, KeyError) as error:
            raise UserError(f"{folder / FILES[1]} holds no rows: fetch the bundle again") from error
        found = cls(storage.read_table(str(folder / FILES[0])), rows_2ED)
        if not found.given.schema.equals(GIVEN) or rows_2ED.shape[:2] != (2, len(found)):
            raise UserError(f"{folder / FILES[0]} does not fit its rows: fetch the bundle again")
        return found

    def files(self) -> dict[str, bytes]:
        """Name → content; none without products."""
        if not len(self):
            return {}
        return dict(
            zip(FILES, (storage.to_parquet(self.given), save({"rows": self.rows_2ED.contiguous()})), strict=True)
        )

    @cached_property
    def labels(self) -> list[str]:
        """The products' labels, each once."""
        return pc.unique(self.given["label"]).to_pylist()

    def __len__(self) -> int:
        return len(self.labels)

    def of(self, label: str) -> list[dict[str, Any]]:
        """What was given for a product."""
        return self.given.filter(pc.equal(self.given["label"], label)).drop_columns("label").to_pylist()

    def without(self, labels: set[str]) -> Enrolled:
        """The others."""
        stays = torch.tensor([label not in labels for label in self.labels], dtype=torch.bool)
        gone = pc.is_in(self.given["label"], value_set=pa.array(sorted(labels), pa.string()))
        return Enrolled(self.given.filter(pc.invert(gone)), self.rows_2ED[:, stays])

    def plus(self, given: list[dict[str, Any]], rows_2ED: Tensor) -> Enrolled:
        """These and further products."""
        table = pa.concat_tables([self.given, pa.Table.from_pylist(given, GIVEN)])
        return Enrolled(table.combine_chunks(), torch.cat([self.rows_2ED, rows_2ED], 1))
