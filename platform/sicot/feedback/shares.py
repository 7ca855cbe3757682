"""Shares and their differences, where several answers go to the same visitor.

What a visitor says of one answer is no news of his next, so answers of one visitor are counted as less than that many:
the interval of a share is Wilson's at the effective number of answers, at which independent ones would vary as much as
these do from visitor to visitor (Kish's design effect, by the linearised variance of a ratio). Where each visitor has
one answer, that is their number, and all of it the textbook's.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sicot.evaluate.metrics import wilson


@dataclass(frozen=True)
class Sums:
    """Over all visitors u, of whose n_u answers x_u were so."""

    units: float
    """Visitors that have answers."""
    x: float
    n: float
    xx: float
    """Sum of x_u²."""
    xn: float
    nn: float


@dataclass(frozen=True)
class Share:
    """A share and how well it is known; the figures are None where there is nothing to count."""

    share: float | None
    ci95: list[float] | None
    count: int
    of: int
    effective: float
    """The number of independent answers that would tell as much."""

    @classmethod
    def of_sums(cls, sums: Sums) -> Share:
        """The share x / n over all visitors, with its 95 % interval."""
        if not sums.n:
            return cls(None, None, 0, 0, 0.0)
        share = sums.x / sums.n
        variance = (sums.xx - 2 * share * sums.xn + share**2 * sums.nn) / sums.n**2
        effective = sums.units  # where all are alike: visitors, at least, are independent
        if 0 < share < 1 and variance > 0:
            effective = min(sums.n, share * (1 - share) / variance)
        return cls(share, wilson(share, effective), round(sums.x), round(sums.n), effective)


def difference(challenger: Share, champion: Share) -> dict[str, Any]:
    """How much larger the challenger's share is.

    Returns:
        ``champion`` and ``challenger`` as dictionaries, their ``difference``, its 95 % interval ``ci95`` (Newcombe's,
        of the two Wilson intervals), and ``p``, of the two-sided score test of no difference; all three None where one
        of them has nothing to count.
    """
    both = {"champion": asdict(champion), "challenger": asdict(challenger)}
    if challenger.share is None or champion.share is None or not challenger.ci95 or not champion.ci95:
        return {**both, "difference": None, "ci95": None, "p": None}
    new, old = challenger.share, champion.share
    lower = np.hypot(new - challenger.ci95[0], champion.ci95[1] - old)
    upper = np.hypot(challenger.ci95[1] - new, old - champion.ci95[0])
    interval = [float(new - old - lower), float(new - old + upper)]
    p = _p(new, old, challenger.effective, champion.effective)
    return {**both, "difference": new - old, "ci95": interval, "p": p}


def _p(new: float, old: float, n: float, m: float) -> float:
    """Of shares of n and m answers: two-sided, by the pooled share."""
    from scipy.stats import norm

    pooled = (new * n + old * m) / (n + m)
    error = np.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
    return float(2 * norm.sf(abs(new - old) / error)) if error else 1.0
