"""How the stages run: Ray Data executions that yield their blocks, each with one line of progress."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
import ray
from ray.exceptions import RayTaskError
from tqdm import tqdm

from sicot.errors import UserError


def run(dataset: ray.data.Dataset, task: Callable[..., Any], *constants: Any) -> Iterator[pa.Table]:
    """Yield ``task(block, *constants)`` of every block of ``dataset`` as it is done, in no particular order.

    Constants are put into the object store once. A task that fails ends the execution with its own error.
    """
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # stages have progress lines, errors reach the caller
    stored = [ray.put(constant) for constant in constants]
    work = partial(_call, task=task, stored=stored)
    done = dataset.map_batches(work, batch_format="pyarrow", batch_size=None)
    done.context.enable_progress_bars = False
    done.context.print_on_execution_start = False
    try:
        yield from done.iter_batches(batch_size=None, batch_format="pyarrow")
    except RayTaskError as error:
        raise _own(error.cause) from error


def _own(error: Exception) -> Exception:
    """The task's error without the lines that Ray Data adds to its message."""
    if isinstance(error, UserError):
        return UserError(str(error).partition("\n")[0])
    if isinstance(error, OSError) and error.errno:
        return OSError(error.errno, str(error.args[1]).partition("\n")[0])
    return error


def _call(block: pa.Table, task: Callable[..., Iterator[pa.Table]], stored: list[ray.ObjectRef]) -> Iterator[pa.Table]:
    yield from task(block, *ray.get(stored))


def blocks(table: pa.Table, rows: Sequence[tuple[int, int]]) -> ray.data.Dataset:
    """A dataset whose blocks are these ranges of the table's rows, one task each."""
    return ray.data.from_arrow([table.slice(start, stop - start) for start, stop in rows])


def ranges(items: int, most: int, size: int = 1) -> list[tuple[int, int]]:
    """Items of ``size`` rows each in ranges of rows, up to ``most`` items a range, and enough ranges for all CPUs."""
    cpus = int(ray.cluster_resources().get("CPU", 1))
    step = max(1, min(most, -(-items // cpus)))
    return [(start * size, min(start + step, items) * size) for start in range(0, items, step)]


def progress(stage: str, total: int | None, unit: str = "rows") -> tqdm:
    """The stage's progress line: what is done, of what, and how fast."""
    seldom = 0.5 if sys.stderr.isatty() else 5.0  # a log file wants fewer lines than a terminal
    return tqdm(desc=f"prepare: {stage:7}", total=total, unit=f" {unit}", mininterval=seldom)
