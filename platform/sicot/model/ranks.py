"""What the ranks of a sharded classifier say to each other; alone, a rank says nothing. Any backend of torch will do.

B rows of this rank, N rows of all ranks, S streams, D feature dimension.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Ranks:
    """This process among all; above one, a process group must be up, and all must make the same calls."""

    rank: int
    world: int

    def gather(self, x_BSD: Tensor, labels_B: Tensor, counts_BS: Tensor) -> tuple[Tensor, Tensor, Tensor, slice]:
        """Rows of all ranks, end to end, and where this rank's are among them. Ranks may have different numbers."""
        if self.world == 1:
            return x_BSD, labels_B, counts_BS, slice(0, len(x_BSD))
        sizes = [int(size) for size in self.everyone(torch.tensor([len(x_BSD)], device=x_BSD.device))]
        gathered = []
        for part in (x_BSD, labels_B, counts_BS):
            padded = part.new_zeros(max(sizes), *part.shape[1:])
            padded[: len(part)] = part
            parts = zip(self.everyone(padded), sizes, strict=True)
            gathered.append(torch.cat([each[:size] for each, size in parts]))
        begin = sum(sizes[: self.rank])
        return gathered[0], gathered[1], gathered[2], slice(begin, begin + sizes[self.rank])

    def everyone(self, part: Tensor) -> list[Tensor]:
        """Each rank's tensor; they are of one shape."""
        if self.world == 1:
            return [part]
        parts = [torch.empty_like(part) for _ in range(self.world)]
        dist.all_gather(parts, part.contiguous())
        return parts

    def sum(self, value: Tensor) -> Tensor:
        """The sum of the ranks' tensors, in place."""
        if self.world > 1:
            dist.all_reduce(value)
        return value

    def logsumexp(self, value: Tensor) -> Tensor:
        """log Σ exp over the ranks; some rank's must be above -∞."""
        if self.world == 1:
            return value
        most = value.clone()
        dist.all_reduce(most, dist.ReduceOp.MAX)
        return most + self.sum((value - most).exp()).log()
