"""Classes without training: imprinted rows, and how they compete with the trained classes.

A row is the mean direction of what a stream says of a product (Qi, Brown, Lowe, 2018, "Low-Shot Learning with Imprinted
Weights"). Beside trained rows it would win nearly always: a mean lies nearer to its own photos than a trained row does,
and nearer to everybody else's, too. So means are compared with means. Our own reading, for an imprinted class e:

    z_e = log Σ_c exp z_c + s_e - log Σ_c exp s_c

where z are the logits of the trained rows and s those of means, of e and of the trained classes c: the means decide how
likely the new class is beside all known ones, the trained rows divide what is left among these, as they did before.
Nothing is fitted. Photos are compared with means of photos, words with means of words, both with both.

B batch, T words, C classes, E imprinted classes, M rows of a class, D feature dimension.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from sicot.model.recognizer import SICoT

PER_CLASS = 20
"""Rows that a mean is made of at most: further ones hardly move it."""


def mean_direction(x_MD: Tensor) -> Tensor:
    """The row [D] of some features: their directions' mean, on the unit sphere; zero for none."""
    return functional.normalize(functional.normalize(x_MD, dim=1).sum(0), dim=0)


def log_odds(
    model: SICoT,
    rows_2ED: Tensor,
    regime: str,
    temperature: float,
    v_BD: Tensor | None,
    words_BT: Tensor | None,
    x_BD: Tensor,
) -> Tensor:
    """s_e - log Σ_c exp s_c, as [B, E], in one regime; -∞ for classes that were given nothing to compare it with.

    Where photo and words are asked and a class was given only one of the two, that one alone decides.

    Args:
        model: the model, with the means of its trained classes.
        rows_2ED: imprinted rows, of photos and of words; zero where a class was given none.
        regime: image, image_text or text.
        temperature: divides all logits.
        v_BD, words_BT: what is asked; see :meth:`SICoT.answer`.
        x_BD: what the classifier is shown, from :meth:`SICoT.feature`.
    """

    def odds(x_BD: Tensor, rows_ED: Tensor, means_CD: Tensor) -> Tensor:
        s_BE, s_BC = (model.classifier.plain(x_BD, rows) / temperature for rows in (rows_ED, means_CD))
        odds_BE = s_BE - s_BC.logsumexp(1, keepdim=True)
        return odds_BE.masked_fill(~(rows_ED != 0).any(1), float("-inf"))

    if regime != "image_text":
        kind = int(regime == "text")
        return odds(x_BD, rows_2ED[kind], model.means_2CD[kind])
    photo_E, words_E = (rows_2ED != 0).any(2)
    both_ED, both_CD = (functional.normalize(each.sum(0), dim=1) for each in (rows_2ED, model.means_2CD))
    odds_BE = odds(x_BD, both_ED, both_CD)
    if not words_E.all() and v_BD is not None:
        odds_BE = torch.where(words_E, odds_BE, odds(v_BD, rows_2ED[0], model.means_2CD[0]))
    if not photo_E.all():
        t_BD, _ = model.feature(None, words_BT)
        odds_BE = torch.where(photo_E, odds_BE, odds(t_BD, rows_2ED[1], model.means_2CD[1]))
    return odds_BE
