"""Optimisers of a classifier's rows that touch only the rows in use: a step costs what it uses, not what there is.

R rows, K of them in use, D feature dimension.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

At = Tensor | slice
"""Rows in use: their numbers, each once, or a range."""


class RowOptimiser(ABC):
    """Moves rows; its state is dealt, saved and loaded with them."""

    state: dict[str, Tensor]
    """By name, one entry for each row along the first dimension."""

    @abstractmethod
    def update(self, rows_RD: Tensor, at: At, gradient_KD: Tensor, learning_rate: float, batch: int) -> None:
        """Move the rows ``at`` by their gradient of a mean over ``batch`` products."""


class Adagrad(RowOptimiser):
    """Row-wise Adagrad: one number of state a row.

    a ← a + mean(g²);  w ← w - rate · g / √(a + ε), g the gradient of the batch's sum: so how far a rare class moves
    when it is met does not depend on the batch size, and ε keeps what it feels as somebody's negative small.
    After Duchi et al., 2011; the row-wise form is that of embedding tables (Gupta et al., 2014; DLRM).
    """

    EPSILON = 0.01

    def __init__(self, rows_RD: Tensor):
        self.state = {"squares": rows_RD.new_zeros(len(rows_RD))}

    def update(self, rows_RD: Tensor, at: At, gradient_KD: Tensor, learning_rate: float, batch: int) -> None:
        squares_K = self.state["squares"][at] + gradient_KD.square().mean(1).mul_(batch**2)
        self.state["squares"][at] = squares_K
        rate_K = squares_K.add(self.EPSILON).rsqrt_().mul_(-learning_rate * batch)
        _add(rows_RD, at, gradient_KD * rate_K[:, None])


class Momentum(RowOptimiser):
    """SGD with momentum: m ← μ·m + g;  w ← w - rate · m. A row that is not in use keeps its momentum as it is."""

    MOMENTUM = 0.9

    def __init__(self, rows_RD: Tensor):
        self.state = {"momentum": torch.zeros_like(rows_RD)}

    def update(self, rows_RD: Tensor, at: At, gradient_KD: Tensor, learning_rate: float, batch: int) -> None:
        momentum_KD = self.state["momentum"][at].mul_(self.MOMENTUM).add_(gradient_KD)
        self.state["momentum"][at] = momentum_KD
        _add(rows_RD, at, momentum_KD * -learning_rate)


def _add(rows_RD: Tensor, at: At, change_KD: Tensor) -> None:
    if isinstance(at, slice):
        rows_RD[at] += change_KD
    else:
        rows_RD.index_add_(0, at, change_KD)


OPTIMISERS: dict[str, type[Adagrad] | type[Momentum]] = {"adagrad": Adagrad, "sgd": Momentum}
