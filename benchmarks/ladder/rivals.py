"""What one would do instead: class-balanced logistic regression, and the published long-tail methods.

The latter train the visual head of the ladder at its budget. Formulas as in the papers named; what differs from
them is the trunk and the schedule, which are the ladder's.

B batch, N rows, C classes, D feature dimension.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn import functional

from benchmarks.ladder.heads import Task, train
from benchmarks.ladder.rungs import VISUAL, change
from sicot.config import Model, Train
from sicot.model.recognizer import SICoT
from sicot.train.heads import ask, fit, shuffled

Logits = dict[str, Tensor]
"""Regime → z_NC of the rows asked about."""
Rival = Callable[[Model, Train, Task], Logits]


# ---------------------------------------------------------------- logistic regression


def regression(model: Model, settings: Train, task: Task) -> Logits:
    """scikit-learn on frozen features, TF-IDF of words and pairs, both side by side, and their late fusion."""
    labels = task.train.labels_N.numpy()
    parts = {"train": task.train, "val": task.val, "asked": task.asked}
    text = TfidfVectorizer(analyzer=list, sublinear_tf=True).fit(task.train.tokens)
    words = {name: text.transform(rows.tokens) for name, rows in parts.items()}
    photos = {name: rows.features_NWF[:, 0].float().numpy() for name, rows in parts.items()}
    photo = _fit(photos, labels, task, (0.001, 0.01))
    if not words["train"].nnz:
        return {"image": photo}
    word = _fit(words, labels, task, (1.0, 10.0))
    return {"image": photo, "text": word, "late": photo + word}


def _fit(x: dict[str, Any], labels: np.ndarray, task: Task, strengths: tuple[float, ...]) -> Tensor:
    """log p_NC of the rows asked about, by the strength that does best on validation."""
    best, kept = -1.0, make_pipeline(StandardScaler())
    for strength in strengths:
        steps = [LogisticRegression(C=strength, class_weight="balanced", max_iter=60)]
        if isinstance(x["train"], np.ndarray):
            steps = [StandardScaler(), *steps]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # 60 steps are its budget
            fitted = make_pipeline(*steps).fit(x["train"], labels)
        right = float((fitted.predict(x["val"]) == task.val.labels_N.numpy()).mean())
        if right > best:
            best, kept = right, fitted
    log_p = np.full((len(task.asked.ids), task.classes), -1e4, np.float32)
    log_p[:, kept[-1].classes_] = kept.predict_log_proba(x["asked"])
    return torch.from_numpy(log_p).clamp(min=-1e4)


# ---------------------------------------------------------------- published long-tail methods


class Focal(SICoT):
    """Lin et al., 2017: (1 - p_y)² · CE."""

    def _cross_entropy(self, z_BC: Tensor, labels_B: Tensor) -> Tensor:
        loss_B = functional.cross_entropy(z_BC, labels_B, reduction="none")
        return ((1 - (-loss_B).exp()) ** 2 * loss_B).mean()


class Ldam(SICoT):
    """Cao et al., 2019: cosine logits with a margin ∝ n^(-1/4), at most 0.5, s = 30; re-weighting in the last fifth."""

    deferred = False

    def _cross_entropy(self, z_BC: Tensor, labels_B: Tensor) -> Tensor:
        count_C = self.log_prior_C.exp()
        margin_C = count_C**-0.25
        margin_C = 0.5 * margin_C / margin_C.max()
        one_hot_BC = functional.one_hot(labels_B, z_BC.shape[1])
        weight_C = count_C**-1 / (count_C**-1).mean() if self.deferred else None
        return functional.cross_entropy(
            z_BC - self.classifier.log_scale.exp() * margin_C * one_hot_BC, labels_B, weight_C
        )


class Paco(SICoT):
    """After Cui et al., 2021: learnable class centres and the batch's other photos in one softmax (our reading).

    -Σ_k w_ik · log softmax_k over C centres (logit-adjusted) and B - 1 photos, w = 1 for the own centre and
    0.05 for photos of the class, normalised.
    """

    def forward(self, images_BHW3: Tensor, words_BT: Tensor, labels_B: Tensor) -> dict[str, Tensor]:
        v_BD = self.visual(images_BHW3)
        z_BC = self.classifier(v_BD) + self.log_prior_C
        itself_BB = torch.eye(len(v_BD), dtype=torch.bool)
        z_BB = (v_BD @ v_BD.T / 0.1).masked_fill(itself_BB, -1e4)
        same_BB = 0.05 * ((labels_B[:, None] == labels_B) & ~itself_BB)
        weight = torch.cat([functional.one_hot(labels_B, z_BC.shape[1]), same_BB], 1)
        log_p = torch.cat([z_BC, z_BB], 1).log_softmax(1)
        loss = -(weight * log_p).sum(1).div(weight.sum(1)).mean()
        return {"loss": loss, "visual": loss}


def _defer(net: SICoT, labels_N: Tensor, done: float) -> Tensor:
    net.deferred = done >= 0.8  # type: ignore[assignment]
    return shuffled(net, labels_N, done)


def _balanced(net: SICoT, labels_N: Tensor, done: float) -> Tensor:
    """As many rows, each class as often."""
    count_N = torch.bincount(labels_N)[labels_N].double()
    return torch.multinomial(1 / count_N, len(labels_N), replacement=True)


def _visual(model: Model, tau: float = 0.0, **changes: object) -> Model:
    return change(model, loss={**VISUAL, "tau": tau}, **changes)


def focal(model: Model, settings: Train, task: Task) -> Logits:
    """Focal loss."""
    return {"image": ask(train(_visual(model), settings, task, Focal), task.asked, "image")}


def ldam(model: Model, settings: Train, task: Task) -> Logits:
    """LDAM-DRW."""
    net = train(_visual(model, scale=30.0), settings, task, Ldam, _defer)
    return {"image": ask(net, task.asked, "image")}


def crt(model: Model, settings: Train, task: Task) -> Logits:
    """Kang et al., 2020: for a third of the budget a new classifier learns alone, from class-balanced samples."""
    last = max(1, settings.epochs // 3)
    first = settings.model_copy(update={"epochs": max(1, settings.epochs - last)})
    net = train(_visual(model), first, task)
    net.visual.project.requires_grad_(False)
    with torch.no_grad():
        net.classifier.weight.normal_(0, 1 / math.sqrt(net.classifier.weight.shape[1]))
    net = fit(net, settings.model_copy(update={"epochs": last}), task.train, _balanced)
    return {"image": ask(net, task.asked, "image")}


def paco(model: Model, settings: Train, task: Task) -> Logits:
    """PaCo-style centres."""
    return {"image": ask(train(_visual(model), settings, task, Paco), task.asked, "image")}


def balanced_softmax(model: Model, settings: Train, task: Task) -> Logits:
    """Ren et al., 2020: CE(z + log n) with a plain linear classifier."""
    net = train(_visual(model, tau=1.0, classifier="linear", scale=1.0), settings, task)
    return {"image": ask(net, task.asked, "image")}


def tau_norm(model: Model, settings: Train, task: Task) -> Logits:
    """Kang et al., 2020: rows of a plain classifier over their norm to the power τ, which validation chooses."""
    net = train(_visual(model, classifier="linear", scale=1.0), settings, task)
    norm_C = net.classifier.weight.detach().norm(dim=1)
    z_val = ask(net, task.val, "image")
    right = {
        tau: float(((z_val / norm_C**tau).argmax(1) == task.val.labels_N).float().mean())
        for tau in (0.0, 0.5, 1.0, 1.5, 2.0)
    }
    return {"image": ask(net, task.asked, "image") / norm_C ** max(right, key=lambda tau: right[tau])}


REGRESSION = "logistic regression"
RIVALS: dict[str, Rival] = {
    REGRESSION: regression,
    "balanced softmax": balanced_softmax,
    "cRT": crt,
    "tau-norm": tau_norm,
    "LDAM-DRW": ldam,
    "focal": focal,
    "PaCo-style": paco,
}
