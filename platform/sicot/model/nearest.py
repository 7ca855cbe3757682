"""Exact search among very many rows, block by block.

N queries, K best rows of each, M rows of a block, D feature dimension.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def nearest(x_ND: Tensor, blocks: Iterable[Tensor], k: int) -> tuple[Tensor, Tensor]:
    """The k rows with the greatest inner product for each query: s_NK, falling, and their numbers, int64.

    All rows where there are no more than k. Of the products no more than a block's are in memory.

    Args:
        x_ND: queries.
        blocks: the rows, in order, as blocks [M, D].
        k: how many to find.
    """
    best_NK, rows_NK = x_ND.new_zeros(len(x_ND), 0), torch.zeros(len(x_ND), 0, dtype=torch.long, device=x_ND.device)
    start = 0
    for block_MD in blocks:
        s_NM = x_ND @ block_MD.T
        # the greatest alone is found several times as fast as by topk
        found = s_NM.max(1, keepdim=True) if k == 1 else s_NM.topk(min(k, s_NM.shape[1]))
        best_NK, rows_NK = merge([best_NK, found[0]], [rows_NK, found[1] + start], k)
        start += len(block_MD)
    return best_NK, rows_NK


def merge(scores: list[Tensor], rows: list[Tensor], k: int) -> tuple[Tensor, Tensor]:
    """The k best of several findings, or all there are."""
    both_NK = torch.cat(scores, 1)
    best_NK, order_NK = both_NK.topk(min(k, both_NK.shape[1]))
    return best_NK, torch.cat(rows, 1).gather(1, order_NK)
