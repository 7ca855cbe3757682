"""Ending what a test has started, with all that it started in turn, at once."""

from __future__ import annotations

from contextlib import suppress

import psutil


def kill_tree(pid: int) -> list[psutil.Process]:
    """SIGKILL a process, then its children; one that is gone already is no error. Gives those that were there."""
    found: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        found = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    for each in found:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    return found
