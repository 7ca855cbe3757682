"""How a process computes where there is no GPU."""

from __future__ import annotations

import ctypes

import torch

MMAP_MAX, TRIM_THRESHOLD = -4, -1
"""Of glibc's <malloc.h>."""


def use(threads: int) -> None:
    """Compute with so many threads, and keep the memory that a step frees for the next one.

    glibc gives large blocks back to the system, which clears them page by page when they are asked for again: two
    fifths of the time of a training step of MobileNetV2. What this process frees stays its own from now on; other C
    libraries are left as they are. It takes ``MALLOC_ARENA_MAX=1`` in the environment that the process was started
    in (see :mod:`sicot`): the arenas of other threads than the first hold no large blocks.
    """
    torch.set_num_threads(threads)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(MMAP_MAX, 0)
        mallopt(TRIM_THRESHOLD, -1)
