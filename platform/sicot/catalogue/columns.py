"""From the columns of a file, of whatever types, to the columns of `schema.ROW`; what cannot be read becomes null."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sicot.catalogue.places import Places
from sicot.catalogue.schema import ROW
from sicot.config import Catalogue

SPLIT_NAMES = {"training": "train", "valid": "val", "validation": "val", "dev": "val", "testing": "test"}
"""What else the splits are called; a name that is none of these is handed on, for prepare to refuse."""


def to_rows(raw: pa.Table, config: Catalogue, ids: Iterable[str], places: Places) -> pa.Table:
    """Rename and cast: N raw rows in, N rows of `schema.ROW` out.

    ``ids`` are used where the file has no id column; ``places`` says where photos are that the file names.
    """
    names, count = config.columns, raw.num_rows

    def column(name: str) -> pa.Array:
        return raw[name].combine_chunks() if name in raw.column_names else pa.nulls(count)

    image, image_uri, image_name = _images(column(names.image), places)
    columns = {
        "id": strings(column(names.id)) if names.id in raw.column_names else pa.array(ids, pa.string()),
        "image": image,
        "image_uri": image_uri,
        "image_name": image_name,
        "title": strings(column(names.title)),
        "tags": _tags(column(names.tags), config.tags_separator),
        "label": strings(column(names.label)),
        "split": pa.array([split_name(text) for text in _texts(column(names.split))], pa.string()),
    }
    return pa.table(columns, schema=ROW)


def strings(column: pa.Array) -> pa.Array:
    """Numbers, dates and truth values as they are written, categories by name; anything nested is null."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return strings(column.dictionary_decode())
    if pa.types.is_nested(kind):
        return pa.nulls(len(column), pa.string())
    if pa.types.is_floating(kind):
        column = pc.if_else(pc.is_finite(column), column, None)
    try:
        return column.cast(pa.string())
    except pa.ArrowInvalid:  # bytes that are not UTF-8 somewhere
        return pa.array(_texts(column), pa.string())
    except pa.ArrowNotImplementedError:
        return pa.nulls(len(column), pa.string())


def split_name(text: str | None) -> str | None:
    """train, val or test for all their usual names; null for an empty one."""
    name = (text or "").strip().lower()
    return SPLIT_NAMES.get(name, name) or None


def _texts(column: pa.Array) -> list[str | None]:
    """Strings or bytes as Python strings; what is not UTF-8 becomes None."""
    if not is_text(column.type) and not is_bytes(column.type):
        column = strings(column)
    return [_text(value) for value in column.cast(pa.large_binary()).to_pylist()]


def _text(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


def _images(column: pa.Array, places: Places) -> tuple[pa.Array, pa.Array, pa.Array]:
    """Bytes, URIs and names: from bytes, from paths, or from a struct of both as Hugging Face's datasets have it."""
    kind, count = column.type, len(column)
    if pa.types.is_dictionary(kind):
        return _images(column.dictionary_decode(), places)
    if pa.types.is_struct(kind):
        fields = dict(zip([field.name for field in kind], column.flatten(), strict=True))
        image = _images(fields.get("bytes", pa.nulls(count, pa.binary())), places)[0]
        _, uri, name = _images(fields.get("path", pa.nulls(count, pa.string())), places)
        return image, pc.if_else(image.is_valid(), None, uri), pc.if_else(image.is_valid(), None, name)
    nothing = pa.nulls(count, pa.string())
    if is_bytes(kind):
        return column.cast(pa.binary()), nothing, nothing
    if not is_text(kind):
        return pa.nulls(count, pa.binary()), nothing, nothing
    cells = [(text or "").strip() for text in _texts(column)]
    found = [places.find(cell) if cell else (None, None) for cell in cells]
    uris, names = [uri for _, uri in found], [name for name, _ in found]
    return pa.nulls(count, pa.binary()), pa.array(uris, pa.string()), pa.array(names, pa.string())


def _tags(column: pa.Array, separator: str) -> pa.Array:
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type) or pa.types.is_fixed_size_list(column.type):
        try:
            return column.cast(ROW.field("tags").type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            return pa.nulls(len(column), ROW.field("tags").type)
    rows: list[Any] = [None if text is None else split_tags(text, separator) for text in _texts(column)]
    return pa.array(rows, ROW.field("tags").type)


def split_tags(text: str, separator: str) -> list[str]:
    """The tags in one string, without the empty ones."""
    return [tag for part in text.split(separator) if (tag := part.strip())]


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type holds strings."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def is_bytes(kind: pa.DataType) -> bool:
    """Whether a column of this type holds bytes."""
    fixed = pa.types.is_fixed_size_binary(kind) and not pa.types.is_decimal(kind)
    return fixed or pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)
