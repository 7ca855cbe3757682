"""The mixed stream: visual feature v and semantic feature t → mixed feature m. Without words m is v, exactly.

B batch, D feature dimension.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Sum(nn.Module):
    """m = v + t. Under a shared classifier without bias z_m = z_v + z_t: a product of two experts."""

    def __init__(self, dimension: int):
        super().__init__()

    def forward(self, v_BD: Tensor, t_BD: Tensor, has_words_B1: Tensor) -> Tensor:
        return v_BD + t_BD


class Mlp(nn.Module):
    """m = MLP([v; t])."""

    def __init__(self, dimension: int):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2 * dimension, dimension), nn.GELU(), nn.Linear(dimension, dimension))

    def forward(self, v_BD: Tensor, t_BD: Tensor, has_words_B1: Tensor) -> Tensor:
        return torch.where(has_words_B1, self.layers(torch.cat([v_BD, t_BD], 1)).float(), v_BD)


class Gate(nn.Module):
    """m = v + g ⊙ t with g = sigmoid(G [v; t]): each dimension can refuse the words."""

    def __init__(self, dimension: int):
        super().__init__()
        self.gate = nn.Linear(2 * dimension, dimension)

    def forward(self, v_BD: Tensor, t_BD: Tensor, has_words_B1: Tensor) -> Tensor:
        return v_BD + torch.sigmoid(self.gate(torch.cat([v_BD, t_BD], 1)).float()) * t_BD


FUSIONS: dict[str, type[Sum] | type[Mlp] | type[Gate]] = {"sum": Sum, "mlp": Mlp, "gate": Gate}
