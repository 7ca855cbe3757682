"""Where the photos are that a catalogue names, and which of these places are opened.

A catalogue may come from anybody: its cells must not make the cluster read any file, or ask any host, that it can
reach. A photo is opened if it lies in the catalogue's folder or in `catalogue.images`, or has a scheme of `ANYWHERE`.
"""

from __future__ import annotations

import os
import posixpath
import re
from dataclasses import dataclass
from urllib.parse import unquote

ANYWHERE = ("s3", "gs", "https")
"""Schemes whose photos are opened wherever they are."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


@dataclass(frozen=True)
class Places:
    """The folders of a catalogue, all as :func:`absolute` has them."""

    folder: str
    """Where relative names are looked up."""
    roots: tuple[str, ...]
    """Below these, photos are opened; names start here."""

    def find(self, cell: str) -> tuple[str, str | None]:
        """Name and address of the photo in a cell; no address if it is not opened.

        The name is the address below a root, the same wherever the catalogue is moved to; elsewhere it is the cell.
        """
        address = joined(self.folder, cell)
        chained = "::" in cell and ("://" in cell or "://" in address)  # fsspec's: one address within another
        if not chained:
            for root in self.roots:
                if name := _below(root, address):
                    return name, address
        return cell, None if chained or not _anywhere(address) else address


def absolute(uri: str) -> str:
    """A local path, even one written as file://, from the root of the disk and without dots; a URI as it is."""
    uri = re.sub(r"^file://(?:localhost)?(/.*)", lambda found: unquote(found[1]), uri, flags=re.IGNORECASE | re.DOTALL)
    return uri if _SCHEME.match(uri) else os.path.abspath(uri)


def joined(folder: str, name: str) -> str:
    """Path or URI of ``name`` in ``folder``, unless it is absolute; the folder's ``?query`` stays at the end."""
    if name.startswith("/") or _SCHEME.match(name):
        return absolute(name)
    if "://" not in folder:
        return absolute(os.path.join(folder, name))
    place, mark, query = folder.partition("?")
    scheme, _, place = place.partition("://")
    host, _, path = place.partition("/")
    return f"{scheme}://{host}{posixpath.normpath(posixpath.join('/', path, name))}{mark}{query}"


def _below(root: str, address: str) -> str | None:
    """The name of ``address`` in the folder ``root``; None if it is not in there, or another query opens it."""
    if ("://" in root) != ("://" in address):
        return None
    if "://" not in root:
        inside = address.startswith(root.rstrip("/") + "/")
        return os.path.relpath(address, root) if inside else None
    place, _, query = root.partition("?")
    name, _, own = address.removeprefix(place.rstrip("/") + "/").partition("?")
    inside = address.startswith(place.rstrip("/") + "/") and own in ("", query) and ".." not in name.split("/")
    return name if inside else None


def _anywhere(address: str) -> bool:
    scheme = _SCHEME.match(address)
    if not scheme or scheme[1].lower() not in ANYWHERE:
        return False
    return scheme[1].lower() == "https" or "?" not in address  # a bucket's query names the host to ask
