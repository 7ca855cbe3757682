"""The settings found and the defaults, trained again with fresh seeds: cross-validated, and on the test split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from tqdm import tqdm

from benchmarks.ladder import trial
from benchmarks.ladder.trial import FOLDS, Column, Trial
from sicot import storage
from sicot.config import Experiment
from sicot.search.book import Book
from sicot.search.space import apply
from sicot.search.tuner import Task
from sicot.train.compare import paired_difference

FRESH = 1000  # the first seed; searches train with seed 0
DEFAULTS, FOUND = "defaults", "found"
SPLITS = ("folds of train", "test")
What = float | None
"""Settings that are trained: those found by a search that weighs the tail so, or None for the defaults."""


@dataclass(frozen=True)
class Again:
    """Figures of one training."""

    what: What
    split: str
    seed: int
    """Of the five that share it, each holds out another fold; on the test split there is one."""
    overall: float
    tail: float

    def objective(self, tail_weight: float) -> float:
        """As a search weighs the two."""
        return (1 - tail_weight) * self.overall + tail_weight * self.tail


Figure = Callable[[Again], float]


def train(task: Task, column: Column, name: str, books: dict[float, Book], seeds: int) -> list[Again]:
    """Train the defaults and what was found, side by side; finished trainings are kept.

    Args:
        task: what was searched.
        column: the data.
        name: of its text column.
        books: of the searches, by what they weigh the tail with.
        seeds: how many.
    """
    models: dict[What, Experiment] = {None: task.experiment}
    for weight, book in books.items():
        assert book.best is not None
        models[weight] = apply(task.experiment, book.best.point)
    wanted: dict[str, tuple[What, str, int, Trial]] = {}
    for what, experiment in models.items():
        for seed in range(seeds):
            settings = [(FRESH + FOLDS * seed + fold, False) for fold in range(FOLDS)] + [(FRESH + seed, True)]
            for number, final in settings:
                trained = experiment.train.model_copy(update={"seed": number})
                one = Trial(DEFAULTS if what is None else f"{FOUND}-{what:g}", experiment.model, trained, name, final)
                wanted[one.key(column)] = (what, SPLITS[final], seed, one)
    results = _run(wanted, column, f"{task.folder}/again.json")
    return [Again(what, split, seed, *_figures(results[key], one)) for key, (what, split, seed, one) in wanted.items()]


def _run(wanted: dict[str, tuple[What, str, int, Trial]], column: Column, note: str) -> dict[str, Any]:
    kept = storage.read_json(note) if storage.exists(note) else {}
    work, data = ray.remote(num_cpus=2)(trial.measure), ray.put(column)
    waiting = {work.remote(one, data): key for key, (*_, one) in wanted.items() if key not in kept}
    with tqdm(desc="trained again", total=len(wanted), initial=len(wanted) - len(waiting), unit=" trainings") as bar:
        while waiting:
            done, _ = ray.wait(list(waiting))
            kept[waiting.pop(done[0])] = ray.get(done[0])["scores"]
            storage.write_json(note, kept)
            bar.update()
    return kept


def _figures(scores: dict[str, Any], one: Trial) -> tuple[float, float]:
    """Overall and tail accuracy as a search has them: the mean of photo alone and with the words it was trained on."""
    words = "text" if one.column == "title" else one.column
    regimes = [scores[regime] for regime in ("image", f"image_{words}")]
    overall, tail = (float(np.mean([regime[share] for regime in regimes])) for share in ("top1", "tail"))
    return overall, tail


def means(trained: list[Again], what: What, split: str, figure: Figure) -> list[float]:
    """By seed, the mean over the folds, percent."""
    seeds = sorted({each.seed for each in trained})
    return [
        100 * float(np.mean([figure(a) for a in trained if (a.what, a.split, a.seed) == (what, split, seed)]))
        for seed in seeds
    ]


def weights(trained: list[Again]) -> list[float]:
    """Of the tail, in the searches whose findings were trained."""
    return list(dict.fromkeys(each.what for each in trained if each.what is not None))


def rows(trained: list[Again]) -> list[dict[str, Any]]:
    """For each weight and split a row of the defaults, of what was found, and of the difference.

    That with its 95 % interval over seeds.
    """
    return [row for weight in weights(trained) for split in SPLITS for row in _compared(trained, weight, split)]


def _compared(trained: list[Again], weight: float, split: str) -> list[dict[str, Any]]:
    figures: dict[str, Figure] = {
        "objective": lambda each: each.objective(weight),
        "overall": lambda each: each.overall,
        "tail": lambda each: each.tail,
    }
    said: dict[str, dict[str, Any]] = {
        what: {"part": "found", "tail weight": weight, "what": what, "on": split}
        for what in (DEFAULTS, FOUND, "difference")
    }
    for name, figure in figures.items():
        before, after = (means(trained, what, split, figure) for what in (None, weight))
        said[DEFAULTS][name], said[FOUND][name] = (round(float(np.mean(each)), 2) for each in (before, after))
        gain = paired_difference([found - default for found, default in zip(after, before, strict=True)])
        sure = f" ± {gain['ci95']:.2f}" if gain["ci95"] is not None else ""
        said["difference"][name] = f"{gain['mean']:+.2f}{sure}"
    return list(said.values())
