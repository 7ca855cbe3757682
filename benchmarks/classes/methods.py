"""Ways to train a classifier of very many classes: ours, and what one would use instead.

All see the same features of two streams (photo; photo and words), normalised rows, scale and learning rate, and SGD
with momentum. `dense` and `adaptive` are replicated (DDP), the others dealt to the workers.

B rows of a batch, S = 2 streams, M = B·S, D dimension, C classes, R of a rank, K in use.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from sicot.model.rows import Momentum
from sicot.model.sharded import ShardedClassifier, bounds, initial_rows

RATE, MOMENTUM = 4.0, 0.9
ADAPTIVE_RATE = 0.3  # its logits are not of normalised rows; the best of 0.03, 0.1, 0.3 and 1


class Method(Protocol):
    """One worker's part."""

    first: int
    rows_RD: Tensor | None
    """The rows that it keeps, those of class ``first`` and on; None where there is no such table."""

    def step(self, x_BSD: Tensor, labels_B: Tensor) -> None:
        """Learn from a batch."""

    def state_bytes(self) -> int:
        """What weights and optimiser hold."""


class Ours:
    """`sicot.model.sharded`."""

    def __init__(self, classes: int, dimension: int, sampled: int, rank: int, world: int, device: torch.device):
        self.rows_RD = initial_rows(classes, dimension, rank, world, 0).to(device)
        flat_C = torch.zeros(classes)
        self.head = ShardedClassifier(
            self.rows_RD, flat_C, Momentum(self.rows_RD), tau=0.0, sampled=sampled, rank=rank, world=world
        )
        self.first, self.dtype = self.head.first, half(device)

    def step(self, x_BSD: Tensor, labels_B: Tensor) -> None:
        x_BSD = x_BSD.requires_grad_()
        weights_S, counts_BS = x_BSD.new_ones(x_BSD.shape[1]), x_BSD.new_ones(x_BSD.shape[:2])
        loss, _ = self.head.loss(x_BSD, labels_B, weights_S, counts_BS, dtype=self.dtype)
        loss.backward()
        self.head.step(RATE)

    def state_bytes(self) -> int:
        return 2 * self.rows_RD.nbytes


class Dense:
    """The whole softmax, as a linear layer on normalised rows gives it."""

    def __init__(self, classes: int, dimension: int, sampled: int, rank: int, world: int, device: torch.device):
        layer = _Cosine(initial_rows(classes, dimension, 0, 1, 0).to(device))
        self.first, self.rows_RD = 0, layer.weight.data
        self.layer: nn.Module = DistributedDataParallel(layer) if world > 1 else layer
        self.optimiser = torch.optim.SGD(layer.parameters(), RATE, MOMENTUM)
        self.dtype = half(device)

    def step(self, x_BSD: Tensor, labels_B: Tensor) -> None:
        x_BSD = x_BSD.requires_grad_()
        labels_M = labels_B.repeat_interleave(x_BSD.shape[1])
        with torch.autocast(x_BSD.device.type, self.dtype, enabled=self.dtype is not None):
            z_MC = self.layer(x_BSD.flatten(0, 1))
        (x_BSD.shape[1] * functional.cross_entropy(z_MC.float(), labels_M)).backward()
        self.optimiser.step()
        self.optimiser.zero_grad()

    def state_bytes(self) -> int:
        return 2 * self.rows_RD.nbytes


class _Cosine(nn.Module):
    def __init__(self, rows_RD: Tensor):
        super().__init__()
        self.weight = nn.Parameter(rows_RD)

    def forward(self, x_MD: Tensor) -> Tensor:
        return functional.linear(x_MD, functional.normalize(self.weight, dim=1))


class Adaptive:
    """`torch.nn.AdaptiveLogSoftmaxWithLoss`: rare classes in clusters of fewer dimensions.

    In float32: it raises under autocast.
    """

    def __init__(self, classes: int, dimension: int, sampled: int, rank: int, world: int, device: torch.device):
        torch.manual_seed(0)
        cutoffs = [max(1, classes // 100), max(2, classes // 10)]
        self.softmax = nn.AdaptiveLogSoftmaxWithLoss(dimension, classes, cutoffs).to(device)
        self.layer: nn.Module = DistributedDataParallel(self.softmax) if world > 1 else self.softmax
        self.optimiser = torch.optim.SGD(self.softmax.parameters(), ADAPTIVE_RATE, MOMENTUM)
        self.first, self.rows_RD = 0, None

    def step(self, x_BSD: Tensor, labels_B: Tensor) -> None:
        x_BSD = x_BSD.requires_grad_()
        labels_M = labels_B.repeat_interleave(x_BSD.shape[1])
        loss = self.layer(x_BSD.flatten(0, 1), labels_M).loss
        (x_BSD.shape[1] * loss).backward()
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=False)  # a batch may miss a cluster: its gradient must be there for DDP

    def state_bytes(self) -> int:
        return 2 * sum(parameter.nbytes for parameter in self.softmax.parameters())


class PartialDenseGradient:
    """Partial FC as its authors publish it: sampled rows through autograd, whose gradient has the size of all rows.

    After insightface's `partial_fc_v2.py`: a random number for every class to choose the negatives, a distributed
    softmax, no log q. Features are gathered, the optimiser moves every row.
    """

    def __init__(self, classes: int, dimension: int, sampled: int, rank: int, world: int, device: torch.device):
        self.rank, self.world = rank, world
        self.first, end = bounds(classes, rank, world)
        self.weight = nn.Parameter(initial_rows(classes, dimension, rank, world, 0).to(device))
        self.rows_RD = self.weight.data
        self.sampled = min(-(-sampled // world), end - self.first)
        self.optimiser = torch.optim.SGD([self.weight], RATE, MOMENTUM)
        self.dtype = half(device)

    def step(self, x_BSD: Tensor, labels_B: Tensor) -> None:
        x_BSD = x_BSD.requires_grad_()
        streams = x_BSD.shape[1]
        if self.world > 1:
            everyone = [torch.empty_like(labels_B) for _ in range(self.world)]
            dist.all_gather(everyone, labels_B)
            labels_B, x_BSD = torch.cat(everyone), torch.cat(all_gather(x_BSD))
        local_B = labels_B - self.first
        own_B = (local_B >= 0) & (local_B < len(self.weight))
        positive_P = local_B[own_B].unique()
        chance_R = torch.rand(len(self.weight), device=x_BSD.device)
        chance_R[positive_P] = 2.0
        index_K = chance_R.topk(max(self.sampled, len(positive_P))).indices.sort().values
        place_B = torch.where(own_B, torch.searchsorted(index_K, local_B), -1)
        unit_KD = functional.normalize(self.weight[index_K], dim=1)
        with torch.autocast(x_BSD.device.type, self.dtype, enabled=self.dtype is not None):
            z_MK = functional.linear(x_BSD.flatten(0, 1), unit_KD)
        loss = _DistributedCrossEntropy.apply(z_MK.float(), place_B.repeat_interleave(streams)[:, None], self.world)
        (streams * loss).backward()
        self.optimiser.step()
        self.optimiser.zero_grad()

    def state_bytes(self) -> int:
        return 2 * self.rows_RD.nbytes


class _DistributedCrossEntropy(torch.autograd.Function):
    """Cross-entropy whose classes are dealt to the ranks; place -1: another rank has it."""

    @staticmethod
    def forward(ctx: Any, z_MK: Tensor, place_M1: Tensor, world: int) -> Tensor:
        most_M1 = z_MK.amax(1, keepdim=True)
        _reduce(most_M1, dist.ReduceOp.MAX, world)
        p_MK = z_MK.sub_(most_M1).exp_()
        total_M1 = p_MK.sum(1, keepdim=True)
        _reduce(total_M1, dist.ReduceOp.SUM, world)
        p_MK.div_(total_M1)
        own_M1 = place_M1 >= 0
        truth_M1 = p_MK.gather(1, place_M1.clamp(min=0)) * own_M1
        _reduce(truth_M1, dist.ReduceOp.SUM, world)
        ctx.save_for_backward(p_MK, place_M1)
        return -truth_M1.clamp(min=1e-30).log().mean()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        p_MK, place_M1 = ctx.saved_tensors
        own_M1 = place_M1 >= 0
        p_MK.scatter_add_(1, place_M1.clamp(min=0), -own_M1.to(p_MK))
        return p_MK.div_(len(p_MK)).mul_(grad), None, None


def _reduce(value: Tensor, operation: Any, world: int) -> None:
    if world > 1:
        dist.all_reduce(value, operation)


def half(device: torch.device) -> torch.dtype | None:
    """bf16 where the device computes in it, for every method alike."""
    native = torch.cuda.is_bf16_supported() if device.type == "cuda" else torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if native else None


METHODS: dict[str, type[Dense] | type[Adaptive] | type[PartialDenseGradient] | type[Ours]] = {
    "dense": Dense,
    "adaptive": Adaptive,
    "partial_dense_grad": PartialDenseGradient,
    "ours": Ours,
}
