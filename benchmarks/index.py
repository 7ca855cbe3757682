"""Looking up the best of very many classes: `python -m benchmarks.index`, `--classes 10000` for less than a million.

Against what one would do without an index, float32 and every row: the kinds of :mod:`sicot.index`, the one it would
choose marked. Rows are made to look like a trained classifier's: directions that are mixtures of a few parts out of a
common stock (colour, shape, brand, ...) with noise of their own, queries a row each with more noise. Real classes lie
in tighter clusters, which helps lists; the number of probes is fitted on the same queries either way.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks import record
from sicot.config import Index as Settings
from sicot.index import QUERIES, Exam, Rows, choose, kinds

PARTS, EACH = 512, 4
"""Parts in stock, and those that a class is a mixture of."""


def classifier_rows(classes: int, dimension: int, random: torch.Generator) -> Tensor:
    """Directions [C, D]."""
    parts_PD = functional.normalize(torch.randn(PARTS, dimension, generator=random), dim=1)
    rows_CD = 0.05 * torch.randn(classes, dimension, generator=random)
    for _ in range(EACH):
        part_C = torch.randint(PARTS, (classes,), generator=random)
        rows_CD += parts_PD[part_C] * torch.rand(classes, 1, generator=random)
    return functional.normalize(rows_CD, dim=1)


def measure(classes: int, dimension: int, settings: Settings) -> Iterator[dict[str, Any]]:
    """A line for each way of finding the best classes."""
    random = torch.Generator().manual_seed(0)
    rows = Rows(classifier_rows(classes, dimension, random), False)  # normalised already
    x_ND = rows.weight_CD[torch.randint(classes, (QUERIES,), generator=random)]
    x_ND = x_ND + 0.08 * torch.randn(x_ND.shape, generator=random)
    exam = Exam.set(rows, x_ND, settings.candidates)
    size = {"classes": classes, "dimension": dimension}
    yield {**size, "way": "every row, float32", "recall": 1.0, "ms": exam.exact_ms, "mb": 4 * classes * dimension / 1e6}
    begun, found, took = time.perf_counter(), [], []
    for index in kinds(rows, exam, settings.recall):
        found.append(index)
        took.append(round(time.perf_counter() - begun, 1))
        begun = time.perf_counter()
    chosen = choose(found, settings.recall)
    for index, seconds in zip(found, took, strict=True):
        about = index.about
        line = {**size, "way": about["kind"], "recall": about["recall"], "ms": about["ms"], "mb": about["megabytes"]}
        more = {"probes": about["probes"] or "", "build_s": seconds, "times_faster": exam.exact_ms / about["ms"]}
        yield {**line, **more, "chosen": "yes" if index is chosen else ""}


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--dimension", type=int, default=64)
    options = parser.parse_args()
    record.record("index", [row for each in options.classes for row in measure(each, options.dimension, Settings())])


if __name__ == "__main__":
    main()
