"""The classifier that all streams share: one matrix, no bias.

B batch, D feature dimension, C classes.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional


class Classifier(nn.Module):
    """z = scale · x ŵᵀ, the rows ŵ normalised (cosine) or as they are (linear); the scale is learnt.

    x is never normalised here: v comes normalised, m and t do not, so that under sum fusion
    z(v + t) = z(v) + z(t) holds.
    """

    def __init__(self, kind: Literal["cosine", "linear"], classes: int, dimension: int, scale: float):
        super().__init__()
        self.kind = kind
        self.weight = nn.Parameter(torch.randn(classes, dimension) / math.sqrt(dimension))
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))

    def forward(self, x_BD: Tensor, rows_CD: Tensor | None = None) -> Tensor:
        """Logits z_BC, float32; who asks again and again gives what :meth:`rows` gave."""
        return self.plain(x_BD, self.rows() if rows_CD is None else rows_CD)

    def rows(self) -> Tensor:
        """The rows as they are compared with, [C, D]."""
        return functional.normalize(self.weight, dim=1) if self.kind == "cosine" else self.weight

    def plain(self, x_BD: Tensor, rows_CD: Tensor) -> Tensor:
        """Logits of rows that are taken as they are."""
        return functional.linear(x_BD, rows_CD).float() * self.log_scale.exp()
