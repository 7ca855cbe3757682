"""What the classes look like: a small photo of each, for people who read an answer.

    thumbnails.parquet      THUMBNAILS below; a row for each class that has training photos, by rising class index

Where there are more than `MOST` classes there is no such file: the bundle would carry more pictures than model.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from sicot import config, storage
from sicot.errors import UserError
from sicot.prepare import images
from sicot.prepare.prepared import ROW_GROUP, PreparedSet

FILE = "thumbnails.parquet"
THUMBNAILS = pa.schema([pa.field("label", pa.int32()), pa.field("image", pa.binary())])  # class index, JPEG
MOST = 20_000
SIDE, MOST_BYTES = 96, 3000
"""Pixels of a side, and bytes that a thumbnail should not exceed."""
QUALITIES = (85, 75, 60, 45, 30, 15)
LOOK = 3
"""Photos of a class that one is chosen from: the fewest among which an odd one out can be told."""


class Thumbnails:
    """JPEGs by class index."""

    def __init__(self, of: dict[int, bytes]):
        self._of = of

    @classmethod
    def none(cls) -> Thumbnails:
        """No photo of any class."""
        return cls({})

    @classmethod
    def read(cls, folder: Path) -> Thumbnails:
        """The file of a bundle's folder. :class:`UserError` if it holds something else."""
        table = storage.read_table(str(folder / FILE))
        if not table.schema.equals(THUMBNAILS):
            raise UserError(f"{folder / FILE} holds no thumbnails: fetch the bundle again")
        return cls(dict(zip(table["label"].to_pylist(), table["image"].to_pylist(), strict=True)))

    def of(self, label: int) -> bytes | None:
        """The photo of a class, if there is one."""
        return self._of.get(label)


def make(prepared: PreparedSet) -> pa.Table:
    """THUMBNAILS of a prepared set: of the first training photos of each class, the one most like the others."""
    settings = prepared.manifest.images
    seen: dict[int, list[bytes]] = {}
    for label, photo in _first(prepared):
        seen.setdefault(label, []).append(small(photo, settings))
    labels = sorted(seen)
    return pa.table({"label": labels, "image": [_typical(seen[label]) for label in labels]}, THUMBNAILS)


def small(photo: bytes, settings: config.Images) -> bytes:
    """JPEG of `SIDE` pixels a side, with all of the photo in it. Raises BadImage where ``settings`` do not allow it."""
    pixels = images.decode(photo, settings.model_copy(update={"size": SIDE, "fit": "pad"}))
    for quality in QUALITIES:
        made = images.encode(pixels, quality)
        if len(made) <= MOST_BYTES:
            break
    return made


def _first(prepared: PreparedSet) -> Iterator[tuple[int, bytes]]:
    """Class and photo of the first `LOOK` training rows of each class; no more of the split is read than that takes."""
    wanted = np.minimum(prepared.classes.count, LOOK)
    for file in prepared.parquet("train"):
        for batch in file.iter_batches(ROW_GROUP, columns=["label", "image"]):
            for place, label in enumerate(batch["label"].to_pylist()):
                if wanted[label] > 0:
                    wanted[label] -= 1
                    yield label, batch["image"][place].as_py()
            if not wanted.any():
                return


def _typical(photos: list[bytes]) -> bytes:
    """The photo nearest to all, by its coarse colours; the first of several."""
    tiny = config.Images(size=16)
    seen = np.stack([images.decode(photo, tiny).astype(np.float32) for photo in photos])
    apart = np.abs(seen[:, None] - seen[None]).mean(axis=(2, 3, 4)).sum(1)
    return photos[int(apart.argmin())]
