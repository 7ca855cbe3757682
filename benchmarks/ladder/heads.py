"""Training what stands on a frozen trunk, from cached features: the shipped model and learner, in seconds.

B batch, N rows, W views of a photo, T words, C classes, D feature dimension.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from sicot.config import Model, Train
from sicot.model.attention import pad
from sicot.model.recognizer import SICoT
from sicot.train.features import Rows
from sicot.train.learner import Learner
from sicot.train.loader import Batch

Begin = Callable[[SICoT, Tensor, float], Tensor]
"""Called before each epoch with the model, labels_N and the share of training that is done; gives the rows' order."""


def shuffled(net: SICoT, labels_N: Tensor, done: float) -> Tensor:
    """Every row once."""
    return torch.randperm(len(labels_N))


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


def take(rows: Rows, places: np.ndarray) -> Rows:
    """Some of the rows."""
    at = torch.from_numpy(places)
    return Rows(
        [rows.ids[i] for i in places],
        rows.features_NWF[at],
        [rows.tokens[i] for i in places],
        rows.words_NT[at],
        rows.labels_N[at],
    )


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


def fit(net: SICoT, settings: Train, rows: Rows, begin: Begin = shuffled) -> SICoT:
    """Train what of ``net`` can be trained, with a schedule of its own."""
    size = settings.batch_size
    steps = max(1, len(rows.ids) // size)
    learner = Learner(settings, net, settings.epochs * steps, torch.device("cpu"))
    for epoch in range(settings.epochs):
        torch.manual_seed(hash((settings.seed, epoch)) % 2**63)
        order_N = begin(net, rows.labels_N, epoch / settings.epochs)
        for step in range(steps):
            at_B = order_N[step * size : (step + 1) * size]
            view_B = torch.randint(rows.features_NWF.shape[1], (len(at_B),))
            learner.step(Batch(rows.features_NWF[at_B, view_B].float(), rows.words_NT[at_B], rows.labels_N[at_B]))
    return learner.kept.eval()


@torch.inference_mode()
def ask(net: SICoT, rows: Rows, regime: str) -> Tensor:
    """Logits z_NC, by photo (the view as it is), photo and words, or words."""
    v_ND = net.visual(rows.features_NWF[:, 0].float()) if regime != "text" else None
    return net.answer(v_ND, rows.words_NT if regime != "image" else None)[0]
