"""Training what stands on a trunk that is kept as it is, from cached features: the same model and learner, in seconds.

B batch, N rows, W views of a photo, T words, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from sicot.config import Train
from sicot.model.recognizer import SICoT
from sicot.train.features import Rows
from sicot.train.learner import Learner
from sicot.train.loader import Batch
from sicot.train.worker import accuracies

Begin = Callable[[SICoT, Tensor, float], Tensor]
"""Called before each epoch with the model, labels_N and the share of training that is done; gives the rows' order."""


def shuffled(net: SICoT, labels_N: Tensor, done: float) -> Tensor:
    """Every row once."""
    return torch.randperm(len(labels_N))


def fit(net: SICoT, settings: Train, rows: Rows, begin: Begin = shuffled) -> SICoT:
    """Train what of ``net`` can be trained for `settings.epochs` passes, a view of each photo by chance."""
    *_, kept = epochs(net, settings, rows, begin)
    return kept


def epochs(net: SICoT, settings: Train, rows: Rows, begin: Begin = shuffled) -> Iterator[SICoT]:
    """As :func:`fit`; gives the model to evaluate after each epoch, and trains on when the next is asked for."""
    size = min(settings.batch_size, len(rows.ids))
    steps = len(rows.ids) // size
    learner = Learner(settings, net, settings.epochs * steps, torch.device("cpu"))
    for epoch in range(settings.epochs):
        torch.manual_seed(hash((settings.seed, epoch)) % 2**63)
        order_N = begin(net, rows.labels_N, epoch / settings.epochs)
        for step in range(steps):
            at_B = order_N[step * size : (step + 1) * size]
            view_B = torch.randint(rows.features_NWF.shape[1], (len(at_B),))
            learner.step(Batch(rows.features_NWF[at_B, view_B].float(), rows.words_NT[at_B], rows.labels_N[at_B]))
        yield learner.kept.eval()


@torch.inference_mode()
def ask(net: SICoT, rows: Rows, regime: str) -> Tensor:
    """Logits z_NC, by photo (the view as it is), photo and words, or words."""
    v_ND = net.visual(rows.features_NWF[:, 0].float()) if regime != "text" else None
    return net.answer(v_ND, rows.words_NT if regime != "image" else None)[0]


def validate(net: SICoT, rows: Rows, tail_C: np.ndarray) -> dict[str, float]:
    """As :func:`sicot.train.worker.validate`: overall, macro and tail accuracy by photo alone and with words."""
    labels_N = rows.labels_N
    scores: dict[str, float] = {}
    rows_C = torch.bincount(labels_N, minlength=len(tail_C)).double()
    for regime in ("image", "image_text") if net.config.uses_words else ("image",):
        right_N = (ask(net, rows, regime).argmax(1) == labels_N).double()
        right_C = torch.bincount(labels_N, weights=right_N, minlength=len(tail_C))
        scores |= accuracies(regime, right_C, rows_C, torch.from_numpy(tail_C))
    return scores


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


def fold(ids: list[str], labels: np.ndarray, number: int, folds: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of the rows to train on, and of those held out: an equal share of each class, dealt by the rows' ids.

    So folds are the same where the rows come in another order.
    """
    random = np.random.default_rng(0)
    part = np.zeros(len(labels), int)
    by_id = np.argsort(np.array(ids))
    for label in np.unique(labels):
        rows = random.permutation(by_id[labels[by_id] == label])
        part[rows] = (np.arange(len(rows)) + random.integers(folds)) % folds
    return np.flatnonzero(part != number % folds), np.flatnonzero(part == number % folds)
