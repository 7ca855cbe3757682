"""Labelling a catalogue: answers to Parquet, as they are found; any number of rows.

<out>/predictions/*.parquet   PREDICTION below
<out>/quarantine/*.parquet    QUARANTINE below: rows without an answer
<out>/summary.json            counts, and which model answered; written last
"""

from __future__ import annotations

import hashlib
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import ray
from ray.data import Dataset

from sicot import storage
from sicot.bundle import Bundle, Item
from sicot.errors import UserError
from sicot.evaluate.ask import Unanswerable, progress, read, spread

PREDICTION = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("ranked", pa.list_(pa.struct([("label", pa.string()), ("probability", pa.float32())]))),
        # words of the row with the share of attention each got; unknown words get none
        pa.field(
            "words", pa.list_(pa.struct([("token", pa.string()), ("weight", pa.float32()), ("known", pa.bool_())]))
        ),
        pa.field("score", pa.float32()),  # probability of the first label
        pa.field("unknown", pa.bool_()),  # true: the score is below the model's threshold, no known product is sure
        pa.field("no_word", pa.float32()),  # attention that went to none of the words
        pa.field("by_photo", pa.bool_()),  # false: the row has no photo, its words alone were asked
    ]
)
QUARANTINE = pa.schema([pa.field(name, pa.string()) for name in ("id", "reason", "detail")])
ROWS_PER_FILE = 2048


def predict(
    bundle_folder: str, dataset: Dataset, out: str, k: int = 5, batch_size: int = 128, overwrite: bool = False
) -> dict[str, Any]:
    """Label every row of a catalogue.

    Args:
        bundle_folder: local folder of the bundle.
        dataset: rows in the catalogue's schema, or a prepared set's.
        out: folder or URI for the files above. A local one appears when it is complete; on an object store,
            summary.json says that it is.
        k: ranked labels per row.
        batch_size: rows per step of the model.
        overwrite: replace what is in `out`.

    Returns:
        The summary: rows, answered, unknown (of those answered), quarantined (by reason), model.

    Raises :class:`UserError` if `out` is not empty and must not be replaced, or there are no rows.
    """
    check(out, overwrite)
    local = "://" not in out
    place = f"{Path(out).absolute()}.{uuid.uuid4().hex[:8]}.part" if local else out.rstrip("/")
    try:
        counts: Counter[str] = Counter()
        unknown = 0
        with progress("label") as bar:
            for table in spread(dataset, bundle_folder, Labeller(place, k, batch_size), ROWS_PER_FILE):
                counts.update(dict(zip(table["reason"].to_pylist(), table["rows"].to_pylist(), strict=True)))
                unknown += sum(table["unknown"].to_pylist())
                bar.update(counts.total() - bar.n)
        if not counts:
            raise UserError("the catalogue has no rows to label")
        info = Bundle.load(bundle_folder).info
        summary = {
            "rows": counts.total(),
            "answered": counts.pop("", 0),
            "unknown": unknown,
            "quarantined": dict(sorted(counts.items())),
            "model": {"name": info.name, "digest": info.digest},
        }
        storage.write_json(f"{place}/summary.json", summary)
        if local:
            storage.delete_folder(out)
            Path(place).rename(out)
    except BaseException:
        if local:
            storage.delete_folder(place)
        raise
    return summary


def check(out: str, overwrite: bool) -> None:
    """Make room at `out`: :class:`UserError` if something is there that must not be replaced."""
    system, path = storage.open_uri(out)
    info = system.get_file_info(path.rstrip("/"))
    if info.type == pafs.FileType.File:
        raise UserError(f"--out {out} is a file: name a folder")
    there = system.get_file_info(pafs.FileSelector(path.rstrip("/"), allow_not_found=True))
    if there and not overwrite:
        raise UserError(f"--out {out} is not empty: name another folder, or give --overwrite")
    if there and "://" in out:
        storage.delete_folder(out)


@dataclass(frozen=True)
class Labeller:
    """Answers a part of the catalogue into files, and hands back how many rows got which reason ("" = answered)."""

    place: str
    k: int
    batch_size: int

    def __call__(self, bundle: Bundle, part: pa.Table) -> pa.Table:
        """Counts: reason, rows, and how many of these are answered as unknown products."""
        predictions: list[dict[str, Any]] = []
        bad: list[dict[str, Any]] = []
        for start in range(0, part.num_rows, self.batch_size):
            batch = part.slice(start, self.batch_size)
            asked = list(zip(batch["id"].to_pylist(), read(bundle, batch), strict=True))
            bad += [{"id": key, **asdict(row)} for key, row in asked if isinstance(row, Unanswerable)]
            predictions += self._answer(bundle, [(key, row) for key, row in asked if isinstance(row, Item)])
        # a part that Ray runs twice writes the same files twice
        seed = [ray.get_runtime_context().get_task_id() or "", *map(str, part["id"].to_pylist())]
        name = hashlib.blake2b("\n".join(seed).encode(), digest_size=12).hexdigest()
        for folder, rows, columns in (("predictions", predictions, PREDICTION), ("quarantine", bad, QUARANTINE)):
            if rows:
                storage.write_table(f"{self.place}/{folder}/{name}.parquet", pa.Table.from_pylist(rows, columns))
        counts = Counter({"": len(predictions)}) + Counter(row["reason"] for row in bad)
        unknown = sum(row["unknown"] for row in predictions)
        return pa.table(
            {
                "reason": pa.array(list(counts), pa.string()),
                "rows": pa.array(counts.values(), pa.int64()),
                "unknown": pa.array([0 if reason else unknown for reason in counts], pa.int64()),
            }
        )

    def _answer(self, bundle: Bundle, asked: list[tuple[str, Item]]) -> Iterator[dict[str, Any]]:
        for (key, item), answer in zip(asked, bundle.answer([item for _, item in asked], self.k), strict=True):
            yield {"id": key, **asdict(answer), "by_photo": item.image_HW3 is not None}
