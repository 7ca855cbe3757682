"""Rows of rare classes that lean on the mean of their photos.

In an epoch over a million classes most rows are met once or twice: they hardly left the place where they began, while
the network that they were fitted to has moved on. The mean direction of a class's photos, by the final network, is a
row without any training (Qi, Brown, Lowe, 2018, "Low-Shot Learning with Imprinted Weights"). Our reading, for a class
of n training rows with the mean direction μ:

    ŵ ← normalise(n / (n + κ) · ŵ + κ / (n + κ) · μ)

κ is chosen on validation: 0 leaves the rows as they were trained, ∞ is the nearest class mean.

B rows of a batch, N rows, C classes, R classes of this rank, D feature dimension.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sicot.model.imprint import PER_CLASS
from sicot.model.recognizer import SICoT
from sicot.model.sharded import ShardedClassifier
from sicot.prepare.prepared import PreparedSet
from sicot.train.calibration import ask
from sicot.train.loader import evaluation_batches

STRENGTHS = (0.0, 0.5, 1.0, 2.0, 5.0, 20.0, math.inf)
TOP = 10


@dataclass(frozen=True)
class Lean:
    """The rows to answer with, and how they were chosen."""

    rows_RD: Tensor
    told: dict[str, Any]
    """`strength`, the κ; `top10` on validation for each κ, by photo alone and with words."""


@torch.inference_mode()
def lean_on_means(
    model: SICoT, head: ShardedClassifier, prepared: PreparedSet, batch_size: int, rank: int, world: int
) -> Lean:
    """Choose κ by the top-10 accuracy on validation, mean of photo alone and photo + words. All ranks must call."""
    if head.kind == "linear" or not prepared.manifest.rows["val"]:  # the length of a row means something; no telling
        return Lean(head.rows_RD, {"strength": "0.0", "top10": {}})
    means_RD = functional.normalize(_sums(model.eval(), head, prepared, batch_size, rank, world), dim=1)
    asked = {regime: each for regime, each in ask(model, prepared, batch_size).items() if regime != "text"}
    trained_RD, top10 = head.rows_RD, {}
    count_R = torch.from_numpy(prepared.classes.count[head.first : head.first + len(trained_RD)].copy()).to(trained_RD)
    for strength in STRENGTHS:
        head.rows_RD = leaning(trained_RD, means_RD, count_R, strength)
        top10[strength] = {regime: _hits(head, *each) for regime, each in asked.items()}
    head.rows_RD = trained_RD
    best = max(STRENGTHS, key=lambda strength: sum(top10[strength].values()))
    told = {"strength": str(best), "top10": {str(strength): each for strength, each in top10.items()}}
    return Lean(leaning(trained_RD, means_RD, count_R, best), told)


def leaning(rows_RD: Tensor, means_RD: Tensor, count_R: Tensor, strength: float) -> Tensor:
    """Rows that lean on the means by κ = ``strength``; a class without a mean keeps its row."""
    share_R1 = torch.ones_like(count_R) if math.isinf(strength) else strength / (count_R + strength).clamp(min=1)
    share_R1 = (share_R1 * (means_RD != 0).any(1))[:, None]
    return functional.normalize(torch.lerp(functional.normalize(rows_RD, dim=1), means_RD, share_R1), dim=1)


def _sums(
    model: SICoT, head: ShardedClassifier, prepared: PreparedSet, batch_size: int, rank: int, world: int
) -> Tensor:
    """Sums of the directions of up to about `PER_CLASS` training photos of each class of this rank, [R, D]."""
    sums_RD = torch.zeros_like(head.rows_RD)
    most = -(-PER_CLASS // world)
    for batch in evaluation_batches(prepared, "train", batch_size, rank, world, most=most, equally=True):
        batch = batch.to(sums_RD.device)
        head.add(sums_RD, model.visual(batch.images_BHW3), batch.labels_B)
    return sums_RD


def _hits(head: ShardedClassifier, x_ND: Tensor, labels_N: Tensor) -> float:
    """Share of the rows whose label is among the `TOP` best; every rank has the same rows, rank 0 asks."""
    mine = slice(None if head.rank == 0 else 0)
    _, classes_NK = head.top(x_ND[mine], min(TOP, head.classes))
    hits = (classes_NK.cpu() == labels_N[mine][:, None]).any(1).sum()
    return float(head.total(hits.double())) / len(labels_N)
