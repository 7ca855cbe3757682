"""Drawing the classes that a step compares with.

P classes met in the batch, K classes drawn.
"""

from __future__ import annotations

import torch
from torch import Tensor


def draw(met_P: Tensor, total: int, others: int) -> Tensor:
    """``met_P`` (each once) and ``others`` further numbers below ``total``, every set of them as likely.

    Returns:
        Sorted numbers, each once: `total` of them if there are no more. What it costs grows with their number, not with
        ``total``, but where more than half of all are wanted.
    """
    wanted = min(len(met_P) + others, total)
    if 2 * wanted > total:  # so many that drawing would hit the same ones again and again
        order = torch.rand(total, device=met_P.device)
        order[met_P] = -1.0
        return order.argsort()[:wanted].sort().values
    pool = met_P
    while len(pool) < wanted:
        more = wanted - len(pool)
        drawn = torch.randint(total, (more + more // 8 + 8,), device=pool.device)
        pool = torch.cat([pool, drawn]).unique()
    other = torch.ones(len(pool), dtype=torch.bool, device=pool.device)
    other[torch.searchsorted(pool, met_P)] = False
    others_K = other.nonzero()[:, 0]
    keep = torch.ones_like(other)
    keep[others_K[torch.randperm(len(others_K), device=pool.device)[: len(pool) - wanted]]] = False
    return pool[keep]
