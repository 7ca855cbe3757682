"""Corrections as a catalogue: what people said is right, with the photo they sent, for the next model to learn."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from sicot import storage
from sicot.errors import UserError
from sicot.feedback.store import FEEDBACK, Store

FILE = "corrections.parquet"
ROW = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("image", pa.binary()),
        pa.field("title", pa.string()),
        pa.field("tags", pa.list_(pa.string())),
        pa.field("label", pa.string()),
    ]
)
"""Columns as :class:`sicot.config.Columns` calls them."""
ROWS = 200
"""Rows in memory at a time."""


@dataclass(frozen=True)
class Written:
    """What went into the catalogue."""

    rows: int
    without_photo: int
    """Corrections that were left out: a model learns from photos."""


def write(store: Store, out: str) -> Written:
    """Write all corrections that have a photo to `FILE` in a folder (path or URI), in place of those before.

    :class:`UserError` if the database does not answer or has no such correction; nothing is written then.
    """
    corrected = FEEDBACK.c.outcome == "corrected"
    with store.answering():
        have = sa.func.count(FEEDBACK.c.image)
        ((rows, photos),) = store.rows(sa.select(sa.func.count(), have).where(corrected))
        if not photos:
            raise UserError(f"{store.name} has no correction with a photo: there are {rows} without")
        chosen = sa.select(FEEDBACK).where(corrected, FEEDBACK.c.image.is_not(None))
        written = 0
        with storage.writing(f"{out.rstrip('/')}/{FILE}") as stream, pq.ParquetWriter(stream, ROW) as file:
            for batch in _batches(store, chosen.order_by(FEEDBACK.c.time, FEEDBACK.c.request_id)):
                file.write_batch(batch)
                written += batch.num_rows
    return Written(written, rows - photos)


def _batches(store: Store, select: sa.Select[Any]) -> Iterator[pa.RecordBatch]:
    rows: list[dict[str, Any]] = []
    for row in store.rows(select):
        said = {"title": row.title, "tags": json.loads(row.tags), "label": row.label}
        rows.append({"id": f"feedback-{row.request_id}", "image": row.image, **said})
        if len(rows) == ROWS:
            yield pa.RecordBatch.from_pylist(rows, ROW)
            rows = []
    if rows:
        yield pa.RecordBatch.from_pylist(rows, ROW)
