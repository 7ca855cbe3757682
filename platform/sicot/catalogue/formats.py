"""One reader for each file format: what is in a file, in pieces of a few hundred rows.

Every reader yields (rows as the file has them, number of the first one) and raises a :class:`UserError` that names
the file, and the row as far as it is known.
"""

from __future__ import annotations

import json
import re
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from sicot.catalogue.columns import split_tags
from sicot.config import MAX_PHOTO, Catalogue
from sicot.errors import UserError

PIECE = 512  # rows handed on at a time
PIECE_BYTES = 64_000_000  # or these of photos, if that is fewer rows
IMAGES = ("jpg", "jpeg", "png", "webp")
TEXTS = ("json", "txt", "cls")
MAX_TEXT = 1_000_000  # bytes; no product has more to say
Pieces = Iterator[tuple[pa.Table, int]]


# ---------------------------------------------------------------- Parquet


def parquet_footer(system: pafs.FileSystem, path: str) -> tuple[list[str], list[int]]:
    """Column names, and rows of each row group."""
    try:
        with pq.ParquetFile(path, filesystem=system) as file:
            groups = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
            return file.schema_arrow.names, groups
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is no readable Parquet file: {first_line(error)}") from error


def parquet(system: pafs.FileSystem, path: str, config: Catalogue, groups: list[int], row: int) -> Pieces:
    """The row groups ``groups``, of which the first one starts at ``row``."""
    try:
        with pq.ParquetFile(path, filesystem=system) as file:
            wanted = _wanted(file.schema_arrow.names, config, path)
            for batch in file.iter_batches(PIECE, row_groups=groups, columns=wanted, use_threads=False):
                yield pa.Table.from_batches([batch]), row
                row += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read behind row {row}: {first_line(error)}") from error


# ---------------------------------------------------------------- CSV


def csv_header(system: pafs.FileSystem, path: str) -> list[str]:
    """Column names."""
    with (
        system.open_input_stream(path) as stream,
        _csv_errors(path),
        pacsv.open_csv(stream, *_csv_options(path)) as file,
    ):
        return file.schema.names


def csv(system: pafs.FileSystem, path: str, config: Catalogue) -> Pieces:
    """All columns as strings, empty ones null; .tsv is split at tabs, .gz is unpacked."""
    wanted = _wanted(csv_header(system, path), config, path)
    types = dict.fromkeys(wanted, pa.binary())
    convert = pacsv.ConvertOptions(
        include_columns=wanted, column_types=types, strings_can_be_null=True, null_values=[""]
    )
    row = 0
    with (
        system.open_input_stream(path) as stream,
        _csv_errors(path),
        pacsv.open_csv(stream, *_csv_options(path), convert) as file,
    ):
        for batch in file:
            table = _decoded(pa.Table.from_batches([batch]), path, row)
            for start in range(0, table.num_rows, PIECE):
                yield table.slice(start, PIECE), row + start
            row += table.num_rows


def _csv_options(path: str) -> tuple[pacsv.ReadOptions, pacsv.ParseOptions]:
    delimiter = "\t" if ".tsv" in path.rsplit("/", 1)[-1] else ","
    read = pacsv.ReadOptions(use_threads=False, block_size=4 << 20)  # one thread: else errors come without a row
    return read, pacsv.ParseOptions(delimiter=delimiter, newlines_in_values=True)


@contextmanager
def _csv_errors(path: str) -> Iterator[None]:
    """Says in a user's words what pyarrow says of a CSV file."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        wide = re.search(r"Row #(\d+): Expected (\d+) columns, got (\d+)", str(error))
        if not wide:
            raise UserError(f"{path} is no readable CSV file: {first_line(error)}") from error
        line, want, got = wide.groups()
        raise UserError(
            f"{path}, line {line}: {got} values where the header has {want} names: "
            'put values that contain the separator in "double quotes"'
        ) from error


def _decoded(table: pa.Table, path: str, row: int) -> pa.Table:
    for place, name in enumerate(table.column_names):
        try:
            table = table.set_column(place, name, table[name].cast(pa.string()))
        except pa.ArrowInvalid:
            for number, value in enumerate(table[name].to_pylist()):
                try:
                    (value or b"").decode()
                except UnicodeDecodeError as error:
                    what = f"{path}, row {row + number + 1}: column {name!r} is not UTF-8 text"
                    raise UserError(f"{what}: save the file as UTF-8") from error
    return table


# ---------------------------------------------------------------- WebDataset


def webdataset(system: pafs.FileSystem, path: str, config: Catalogue) -> Pieces:
    """Samples of a tar file: members that share a name up to the first dot.

    An image member is the photo; a .json one has the other columns by name; .txt is a title, .cls a label. Of a photo
    that is too large only so much is read that prepare sees it; a text that is too large is as good as none.
    """
    names, done, rows, size = config.columns, 0, [], 0
    try:
        for key, members in _samples(system, path):
            said = _fields(members.get("json"))
            fields = {name: _json_text(value) for name, value in said.items() if name != names.tags}
            image = next((members[kind] for kind in IMAGES if kind in members), None)
            rows.append(
                {
                    names.id: fields.get(names.id) or f"{path.rsplit('/', 1)[-1]}#{key}",
                    names.image: image,
                    names.title: fields.get(names.title) or _utf8(members.get("txt")),
                    names.tags: _json_tags(said.get(names.tags), config.tags_separator),
                    names.label: fields.get(names.label) or _utf8(members.get("cls")),
                    names.split: fields.get(names.split),
                }
            )
            size += len(image or b"")
            if len(rows) == PIECE or size > PIECE_BYTES:
                yield _table(rows, config), done
                done, rows, size = done + len(rows), [], 0
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read behind sample {done + len(rows)}: {first_line(error)}") from error
    if rows:
        yield _table(rows, config), done


def webdataset_members(system: pafs.FileSystem, path: str, samples: int = 16) -> list[str]:
    """What kinds of members the first samples have."""
    kinds: set[str] = set()
    try:
        for (_, members), _ in zip(_samples(system, path), range(samples), strict=False):
            kinds |= set(members)
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        if not kinds:
            raise UserError(f"{path} is no readable tar file: {first_line(error)}") from error
    return sorted(kinds)


def _samples(system: pafs.FileSystem, path: str) -> Iterator[tuple[str, dict[str, bytes | None]]]:
    """Name of each sample, and its members by kind; those that nobody wants or that are too large are None."""
    with system.open_input_stream(path, compression=None) as stream, tarfile.open(fileobj=stream, mode="r|*") as tar:
        key: str | None = None
        members: dict[str, bytes | None] = {}
        for member in tar:
            folder, _, name = member.name.rpartition("/")
            stem, _, kind = name.partition(".")
            if not member.isfile() or not stem:
                continue
            this = f"{folder}/{stem}" if folder else stem
            if key is not None and this != key:
                yield key, members
                members = {}
            key = this
            members[kind.lower()] = _content(tar, member, kind.lower())
        if key is not None:
            yield key, members


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo, kind: str) -> bytes | None:
    wanted = kind in IMAGES or (kind in TEXTS and member.size <= MAX_TEXT)
    content = tar.extractfile(member) if wanted else None
    return content.read(MAX_PHOTO + 1) if content else None


def _fields(content: bytes | None) -> dict[str, Any]:
    try:
        fields = json.loads(content or b"{}")
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _table(rows: list[dict[str, Any]], config: Catalogue) -> pa.Table:
    names = config.columns
    types = {name: pa.string() for name in (names.id, names.title, names.label, names.split)}
    types |= {names.image: pa.binary(), names.tags: pa.list_(pa.string())}
    return pa.Table.from_pylist(rows, pa.schema(types))


def _json_text(value: Any) -> str | None:
    """A JSON string or number as text that UTF-8 can hold; anything else is null."""
    if isinstance(value, (str, int, float)):
        return _utf8(str(value).encode(errors="surrogatepass"))
    return None


def _json_tags(value: Any, separator: str) -> list[str] | None:
    if isinstance(value, str):
        value = split_tags(value, separator)
    if not isinstance(value, list):
        return None
    return [text for tag in value if (text := _json_text(tag))]


def _utf8(content: bytes | None) -> str | None:
    try:
        return content.decode().strip() if content is not None else None
    except UnicodeDecodeError:
        return None


# ---------------------------------------------------------------- all of them


def _wanted(present: list[str], config: Catalogue, path: str) -> list[str]:
    """The columns to read; a file without the image column is refused."""
    require_image(present, config, path)
    return [name for name in dict.fromkeys(config.columns.model_dump().values()) if name in present]


def require_image(present: list[str], config: Catalogue, path: str) -> None:
    """Refuse a file that has no image column."""
    if config.columns.image not in present:
        raise UserError(
            f"{path} has no column {config.columns.image!r} for the photos, it has {', '.join(present)}: "
            "name the right one with --catalogue.columns.image"
        )


def first_line(error: BaseException) -> str:
    """What the error says, in one line."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
