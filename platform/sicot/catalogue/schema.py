"""What a product row is, after an adapter has renamed and joined, before anything was checked or dropped."""

from __future__ import annotations

import pyarrow as pa

ROW = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("image", pa.binary()),  # encoded photo; null where the catalogue names a file
        pa.field("image_uri", pa.string()),  # path or URI of the photo, absolute; null where it must not be opened
        pa.field("image_name", pa.string()),  # the photo as the catalogue names it, relative to its folder
        pa.field("title", pa.string()),
        pa.field("tags", pa.list_(pa.string())),
        pa.field("label", pa.string()),  # null or empty where it is not known
        pa.field("split", pa.string()),  # train, val, test; null where it has to be made
    ]
)
"""Columns and types that every adapter in :mod:`sicot.catalogue.sources` yields."""

SPLITS = ("train", "val", "test")
