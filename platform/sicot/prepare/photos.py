"""The bytes of a row's photo: from the row itself, or from the file it names."""

from __future__ import annotations

from functools import lru_cache

import pyarrow.fs as pafs

from sicot import storage
from sicot.catalogue.places import ANYWHERE
from sicot.prepare.images import BadImage

READERS = 8
"""Photos opened at the same time, for storage that is slow to answer."""

_SHOWN = 200  # characters: a cell may hold anything, a whole photo in base64 too


def fetch(image: bytes | None, uri: str | None, name: str | None, max_bytes: int) -> bytes | None:
    """The photo of a row of `schema.ROW` by its columns image, image_uri and image_name; None if it names none.

    Of a file, never more than one byte above ``max_bytes`` is read. Thread-safe. :class:`BadImage` if the file cannot
    be had, whatever the reason (no_image), or lies where none is opened (image_place).
    """
    if image is not None or not (uri or name):
        return image
    if not uri:
        schemes = ", ".join(f"{scheme}://" for scheme in ANYWHERE)
        outside = f"is outside the catalogue's folder and catalogue.images, and not at {schemes}"
        raise BadImage("image_place", f"{_short(name)} {outside}: set catalogue.images to a folder with all photos")
    try:
        system, path = _open(uri)
        with system.open_input_stream(path, compression=None) as stream:
            return stream.read(max_bytes + 1)
    except Exception as error:  # any file system, asked for anything: no row may end the job
        raise BadImage("no_image", f"cannot open {_short(uri)}: {type(error).__name__}") from error


def _short(text: str | None) -> str:
    return str(text) if len(str(text)) <= _SHOWN else f"{str(text)[:_SHOWN]}…"


def _open(uri: str) -> tuple[pafs.FileSystem, str]:
    scheme, mark, rest = uri.partition("://")
    if not mark or scheme.lower() in ("file", "http", "https"):  # at once; and a web address is more than a path
        return storage.open_uri(uri)
    place, mark, query = rest.partition("?")
    host, _, path = place.partition("/")
    system, root = _open_host(f"{scheme}://{host}{mark}{query}")
    return system, f"{root.rstrip('/')}/{path}"


@lru_cache(maxsize=64)
def _open_host(uri: str) -> tuple[pafs.FileSystem, str]:
    return storage.open_uri(uri)  # opening a bucket takes far longer than opening a photo in it
