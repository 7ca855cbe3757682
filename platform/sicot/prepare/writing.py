"""Writing the files of a prepared set from staged rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sicot import storage
from sicot.catalogue.schema import SPLITS
from sicot.config import Prepare
from sicot.prepare import flow, prepared, staging
from sicot.prepare.plan import Plan

_TASK_BYTES = 256_000_000
"""What a task may hold in memory of the rows it writes, at a byte a pixel, several times what JPEG takes."""
_TASK_FILES = 8


def write(plan: Plan, vocabulary: pa.Table, root: str, staged: list[str], config: Prepare) -> list[tuple[str, str]]:
    """Write the rows of each split; returns name (relative to ``root``) and content digest of each file, by name.

    Rows are stored in the order of their keys. A task has some neighbouring ones and writes them into files of
    ``config.rows_per_block`` rows, the last one of each split with less. Files that are there already are kept: the
    same plan writes the same files.
    """
    rows, size = len(plan.keys), config.rows_per_block
    files = max(1, min(_TASK_FILES, _TASK_BYTES // (size * config.images.size**2)))
    numbers = _numbers(plan.split, size, files)
    table = pa.table({"key": plan.keys, "split": plan.split, "label": plan.label, "number": numbers})
    written: list[tuple[str, str]] = []
    with flow.progress("files", rows) as bar:
        dataset = flow.blocks(table, flow.ranges(-(-rows // (size * files)), 1, size * files))
        for block in flow.run(dataset, _write_files, root, staged, vocabulary["word"].combine_chunks()):
            written += zip(block["name"].to_pylist(), block["digest"].to_pylist(), strict=True)
            bar.update(sum(block["rows"].to_pylist()))
    return sorted(written)


def _numbers(split: np.ndarray, size: int, files: int) -> np.ndarray:
    """Number of each row's file among those of its split, int64 [N]; a task has ``files`` x ``size`` rows."""
    task = np.arange(len(split)) // (size * files)
    numbers = np.zeros(len(split), np.int64)
    for code in range(len(SPLITS)):
        rows = np.flatnonzero(split == code)
        first = np.searchsorted(task[rows], task[rows])  # of the split's rows in the same task
        numbers[rows] = task[rows] * files + (np.arange(len(rows)) - first) // size
    return numbers


def _write_files(block: pa.Table, root: str, staged: list[str], known: pa.Array) -> Iterator[pa.Table]:
    """Write the files of one task; ``block`` has key, split, label and file number of their rows."""
    found = staging.take(staged, block["key"], ["id", "image", "tokens"])
    for number in pc.unique(block["number"]).to_pylist():
        for code, split in enumerate(SPLITS):
            chosen = pc.and_(pc.equal(block["number"], number), pc.equal(block["split"], code))
            table = _table(found.filter(chosen), block["label"].filter(chosen), known)
            if table.num_rows:
                name = f"{split}/{number:06d}.parquet"
                if not storage.exists(f"{root}/{name}"):
                    storage.write_table(f"{root}/{name}", table, prepared.ROW_GROUP)
                yield pa.table({"name": [name], "rows": [table.num_rows], "digest": [_digest(table)]})


def _table(rows: pa.Table, labels: pa.ChunkedArray, known: pa.Array) -> pa.Table:
    tokens = rows["tokens"].combine_chunks()
    ids = pc.add(pc.fill_null(pc.index_in(tokens.values, known), -1), 1)
    words = pa.ListArray.from_arrays(tokens.offsets, ids)
    return pa.table([rows["id"], rows["image"], labels, rows["tokens"], words], schema=prepared.ROW)


def _digest(table: pa.Table) -> str:
    """SHA-256 of the rows themselves: another version of Parquet writes other bytes for the same rows."""
    digest = hashlib.sha256()
    for *row, image in zip(*(table[name].to_pylist() for name in ("id", "label", "tokens", "image")), strict=True):
        digest.update(json.dumps(row).encode())
        digest.update(image)
    return digest.hexdigest()
