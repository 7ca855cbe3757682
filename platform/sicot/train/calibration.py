"""Fitting on validation what makes answers mean what they say: for each way of asking, a few numbers.

N rows, B batch, C classes, D feature dimension.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sicot.drift import Scores
from sicot.model.imprint import PER_CLASS
from sicot.model.recognizer import SICoT
from sicot.model.sharded import ShardedClassifier
from sicot.prepare.prepared import PreparedSet
from sicot.train.loader import evaluation_batches

ROWS = 4096  # of validation that are asked at most
REGIMES = ("image", "image_text", "text")


@torch.inference_mode()
def calibrate(
    model: SICoT,
    prepared: PreparedSet,
    batch_size: int,
    known_kept: float,
    head: ShardedClassifier | None = None,
    candidates: int = 200,
) -> dict[str, dict[str, Any]]:
    """Fit on validation (up to `ROWS` rows), for each regime:

    - `temperature`: the divisor of the logits with the least cross-entropy; 1 where validation has no rows to tell.
    - `threshold`: the calibrated probability of the first answer below which it is "unknown product", see
      :func:`known_threshold`; 0, which refuses nothing, where no answer was right.
    - `scores`: how these probabilities are distributed, see :class:`sicot.drift.Scores`; missing without rows.

    Args:
        model: trained.
        prepared: the set it was trained on.
        batch_size: rows per step.
        known_kept: share of the right answers that stay known.
        head: this rank's part of a sharded classifier; all ranks must call, and rank 0's figures count. Probabilities
            are among the ``candidates`` best classes then, as the bundle's are.
    """
    fitted: dict[str, dict[str, Any]] = {"temperature": {}, "threshold": {}, "scores": {}}
    asked = ask(model.eval(), prepared, batch_size)
    for regime in REGIMES:
        temperature, threshold = 1.0, 0.0
        if regime in asked:
            x_ND, labels_N = asked[regime]
            if head:
                z_NC, labels_N = _among_candidates(model, head, x_ND, labels_N, candidates)
            else:
                z_NC = model.classifier(x_ND).cpu()
            temperature = best_temperature(z_NC[labels_N >= 0], labels_N[labels_N >= 0])
            threshold = known_threshold(z_NC / temperature, labels_N, known_kept)
            if len(z_NC):
                scores_N = (z_NC / temperature).softmax(1).amax(1)
                fitted["scores"][regime] = Scores.of(scores_N.float().numpy()).model_dump()
        fitted["temperature"][regime], fitted["threshold"][regime] = temperature, threshold
    return fitted


def _among_candidates(
    model: SICoT, head: ShardedClassifier, x_ND: Tensor, labels_N: Tensor, candidates: int
) -> tuple[Tensor, Tensor]:
    """Logits of each row's best classes, z_NK, and which of them is the label's, -1 for none; no rows but on rank 0."""
    mine = slice(None if head.ranks.rank == 0 else 0)  # every rank has asked the same rows
    z_NK, classes_NK = head.top(x_ND[mine] * model.classifier.log_scale.exp(), min(candidates, head.classes))
    z_NK, hit_NK = z_NK.cpu(), classes_NK.cpu() == labels_N[mine][:, None]
    return z_NK, torch.where(hit_NK.any(1), hit_NK.int().argmax(1), -1)


def best_temperature(z_NC: Tensor, labels_N: Tensor) -> float:
    """The divisor of the logits with the least cross-entropy, from 0.1 to 10 in steps of 6 %.

    Guo et al., 2017, "On Calibration of Modern Neural Networks". 1 where there are no rows to tell.
    """
    if not len(labels_N):
        return 1.0
    temperatures = torch.logspace(-1, 1, 81)
    losses = [float(functional.cross_entropy(z_NC / t, labels_N)) for t in temperatures]
    return float(temperatures[losses.index(min(losses))])


def known_threshold(z_NC: Tensor, labels_N: Tensor, kept: float) -> float:
    """The probability that the first answer reaches in the share ``kept`` of the rows where it is right; 0 for none.

    Never above ``kept`` itself: a calibrated answer that sure is not refused, however sure all others are.

    The score is the greatest probability (Hendrycks & Gimpel, 2017, "A Baseline for Detecting Misclassified and
    Out-of-Distribution Examples in Neural Networks"): it needs nothing but the answer, and people read it as it is.
    """
    p_N, top_N = z_NC.softmax(1).max(1)
    right_N = p_N[top_N == labels_N]
    return min(kept, float(right_N.quantile(1 - kept, interpolation="lower"))) if len(right_N) else 0.0


@torch.inference_mode()
def class_sums(model: SICoT, prepared: PreparedSet, batch_size: int, rank: int, world: int) -> Tensor:
    """Sums [2, C, D] of the directions in which training photos and training words of each class lie, on this rank.

    Summed over the ranks and normalised, they are `SICoT.means_2CD`. About `PER_CLASS` rows of a class are looked at.
    """
    model.eval()
    sums_2CD = model.log_prior_C.new_zeros(2, len(prepared.classes), model.config.dimension)
    for batch in evaluation_batches(prepared, "train", batch_size, rank, world, most=-(-PER_CLASS // world)):
        batch = batch.to(sums_2CD.device)
        sums_2CD[0].index_add_(0, batch.labels_B, model.visual(batch.images_BHW3))
        has_words_B = (batch.words_BT > 0).any(1)
        if model.config.uses_words and has_words_B.any():
            t_BD, _ = model.feature(None, batch.words_BT[has_words_B])
            sums_2CD[1].index_add_(0, batch.labels_B[has_words_B], functional.normalize(t_BD, dim=1))
    return sums_2CD


def ask(model: SICoT, prepared: PreparedSet, batch_size: int) -> dict[str, tuple[Tensor, Tensor]]:
    """By regime what the classifier is shown, x_ND, and the labels_N; no regime without rows."""
    parts: dict[str, list[tuple[Tensor, Tensor]]] = {}
    rows = 0
    for batch in evaluation_batches(prepared, "val", batch_size, 0, 1):
        labels_B = batch.labels_B
        batch = batch.to(model.log_prior_C.device)
        v_BD, has_words_B = model.visual(batch.images_BHW3), (batch.words_BT > 0).any(1)
        parts.setdefault("image", []).append((v_BD, labels_B))
        if model.config.uses_words and has_words_B.any():
            words_BT, worded_B = batch.words_BT[has_words_B], labels_B[has_words_B.cpu()]
            for regime, seen_BD in (("image_text", v_BD[has_words_B]), ("text", None)):
                parts.setdefault(regime, []).append((model.feature(seen_BD, words_BT)[0], worded_B))
        rows += len(labels_B)
        if rows >= ROWS:
            break
    return {
        regime: (torch.cat([x for x, _ in each]), torch.cat([y for _, y in each])) for regime, each in parts.items()
    }
