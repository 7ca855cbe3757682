"""Loss parts of the co-training. B batch, C classes, D feature dimension."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def adjusted_cross_entropy(z_BC: Tensor, labels_B: Tensor, log_prior_C: Tensor, tau: float) -> Tensor:
    """CE(z + τ·log π, y), the mean over the batch.

    Logit adjustment (Menon et al., 2021, "Long-tail learning via logit adjustment"); τ = 1 is balanced softmax
    (Ren et al., 2020), τ = 0 plain cross-entropy. Answers use z, so frequent classes must earn their margin.
    """
    return functional.cross_entropy(z_BC + tau * log_prior_C if tau else z_BC, labels_B)


def distillation(teacher_BC: Tensor, student_BC: Tensor) -> Tensor:
    """KL(softmax(teacher) ‖ softmax(student)), the mean over the batch; no gradient reaches the teacher.

    Both are to be given with the class prior, as in :func:`adjusted_cross_entropy`: without it a teacher that is sure
    of frequent classes acts as plain cross-entropy, and undoes what the adjustment does for rare ones (measured).
    """
    return functional.kl_div(
        student_BC.log_softmax(1), teacher_BC.detach().log_softmax(1), reduction="batchmean", log_target=True
    )


def contrast(v_BD: Tensor, t_BD: Tensor, labels_B: Tensor, has_words_B: Tensor, temperature: float) -> Tensor:
    """Symmetric InfoNCE between photos and words; every pair of one class is a positive (our reading).

    Rows without words take no part; 0 if fewer than two have any.
    """
    v_BD, t_BD, labels_B = v_BD[has_words_B], functional.normalize(t_BD[has_words_B], dim=1), labels_B[has_words_B]
    if len(v_BD) < 2:
        return v_BD.sum() * 0
    same_BB = (labels_B[:, None] == labels_B).float()
    same_BB = same_BB / same_BB.sum(1, keepdim=True)
    z_BB = v_BD @ t_BD.T / temperature
    return (functional.cross_entropy(z_BB, same_BB) + functional.cross_entropy(z_BB.T, same_BB)) / 2


def hide_words(words_BT: Tensor, word_share: float, text_share: float) -> Tensor:
    """Training noise: hide single words, and all words of some products; the model must live without them."""
    keep_BT = torch.rand(words_BT.shape, device=words_BT.device) >= word_share
    keep_B1 = torch.rand((len(words_BT), 1), device=words_BT.device) >= text_share
    return words_BT * (keep_BT & keep_B1)


def swap_words(words_BT: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Training noise: give some products the words of their neighbour in the batch.

    Returns:
        words_BT, and own_B: False where the words are another product's.
    """
    if not share:
        return words_BT, torch.ones(len(words_BT), dtype=torch.bool, device=words_BT.device)
    own_B = torch.rand(len(words_BT), device=words_BT.device) >= share
    return torch.where(own_B[:, None], words_BT, words_BT.roll(1, 0)), own_B
