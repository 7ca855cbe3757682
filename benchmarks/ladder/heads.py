"""What the ladder's rungs and rivals are given, and rows with other words.

N rows, T words, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from sicot.config import Model, Train
from sicot.model.attention import pad
from sicot.model.recognizer import SICoT
from sicot.train.features import Rows
from sicot.train.heads import Begin, fit, shuffled, take


@dataclass(frozen=True)
class Task:
    """What there is to learn from, to choose a rival's own knob on, and to be asked about."""

    size: int
    train: Rows
    val: Rows
    asked: Rows
    vectors_VE: Tensor
    idf_V: Tensor
    classes: int

    @property
    def count_C(self) -> np.ndarray:
        """Training rows of each class."""
        return np.bincount(self.train.labels_N.numpy(), minlength=self.classes)

    @property
    def log_prior_C(self) -> Tensor:
        """As `prepare` smooths it."""
        count = self.count_C
        return torch.from_numpy(np.log((count + 1) / (count.sum() + len(count))).astype(np.float32))


def select(rows: Rows, ids: list[str]) -> Rows:
    """The rows with these ids, in this order."""
    places = {each: place for place, each in enumerate(rows.ids)}
    return take(rows, np.array([places[each] for each in ids]))


def swapped(rows: Rows, share: float) -> Rows:
    """The rows, a share of them with the words of another one."""
    random = np.random.default_rng(0)
    chosen = random.permutation(len(rows.ids))[: round(share * len(rows.ids))]
    words_NT = rows.words_NT.clone()
    words_NT[torch.from_numpy(chosen)] = rows.words_NT[torch.from_numpy(np.roll(chosen, 1))]
    return replace(rows, words_NT=words_NT)


def with_words(rows: Rows, other: Rows, ids: dict[str, int]) -> Rows:
    """The rows with the words that `other` has for them, in a vocabulary given as word → id."""
    said = dict(zip(other.ids, other.tokens, strict=True))
    tokens = [said[each] for each in rows.ids]
    words = pad([[ids.get(token, 0) for token in each] for each in tokens], rows.words_NT.shape[1])
    return replace(rows, tokens=tokens, words_NT=words)


def train(model: Model, settings: Train, task: Task, build: type[SICoT] = SICoT, begin: Begin = shuffled) -> SICoT:
    """A trained head: `settings.epochs` passes, a view of each photo by chance."""
    torch.manual_seed(settings.seed)
    return fit(build(model, task.size, task.log_prior_C, task.vectors_VE, task.idf_V), settings, task.train, begin)
