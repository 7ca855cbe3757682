"""Writing the files of a prepared set from staged rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from sicot import storage
from sicot.catalogue.schema import SPLITS
from sicot.prepare import flow, prepared, staging
from sicot.prepare.plan import Plan
from sicot.prepare.text import Vocabulary

_TASK_BYTES = 256_000_000
"""What a task may hold in memory of the files it writes."""


def write(plan: Plan, vocabulary: pa.Table, root: str, staged: list[str], size: int) -> list[tuple[str, str]]:
    """Write the rows of each split; returns name (relative to ``root``) and content digest of each file, by name.

    Rows are stored in the order of their keys; file n has those of the n-th ``size`` keys that fall to its split.
    Files that are there already are kept: the same plan writes the same files.
    """
    rows = len(plan.keys)
    numbers = np.arange(rows) // size
    table = pa.table({"key": plan.keys, "split": plan.split, "label": plan.label, "number": numbers})
    count = -(-rows // size)
    system, _ = storage.open_uri(root)
    staged_bytes = sum(info.size for info in system.get_file_info([storage.open_uri(name)[1] for name in staged]))
    most = max(1, min(16, _TASK_BYTES * count // max(1, staged_bytes)))
    known = Vocabulary(vocabulary["word"].to_pylist())
    written: list[tuple[str, str]] = []
    with flow.progress("files", rows) as bar:
        dataset = flow.blocks(table, flow.ranges(count, most, size))
        for block in flow.run(dataset, _write_files, root, staged, known):
            written += zip(block["name"].to_pylist(), block["digest"].to_pylist(), strict=True)
            bar.update(sum(block["rows"].to_pylist()))
    return sorted(written)


def _write_files(block: pa.Table, root: str, staged: list[str], known: Vocabulary) -> Iterator[pa.Table]:
    """Write the files of some neighbouring numbers; ``block`` has key, split, label and number of their rows."""
    system, _ = storage.open_uri(staged[0])
    source = pads.dataset([storage.open_uri(name)[1] for name in staged], schema=staging.ROW, filesystem=system)
    key, keys = pc.field("key"), block["key"]
    found = source.to_table(
        columns=["key", "id", "image", "tokens"], filter=(key >= keys[0]) & (key <= keys[-1]), use_threads=False
    )
    for number in pc.unique(block["number"]).to_pylist():
        for code, split in enumerate(SPLITS):
            chosen = block.filter((pc.field("number") == number) & (pc.field("split") == code))
            if chosen.num_rows:
                rows = found.take(pc.index_in(chosen["key"], found["key"]))
                table = _table(rows, chosen["label"], known)
                name = f"{split}/{number:06d}.parquet"
                if not storage.exists(f"{root}/{name}"):
                    storage.write_table(f"{root}/{name}", table, prepared.ROW_GROUP)
                yield pa.table({"name": [name], "rows": [table.num_rows], "digest": [_digest(table)]})


def _table(rows: pa.Table, labels: pa.ChunkedArray, known: Vocabulary) -> pa.Table:
    ids = pa.array([known.ids(tokens) for tokens in rows["tokens"].to_pylist()], pa.list_(pa.int32()))
    return pa.table([rows["id"], rows["image"], labels, rows["tokens"], ids], schema=prepared.ROW)


def _digest(table: pa.Table) -> str:
    """SHA-256 of the rows themselves: another version of Parquet writes other bytes for the same rows."""
    digest = hashlib.sha256()
    for *row, image in zip(*(table[name].to_pylist() for name in ("id", "label", "tokens", "image")), strict=True):
        digest.update(json.dumps(row).encode())
        digest.update(image)
    return digest.hexdigest()
