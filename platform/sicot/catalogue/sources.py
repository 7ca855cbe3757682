"""Where products come from: Parquet, CSV with photos beside it, WebDataset shards, folders of photos, or `synthetic`.

Adapters rename and join, they never drop a row: what cannot be read becomes null, and prepare puts it aside. A file
that is broken as a whole, or not what it is called, is a :class:`UserError`, most of them before Ray does anything.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.fs as pafs

from sicot import storage
from sicot.catalogue import formats, synthetic
from sicot.catalogue.columns import split_name, to_rows
from sicot.catalogue.places import Places, absolute
from sicot.catalogue.schema import ROW, SPLITS
from sicot.config import Catalogue
from sicot.errors import UserError

if TYPE_CHECKING:
    import ray.data

SUFFIXES = {
    "parquet": (".parquet", ".pq"),
    "csv": (".csv", ".tsv", ".csv.gz", ".tsv.gz"),
    "webdataset": (".tar", ".tar.gz", ".tgz"),
    "folder": tuple(f".{kind}" for kind in formats.IMAGES),
}
ROWS_PER_TASK = 1024


@dataclass(frozen=True)
class Found:
    """The files of a catalogue, on their file system, in order."""

    system: pafs.FileSystem
    root: str
    """The folder they are in, or of a single file the folder it is in."""
    format: str
    paths: list[str]

    def name(self, path: str) -> str:
        """The path below the root: what ids start with."""
        return path.removeprefix(self.root).lstrip("/")


@dataclass(frozen=True)
class Work:
    """What one task reads: files, and of a Parquet file its row groups and the number of their first row."""

    paths: list[str]
    rows: float = math.inf
    """How many they are, where that is known before reading."""
    groups: list[int] = field(default_factory=list)
    row: int = 0

    def table(self) -> pa.Table:
        """As one row of a dataset."""
        return pa.table({name: [value] for name, value in vars(self).items()})


def read(config: Catalogue) -> ray.data.Dataset:
    """The catalogue as a lazy dataset with the columns and types of `schema.ROW`; needs a running Ray session.

    :class:`UserError` if there is nothing to read, no column with photos, or a file is broken.
    """
    if config.path == "synthetic":
        return synthetic.dataset(config.synthetic)
    found = find(config)
    work = _plan(found, config)
    import ray.data

    tasks = ray.data.from_arrow([item.table() for item in work])
    if config.images:  # a task may run in another folder
        config = config.model_copy(update={"images": absolute(config.images)})
    task = partial(_task, found, config)
    # Ray does what comes next in the task that has read a small part: no photo moves.
    if all(item.rows <= 2 * ROWS_PER_TASK for item in work):
        return tasks.map_batches(task, batch_format="pyarrow", batch_size=1)
    # A CSV file, a tar file or a large row group is read by one task: deal its rows out, or that task would do all
    # that comes next as well. Half a CPU is not what comes next asks for: it keeps Ray from fusing the two.
    rows = tasks.map_batches(task, batch_format="pyarrow", batch_size=1, num_cpus=0.5)
    return rows.repartition(target_num_rows_per_block=ROWS_PER_TASK)


# ---------------------------------------------------------------- which files


def find(config: Catalogue) -> Found:
    """The files at ``config.path`` and their format; :class:`UserError` if there are none, or of several formats."""
    system, path = storage.open_uri(config.path)
    if "://" not in config.path:
        path = os.path.abspath(path)
    if config.images and not storage.exists(config.images):
        raise UserError(f"catalogue.images: there is no folder {config.images}")
    wild = re.search(r"[*[]" if "://" in config.path else r"[*?[]", path)
    try:
        info = system.get_file_info(path)
        if info.type == pafs.FileType.File:
            return _named(config, system, path.rpartition("/")[0], [info], info)
        root = path[: wild.start()].rpartition("/")[0] if wild and info.type == pafs.FileType.NotFound else path
        files = system.get_file_info(pafs.FileSelector(root, recursive=True, allow_not_found=True))
    except OSError as error:
        raise UserError(f"catalogue.path: cannot open {config.path}: {formats.first_line(error)}") from error
    if info.type == pafs.FileType.NotFound and not wild:
        raise UserError(f"catalogue.path: there is no file or folder {config.path}")
    files = [file for file in files if file.type == pafs.FileType.File and not _hidden(file.path[len(root) :])]
    if root != path:
        files = [file for file in files if _matches(file.path, path)]
    return _named(config, system, root, files, None)


def _named(
    config: Catalogue, system: pafs.FileSystem, root: str, files: list[pafs.FileInfo], single: pafs.FileInfo | None
) -> Found:
    """The files of the format asked for, or of the one that there is."""
    present = {
        kind: sorted(file.path for file in files if file.path.lower().endswith(ends)) for kind, ends in SUFFIXES.items()
    }
    kinds = [kind for kind in ("parquet", "csv", "webdataset") if present[kind]]
    if single and config.format not in ("auto", "folder"):
        kinds = [config.format]
        present[config.format] = [single.path]
    elif config.format != "auto":
        kinds = [config.format]
    elif not kinds and not single and any("/" in path[len(root) :].lstrip("/") for path in present["folder"]):
        kinds = ["folder"]
    if len(kinds) > 1:
        raise UserError(f"{config.path} holds {' and '.join(kinds)} files: choose with --catalogue.format")
    if not kinds or not present[kinds[0]]:
        raise UserError(
            f"catalogue.path: {config.path} is no Parquet, CSV or tar file: say what it is with --catalogue.format"
            if single
            else f"catalogue.path: {config.path} holds no catalogue: neither Parquet, CSV or tar files "
            "nor photos in one folder a class"
        )
    for file in files:
        if file.size == 0 and kinds[0] != "folder" and file.path in present[kinds[0]]:
            raise UserError(f"{file.path} is empty")
    return Found(system, root, kinds[0], present[kinds[0]])


def _hidden(path: str) -> bool:
    return any(part.startswith((".", "_")) for part in path.split("/"))


def _matches(path: str, pattern: str) -> bool:
    if "**" in pattern:
        return fnmatchcase(path, pattern.replace("**/", "*"))
    return path.count("/") == pattern.count("/") and PurePosixPath(path).match(pattern)


# ---------------------------------------------------------------- who reads what


def _plan(found: Found, config: Catalogue) -> list[Work]:
    """The tasks; looks at the heads of the files, so that most mistakes show before Ray starts on the rows."""
    if found.format == "parquet":
        return _plan_parquet(found, config)
    if found.format == "csv":
        for path in found.paths[:16]:
            formats.require_image(formats.csv_header(found.system, path), config, path)
        if len(found.paths) == 1 and next(formats.csv(found.system, found.paths[0], config), None) is None:
            raise UserError(f"{config.path} has no rows")
    if found.format == "webdataset":
        kinds = formats.webdataset_members(found.system, found.paths[0])
        if not kinds:
            raise UserError(f"{found.paths[0]} has no samples")
        if not set(kinds) & set(formats.IMAGES):
            raise UserError(
                f"{found.paths[0]} has no photos (.{', .'.join(formats.IMAGES)}), its members are .{', .'.join(kinds)}"
            )
    if found.format != "folder":
        return [Work([path]) for path in found.paths]
    starts = range(0, len(found.paths), ROWS_PER_TASK)
    parts = [found.paths[start : start + ROWS_PER_TASK] for start in starts]
    return [Work(part, len(part)) for part in parts]


def _plan_parquet(found: Found, config: Catalogue) -> list[Work]:
    with ThreadPoolExecutor(16) as readers:
        footers = list(readers.map(partial(formats.parquet_footer, found.system), found.paths))
    work: list[Work] = []
    for path, (names, groups) in zip(found.paths, footers, strict=True):
        formats.require_image(names, config, path)
        work += _by_groups(path, groups)
    if not work:
        raise UserError(f"{config.path} has no rows")
    return work


def _by_groups(path: str, rows: list[int]) -> Iterator[Work]:
    """Row groups of a file in runs of about `ROWS_PER_TASK` rows."""
    groups: list[int] = []
    start = size = 0
    for number, count in enumerate(rows):
        groups.append(number)
        size += count
        if size >= ROWS_PER_TASK or (number == len(rows) - 1 and size):
            yield Work([path], size, groups, start)
            groups, start, size = [], start + size, 0


def _task(found: Found, config: Catalogue, work: pa.Table) -> Iterator[pa.Table]:
    """Read what one row of ``work`` names, as tables of `schema.ROW`."""
    item = Work(**work.to_pylist()[0])
    if found.format == "folder":
        yield _photos(found, config, item.paths)
        return
    path = item.paths[0]
    if found.format == "parquet":
        pieces = formats.parquet(found.system, path, config, item.groups, item.row)
    else:
        pieces = (formats.csv if found.format == "csv" else formats.webdataset)(found.system, path, config)
    places = _places(found, config, path)
    for raw, first in pieces:
        ids = (f"{found.name(path)}#{first + number}" for number in range(raw.num_rows))
        yield to_rows(raw, config, ids, places)


def _photos(found: Found, config: Catalogue, paths: list[str]) -> pa.Table:
    """Rows of a tree of photos: the folder a photo is in is its label; one called train, val or test is its split."""
    rows = []
    for path in paths:
        *above, label, _ = ["", *found.name(path).split("/")]
        splits = [split for part in above if (split := split_name(part)) in SPLITS and part]
        photo = {"image_uri": _address(config.path, path), "image_name": found.name(path)}
        rows.append({"id": found.name(path), **photo, "label": label or None, "split": next(iter(splits), None)})
    return pa.Table.from_pylist(rows, ROW)


def _places(found: Found, config: Catalogue, path: str) -> Places:
    """Where the photos are that the file at ``path`` names."""
    root = absolute(_address(config.path, found.root) or "/")
    if config.images:
        images = absolute(config.images)
        return Places(images, (images, root))
    return Places(absolute(_address(config.path, path.rpartition("/")[0]) or "/"), (root,))


def _address(uri: str, path: str) -> str:
    """Path or URI of ``path``, which the file system of ``uri`` has listed."""
    scheme, mark, rest = uri.partition("://")
    if not mark or "://" in path:
        return path
    return f"{scheme}://{path}" + (f"?{rest.partition('?')[2]}" if "?" in rest else "")
