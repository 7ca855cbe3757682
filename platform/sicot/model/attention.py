"""Bilinear word attention: one semantic feature t from noisy words, read in the light of the photo.

Our reading of the published description:

    s_i = [(U v)ᵀ(W e_i) + uᵀe_i + β·idf_i] / temperature      full rank: vᵀ W e_i in place of (U v)ᵀ(W e_i)
    a   = softmax over the product's words and the null word
    t   = Σ_i a_i · (W_t e_i)

The null word has a learnt key and a zero value: attention on it says "none of these words helps".
A product without words has t = 0 exactly.

B batch, T words of a product, V vocabulary, E word dimension, D feature dimension, R rank.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sicot.config import Attention as AttentionConfig


def pad(words: Sequence[Sequence[int]], length: int) -> Tensor:
    """Word ids of several products → words_BT, int64, filled up with 0 = no word to T = ``length``."""
    words_BT = torch.zeros(len(words), length, dtype=torch.long)
    for row, ids in enumerate(words):
        words_BT[row, : len(ids)] = torch.as_tensor(ids, dtype=torch.long)
    return words_BT


class WordAttention(nn.Module):
    """Words and photo → t and the weight of each word."""

    idf_V: Tensor

    def __init__(self, config: AttentionConfig, vectors_VE: Tensor, idf_V: Tensor, dimension: int):
        """
        Args:
            config: which attention.
            vectors_VE: first word vectors by id; row 0 stands for "no word" and stays zero.
            idf_V: inverse document frequency by word id.
            dimension: D.
        """
        super().__init__()
        self.config = config
        width = vectors_VE.shape[1]
        self.vectors = nn.Embedding.from_pretrained(vectors_VE.clone(), freeze=False, padding_idx=0)
        self.register_buffer("idf_V", idf_V.clone())
        self.value = nn.Linear(width, dimension, bias=False)
        if config.kind == "mean":
            return
        self.word_score = nn.Parameter(torch.zeros(width))  # u
        if config.idf:
            self.idf_factor = nn.Parameter(torch.tensor(0.2))  # β
        if config.null_word:
            self.null_score = nn.Parameter(torch.zeros(()))
        if config.kind == "bilinear":
            rank = config.rank or dimension
            if config.rank:
                self.query = nn.Linear(dimension, rank, bias=False)  # U
            self.key = nn.Linear(width, rank, bias=False)  # W
            if config.null_word:
                self.null_key = nn.Parameter(torch.zeros(rank))

    def forward(self, words_BT: Tensor, v_BD: Tensor | None) -> tuple[Tensor, Tensor]:
        """
        Args:
            words_BT: word ids; 0 is no word.
            v_BD: visual feature; None where there is no photo (the words' own terms decide then).

        Returns:
            t_BD, and the weights a_BS with S = T + 1: one per word, the null word's last. They sum to 1
            for each product; without words all weight is the null word's.
        """
        e_BTE = self.vectors(words_BT)
        there_BT = words_BT > 0
        none_B1 = ~there_BT.any(1, keepdim=True)
        if self.config.kind == "mean":
            a_BT = there_BT.float() / there_BT.sum(1, keepdim=True).clamp(min=1)
            a_BS = torch.cat([a_BT, none_B1.float()], 1)
        else:
            if self.config.null_word:
                null_B1 = self._null(v_BD, words_BT)
            else:  # out of the softmax, but for products without words: they need somewhere to look
                null_B1 = torch.zeros_like(none_B1, dtype=torch.float).masked_fill(~none_B1, float("-inf"))
            s_BT = self._scores(e_BTE, words_BT, v_BD).masked_fill(~there_BT, float("-inf"))
            a_BS = torch.cat([s_BT, null_B1], 1).div(self.config.temperature).softmax(1)
        mixed_BE = torch.einsum("bt,bte->be", a_BS[:, :-1], e_BTE.float())
        return self.value(mixed_BE).float(), a_BS

    def _scores(self, e_BTE: Tensor, words_BT: Tensor, v_BD: Tensor | None) -> Tensor:
        s_BT = e_BTE.float() @ self.word_score
        if self.config.idf:
            s_BT = s_BT + self.idf_factor * self.idf_V[words_BT]
        if self.config.kind == "bilinear" and v_BD is not None:
            query_BR = self.query(v_BD) if self.config.rank else v_BD
            s_BT = s_BT + torch.einsum("br,btr->bt", query_BR.float(), self.key(e_BTE).float())
        return s_BT

    def _null(self, v_BD: Tensor | None, words_BT: Tensor) -> Tensor:
        score_B1 = self.null_score.expand(len(words_BT), 1)
        if self.config.kind == "bilinear" and v_BD is not None:
            query_BR = self.query(v_BD) if self.config.rank else v_BD
            score_B1 = score_B1 + (query_BR.float() @ self.null_key)[:, None]
        return score_B1
