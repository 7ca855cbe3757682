"""One training of the ladder: what it is, and what it scores."""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.ladder import heads
from benchmarks.ladder.rivals import RIVALS
from benchmarks.ladder.rungs import TWO, TwoClassifiers
from benchmarks.ladder.table import score
from sicot import config
from sicot.model.recognizer import SICoT
from sicot.prepare.prepared import PreparedSet
from sicot.train import features
from sicot.train.heads import ask, fold, take

FOLDS = 5
SWAPPED = 0.3


@dataclass(frozen=True)
class Column:
    """A data set as it is with one text column."""

    prepared: PreparedSet
    rows: dict[str, features.Rows]
    other: dict[str, features.Rows]
    """The same rows with the words of the other column; empty where there is none."""


@dataclass(frozen=True)
class Trial:
    """One training: a rung or rival, the text column it learns from, and its number among the seeds."""

    name: str
    model: config.Model
    train: config.Train
    column: str
    final: bool

    def key(self, column: Column) -> str:
        """Names the result: everything that it depends on."""
        said = [self.model.model_dump(mode="json"), self.train.model_dump(mode="json"), self.final]
        said += [column.prepared.manifest.digest, column.rows["train"].features_NWF.shape]
        return (
            f"{self.name}/{self.column}/{self.train.seed}/{hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]}"
        )


def columns(sets: dict[str, PreparedSet], options: argparse.Namespace, cache: str) -> dict[str, Column]:
    """The data set by text column; the test split is left unread but for `--final`."""
    splits = ("train", "val", "test") if options.final else ("train", "val")
    visual = config.Visual(weights=options.weights, freeze=1)
    torch.manual_seed(0)  # of a trunk without weights
    rows = {
        column: features.load(prepared, visual, config.Augment(), options.views, cache, splits)
        for column, prepared in sets.items()
    }
    found = {}
    for column, prepared in sets.items():
        words = {word: i for i, word in enumerate(prepared.vocabulary["word"].to_pylist(), 1)}
        others = [rows[other] for other in sets if other != column]
        other = {split: heads.with_words(rows[column][split], others[0][split], words) for split in splits if others}
        found[column] = Column(prepared, rows[column], other)
    return found


def shipped(weights: str | None) -> config.Model:
    """The shipped model on a trunk that is kept."""
    model = config.Model()
    trunk = model.visual.model_copy(update={"freeze": 1.0, "dropout": 0.4, "weights": weights})
    return model.model_copy(update={"visual": trunk})


def training(epochs: int, seed: int = 0) -> config.Train:
    """How what stands on such a trunk is trained."""
    return config.Train(
        epochs=epochs, batch_size=128, learning_rate=2e-3, weight_decay=0.1, precision="fp32", seed=seed
    )


def measure(trial: Trial, column: Column) -> dict[str, Any]:
    """Train, and score every regime that the trial can be asked in."""
    torch.set_num_threads(1)
    begun = time.perf_counter()
    prepared, seed = column.prepared, trial.train.seed
    train, asked, split = column.rows["train"], column.rows.get("test"), "test"
    if not trial.final or asked is None:
        inside, outside = fold(train.ids, train.labels_N.numpy(), seed, FOLDS)
        train, asked, split = take(train, inside), take(train, outside), "train"
    task = heads.Task(
        prepared.manifest.images.size,
        train,
        column.rows["val"],
        asked,
        torch.from_numpy(prepared.word_vectors()),
        torch.from_numpy(prepared.idf),
        len(prepared.classes),
    )
    logits = _answers(trial, task, heads.select(column.other[split], asked.ids) if column.other else None)
    label = trial.column if trial.column != "title" else "text"
    names = {"both": f"image_{label}", "late": f"image_{label}", "swapped": f"image_{label}_30_swapped"}
    labels = asked.labels_N.numpy()
    scores = {
        names.get(regime, regime): score(labels, z_NC.argmax(1).numpy(), prepared.classes)
        for regime, z_NC in logits.items()
    }
    return {"scores": scores, "seconds": time.perf_counter() - begun}


def _answers(trial: Trial, task: heads.Task, other: features.Rows | None) -> dict[str, torch.Tensor]:
    if trial.name in RIVALS:
        return RIVALS[trial.name](trial.model, trial.train, task)
    net = heads.train(trial.model, trial.train, task, TwoClassifiers if TWO in trial.name else SICoT)
    logits = {"image": ask(net, task.asked, "image")}
    if trial.model.uses_words and (task.asked.words_NT > 0).any():
        logits |= {"both": ask(net, task.asked, "both"), "text": ask(net, task.asked, "text")}
        if trial.name in ("default", "changed"):
            logits["swapped"] = ask(net, heads.swapped(task.asked, SWAPPED), "both")
            if other is not None and trial.column == "title":
                logits["image_title_nolabel"] = ask(net, other, "both")
    return logits
