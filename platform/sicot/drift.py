"""How far the scores of answers have moved from those of validation: the population stability index.

    PSI = Σ_i (p_i - q_i) ln(p_i / q_i)      over bins i of the score, p_i its share now and q_i in validation

It is 0 where nothing has moved; by custom, below 0.1 is little and above 0.25 is much. Bins hold about as many rows of
validation each, so they are fine where scores are dense: most answers of a good model lie between 0.99 and 1.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

BINS = 10
ENOUGH = 200
"""Fewer rows or answers tell nothing: without any drift, PSI is about (BINS - 1)(1/rows + 1/answers)."""
EMPTY = 1e-4
"""Share that a bin is taken to have at least: the logarithm of none is infinite."""
SLICES = 12


class Scores(BaseModel):
    """How the scores of validation were distributed."""

    model_config = ConfigDict(extra="forbid")

    edges: list[float]
    """Between the bins, rising; a score that is one lies in the bin above it."""
    shares: list[float]
    """Of the rows in each bin, one more than there are edges."""
    rows: int

    @classmethod
    def of(cls, scores_N: np.ndarray) -> Scores:
        """The distribution of some scores, at least one; fewer bins than `BINS` where many are the same."""
        edges = np.unique(np.quantile(scores_N, np.linspace(0, 1, BINS + 1)[1:-1], method="lower"))
        counts = np.bincount(np.searchsorted(edges, scores_N, side="right"), minlength=len(edges) + 1)
        return cls(edges=edges.tolist(), shares=(counts / len(scores_N)).tolist(), rows=len(scores_N))


def psi(now: Sequence[float], then: Sequence[float]) -> float:
    """The index of two distributions over the same bins: shares, or counts, of which neither are all 0."""
    p, q = (np.maximum(np.asarray(each, float) / sum(each), EMPTY) for each in (now, then))
    return float(((p - q) * np.log(p / q)).sum())


class Window:
    """The scores of the last while, beside those of validation. Times are seconds of any one clock."""

    def __init__(self, then: Scores, seconds: float):
        self.then, self.slice = then, seconds / SLICES
        self.counts: deque[tuple[int, list[int]]] = deque(maxlen=SLICES)

    def add(self, score: float, now: float) -> None:
        """An answer."""
        number = int(now / self.slice)
        if not self.counts or self.counts[-1][0] != number:
            self.counts.append((number, [0] * len(self.then.shares)))
        self.counts[-1][1][bisect_right(self.then.edges, score)] += 1

    def psi(self, now: float) -> float | None:
        """The index of the answers in the window; None where they, or the rows of validation, are not `ENOUGH`."""
        oldest = int(now / self.slice) - SLICES
        held = [counts for number, counts in self.counts if number > oldest]
        total = [sum(each) for each in zip(*held, strict=True)]
        if min(sum(total), self.then.rows) < ENOUGH:
            return None
        return psi(total, self.then.shares)
