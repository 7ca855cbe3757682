"""The settings found and the defaults, trained again with fresh seeds: cross-validated, and on the test split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from tqdm import tqdm

from benchmarks.ladder import trial
from benchmarks.ladder.trial import FOLDS, Column, Trial
from sicot import storage
from sicot.search.book import Book
from sicot.search.space import apply
from sicot.search.tuner import Task
from sicot.train.compare import paired_difference

FRESH = 1000  # the first seed; searches train with seed 0
DEFAULTS, FOUND = "defaults", "found"
FIGURES = ("objective", "overall", "tail")


@dataclass(frozen=True)
class Again:
    """Figures of one training."""

    what: str
    split: str
    seed: int
    """Of the five that share it, each holds out another fold; on the test split there is one."""
    figures: dict[str, float]


def train(task: Task, column: Column, name: str, book: Book, seeds: int) -> list[Again]:
    """Train both, side by side; finished trainings are kept.

    Args:
        task: what was searched.
        column: the data.
        name: of its text column.
        book: of the search.
        seeds: how many.
    """
    best = book.best
    assert best is not None
    models = {DEFAULTS: task.experiment, FOUND: apply(task.experiment, best.point)}
    wanted: dict[str, tuple[str, str, int, Trial]] = {}
    for what, experiment in models.items():
        for seed in range(seeds):
            settings = [(FRESH + FOLDS * seed + fold, False) for fold in range(FOLDS)] + [(FRESH + seed, True)]
            for number, final in settings:
                trained = experiment.train.model_copy(update={"seed": number})
                one = Trial(what, experiment.model, trained, name, final)
                wanted[one.key(column)] = (what, "test" if final else "folds of train", seed, one)
    results = _run(wanted, column, f"{task.folder}/again.json")
    weight = task.experiment.tune.tail_weight
    return [
        Again(what, split, seed, _figures(results[key], one, weight))
        for key, (what, split, seed, one) in wanted.items()
    ]


def _run(wanted: dict[str, tuple[str, str, int, Trial]], column: Column, note: str) -> dict[str, Any]:
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


def _figures(scores: dict[str, Any], one: Trial, tail_weight: float) -> dict[str, float]:
    """As a search weighs them: the mean of photo alone and with the words it was trained on."""
    words = "text" if one.column == "title" else one.column
    regimes = [scores[regime] for regime in ("image", f"image_{words}")]
    overall, tail = (float(np.mean([regime[share] for regime in regimes])) for share in ("top1", "tail"))
    return {"objective": (1 - tail_weight) * overall + tail_weight * tail, "overall": overall, "tail": tail}


def means(trained: list[Again], what: str, split: str, figure: str) -> list[float]:
    """By seed, the mean over the folds, percent."""
    seeds = sorted({each.seed for each in trained})
    return [
        100 * float(np.mean([a.figures[figure] for a in trained if (a.what, a.split, a.seed) == (what, split, seed)]))
        for seed in seeds
    ]


def rows(trained: list[Again]) -> list[dict[str, Any]]:
    """A row for each split and way, then the difference with its 95 % interval over seeds."""
    said = []
    for split in ("folds of train", "test"):
        for what in (DEFAULTS, FOUND):
            figures = {figure: round(float(np.mean(means(trained, what, split, figure))), 2) for figure in FIGURES}
            said.append({"part": "found", "what": what, "on": split, **figures})
        row: dict[str, Any] = {"part": "found", "what": "difference", "on": split}
        for figure in FIGURES:
            pairs = zip(*(means(trained, what, split, figure) for what in (FOUND, DEFAULTS)), strict=True)
            gain = paired_difference([found - default for found, default in pairs])
            row[figure] = f"{gain['mean']:+.2f}" + (f" ± {gain['ci95']:.2f}" if gain["ci95"] is not None else "")
        said.append(row)
    return said
