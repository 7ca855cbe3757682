"""The one pass over the photos: catalogue rows in, checked and shrunk rows out, written as they are done.

    <folder>/rows/*.parquet   ROW below, sorted by key: rows that passed every check of their own
    <folder>/bad/*.parquet    BAD below: rows that did not

The *key* of a row is a hash of all that the catalogue says about it, a photo's name instead of its bytes where the
catalogue has only that. Sorted by key, rows are in a shuffled order that depends on nothing but their content and the
seed: not on blocks, machines, the folder that the catalogue lies in, or where a run was interrupted.
A staged key is never worked on again, which is how an interrupted run continues.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.fs as pafs

from sicot import storage
from sicot.catalogue import schema
from sicot.config import Prepare
from sicot.prepare.images import BadImage, decode, encode
from sicot.prepare.photos import READERS, fetch
from sicot.prepare.text import normalise, tokenise

ROW = pa.schema(
    [
        pa.field("key", pa.int64()),
        pa.field("id", pa.string()),
        pa.field("split", pa.string()),  # null where it has to be made
        pa.field("label", pa.string()),
        pa.field("photo", pa.int64()),  # hash of the shrunk photo
        pa.field("text", pa.int64()),  # hash of the normalised title; null without one
        pa.field("image", pa.binary()),  # JPEG, size x size
        pa.field("tokens", pa.list_(pa.string())),
    ]
)
SMALL = ["key", "id", "split", "label", "photo", "text"]
"""The columns that fit on one machine for any catalogue, some 100 bytes a row."""

BAD = pa.schema([("key", pa.int64()), *((name, pa.string()) for name in ("id", "split", "reason", "detail"))])

_ROW_GROUP, _ROW_GROUPS = 32, 64  # rows at least, groups at most: a range of keys is read without the rest of the file
_FIELDS = ("id", "title", "label", "split", "image_name")


class BadRow(ValueError):
    """A row that cannot be used, photo apart. ``reason``: id_missing, label_missing, split_unknown, type_wrong."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def stage(block: pa.Table, folder: str, config: Prepare, done: np.ndarray) -> Iterator[pa.Table]:
    """Prepare the rows of a block and write them below ``folder``; yields the keys of a file's rows when it is written.

    ``block`` has the catalogue's columns; ``done``, sorted int64, are keys that are staged already.
    Rows keep nothing of each other: which block a row comes in makes no difference.
    """
    with ThreadPoolExecutor(READERS) as readers:
        for part in _slices(block, config.rows_per_block):
            keys: list[int] = []
            good: list[dict[str, Any]] = []
            bad: list[dict[str, Any]] = []
            for some in _slices(part, 4 * READERS):
                rows = [_row(raw, config.seed) for raw in _raw(some)]
                keys += [row["key"] for row in rows]
                fresh = [row for row in rows if not _contains(done, row["key"])]
                fetching = readers.map if some["image"].null_count else map  # threads only where photos are opened
                for row, photo in zip(fresh, fetching(lambda row: _photo(row, config), fresh), strict=True):
                    try:
                        good.append(_check(row, photo, config))
                    except (BadRow, BadImage) as error:
                        names = {name: _lenient(row[name]) for name in ("id", "split")}
                        bad.append({"key": row["key"], **names, "reason": error.reason, "detail": str(error)})
            _write(f"{folder}/rows", good, ROW)
            _write(f"{folder}/bad", bad, BAD)
            yield pa.table({"key": pa.array(keys, pa.int64())})


def _slices(table: pa.Table, size: int) -> Iterator[pa.Table]:
    return (table.slice(start, size) for start in range(0, table.num_rows, size))


def _raw(block: pa.Table) -> Iterator[dict[str, Any]]:
    """Rows with their strings as bytes: files in the wild hold text that is no UTF-8."""
    strings = (*_FIELDS, "image_uri")
    columns = [pc.cast(block[name], pa.binary()) if name in strings else block[name] for name in schema.ROW.names]
    columns[schema.ROW.names.index("tags")] = pc.cast(block["tags"], pa.list_(pa.binary()))
    for number in range(block.num_rows):
        yield {name: column[number].as_py() for name, column in zip(schema.ROW.names, columns, strict=True)}


def _row(raw: dict[str, Any], seed: int) -> dict[str, Any]:
    """The raw row with its key."""
    digest = hashlib.blake2b(digest_size=8, key=str(seed).encode())
    for value in (*(raw[name] for name in (*_FIELDS, "image")), *(raw["tags"] or ())):
        digest.update(b"-" if value is None else b"%d:" % len(value))
        digest.update(value or b"")
    return {**raw, "key": int.from_bytes(digest.digest(), "little", signed=True)}


def _contains(keys: np.ndarray, key: int) -> bool:
    place = int(np.searchsorted(keys, key))
    return place < len(keys) and keys[place] == key


# ---------------------------------------------------------------- checks


def _check(row: dict[str, Any], photo: bytes | BadImage, config: Prepare) -> dict[str, Any]:
    """The staged row. :class:`BadRow` or :class:`BadImage` with the first thing that is wrong with it."""
    name, label, split = (_text(row, field) for field in ("id", "label", "split"))
    title = _text(row, "title")
    tags = [_decoded(tag, "tags") for tag in row["tags"] or () if tag is not None]
    if not name:
        raise BadRow("id_missing", "it has no id")
    if not label or not label.strip():
        raise BadRow("label_missing", "it has no label")
    if split is not None and split not in schema.SPLITS:
        raise BadRow("split_unknown", f"split is {split!r}, not {', '.join(schema.SPLITS)}")
    if isinstance(photo, BadImage):
        raise photo
    image = encode(decode(photo, config.images), config.images.quality)
    spelled = normalise(title[: config.text.max_characters]) if title else ""
    return {
        "key": row["key"],
        "id": name,
        "split": split,
        "label": label.strip(),
        "photo": _hash(image),
        "text": _hash(spelled.encode()) if spelled else None,
        "image": image,
        "tokens": tokenise(title, tags, config.text),
    }


def _text(row: dict[str, Any], field: str) -> str | None:
    return None if row[field] is None else _decoded(row[field], field)


def _decoded(value: bytes, field: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise BadRow("type_wrong", f"{field} is not UTF-8 text") from error


def _lenient(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="replace")


def _hash(value: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(value, digest_size=8).digest(), "little", signed=True)


# ---------------------------------------------------------------- files


def _photo(row: dict[str, Any], config: Prepare) -> bytes | BadImage:
    """The photo's bytes, empty if there are none; an error as a value if it cannot be had."""
    uri, name = _lenient(row["image_uri"]), _lenient(row["image_name"])
    try:
        return fetch(row["image"], uri, name, config.images.max_bytes) or b""
    except BadImage as error:
        return error


def _write(folder: str, rows: list[dict[str, Any]], columns: pa.Schema) -> None:
    """One file named by its keys: a task that Ray runs twice writes the same file twice."""
    if rows:
        table = pa.Table.from_pylist(rows, columns).sort_by("key")
        name = hashlib.blake2b(table["key"].to_numpy().tobytes(), digest_size=16).hexdigest()
        storage.write_table(f"{folder}/{name}.parquet", table, max(_ROW_GROUP, -(-len(rows) // _ROW_GROUPS)))


def files(folder: str) -> list[str]:
    """Names of the finished Parquet files in a folder, sorted; none if it does not exist."""
    system, path = storage.open_uri(folder)
    found = system.get_file_info(pafs.FileSelector(path, allow_not_found=True))
    return sorted(f"{folder}/{info.base_name}" for info in found if info.base_name.endswith(".parquet"))


def load(names: list[str], columns: pa.Schema, only: list[str] | None = None) -> pa.Table:
    """Columns of all staged rows, sorted by key, each key once."""
    wanted = pa.schema([columns.field(name) for name in only or columns.names])
    with ThreadPoolExecutor(READERS) as readers:
        tables = list(readers.map(lambda name: storage.read_table(name, wanted.names), names))
    table = pa.concat_tables([wanted.empty_table(), *tables]).combine_chunks().sort_by("key")
    keys = table["key"].to_numpy()
    first = np.concatenate([[True], keys[1:] != keys[:-1]]) if len(keys) else np.zeros(0, bool)
    return table.filter(pa.array(first))


def take(names: list[str], keys: pa.ChunkedArray, only: list[str]) -> pa.Table:
    """Columns ``only`` of the staged rows with ``keys`` (sorted, at least one), in their order, each once."""
    system, _ = storage.open_uri(names[0])
    source = pads.dataset([storage.open_uri(name)[1] for name in names], schema=ROW, filesystem=system)
    within = (pc.field("key") >= keys[0]) & (pc.field("key") <= keys[-1])
    found = source.to_table(columns=["key", *only], filter=within, use_threads=False)
    return found.take(pc.index_in(keys, found["key"])).select(only)
