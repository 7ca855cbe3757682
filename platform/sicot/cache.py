"""The user's cache. Bundles that were downloaded are kept there and checked whenever they are taken out again.

A bundle's folder there is named by the SHA-256 of its bundle.json, which holds those of all other files.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def name(note: bytes) -> str:
    """What the bundle with this bundle.json is called in the cache."""
    return hashlib.sha256(note).hexdigest()


def find(called: str) -> str | None:
    """The folder of the bundle, if it is there and every file of it is what it was."""
    folder = _root() / called
    return str(folder) if _whole(folder) else None


@contextmanager
def aside() -> Iterator[Path]:
    """An empty folder beside the kept ones, to download into; gone afterwards."""
    with tempfile.TemporaryDirectory(dir=_root()) as folder:
        yield Path(folder)


def keep(downloaded: Path) -> str:
    """Move a bundle from :func:`aside` into its place; a copy there that is damaged is replaced."""
    folder = _root() / name((downloaded / "bundle.json").read_bytes())
    if not _whole(folder):
        with aside() as trash, suppress(FileNotFoundError):
            folder.rename(trash / "damaged")
        try:
            downloaded.rename(folder)
        except OSError:  # another process was faster
            if not _whole(folder):
                raise
    return str(folder)


def folder(name: str) -> Path:
    """A folder of the user's cache, such as `features`."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sicot" / name
    root.mkdir(parents=True, exist_ok=True)
    return root


def _root() -> Path:
    return folder("bundles")


def _whole(folder: Path) -> bool:
    """Whether bundle.json is the one the folder is named by, and the files are those it lists."""
    try:
        note = (folder / "bundle.json").read_bytes()
        return name(note) == folder.name and all(
            _sha256(folder / file) == digest for file, digest in json.loads(note)["files"].items()
        )
    except (OSError, ValueError, LookupError):
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
