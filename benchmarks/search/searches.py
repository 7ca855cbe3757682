"""Searches on cached features: the one that is shipped, random ones, and ASHA on the same points as these."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.samplers import BaseSampler, RandomSampler
from ray import tune

from benchmarks import record
from benchmarks.ladder.trial import Column
from sicot import config
from sicot.config import Experiment
from sicot.search import proposals, quick, work
from sicot.search.book import Book
from sicot.search.budget import Budget
from sicot.search.follow import Follow
from sicot.search.space import Point, distributions
from sicot.search.tuner import Task, rare
from sicot.search.work import Work
from sicot.track import Run
from tuning.space import SPACE

RANDOM, ASHA, TPE = "random, to the end", "ASHA, the same points", "ASHA and TPE"


@dataclass(frozen=True)
class Searched:
    """A search that has ended."""

    way: str
    seed: int
    book: Book
    overheads: list[float]

    @property
    def epochs(self) -> int:
        """Trained by all of its trials."""
        return sum(len(trial.epochs) for trial in self.book.trials)

    def curve(self) -> list[tuple[int, float]]:
        """Best objective of the trials trained to the end so far, by the epochs that all had trained by then."""
        points, best = [], 0.0
        for trial in sorted(self.book.ranked, key=lambda trial: trial.after):
            best = max(best, trial.objective or 0.0)
            points.append((trial.after, best))
        return points

    def reached(self, objective: float) -> int | None:
        """Epochs after which the best was that good; None if it never was."""
        return next((epochs for epochs, best in self.curve() if best >= objective), None)


@dataclass(frozen=True)
class Races:
    """By seed, a random search trained to the end and what ASHA makes of its epochs."""

    each: list[Searched]

    def by_seed(self) -> Iterable[dict[str, Searched]]:
        """Searches of each seed by their way."""
        for seed in sorted({one.seed for one in self.each}):
            yield {one.way: one for one in self.each if one.seed == seed}

    def rows(self) -> list[dict[str, Any]]:
        """A row for each search."""
        rows = []
        for ways in self.by_seed():
            random = ways[RANDOM]
            goal = random.curve()[-1][1]
            for way, one in ways.items():
                after = one.reached(goal)
                rows.append(
                    {
                        "part": "budget",
                        "what": way,
                        "seed": one.seed,
                        "trials": len(one.book.trials),
                        "epochs": one.epochs,
                        "best": round(100 * one.curve()[-1][1], 2),
                        "reached after": after if after is not None else "never",
                        "share of epochs": round(after / random.epochs, 3) if after is not None else "",
                    }
                )
        return rows


def task(options: argparse.Namespace, column: Column, folder: str) -> Task:
    """What is searched: every setting as it is by default, on a trunk that is kept."""
    experiment = Experiment(
        name=f"search-{options.data}",
        model=config.Model(visual=config.Visual(weights=options.weights, freeze=1.0)),
        train=config.Train(epochs=options.epochs, precision="fp32"),
        tune=config.Tune(
            trials=options.trials, epochs=options.epochs, concurrent=record.cores(), screen=1, folds=options.folds
        ),
    )
    return Task(experiment, column.prepared, distributions(SPACE, experiment), folder, *rare(column.prepared))


def found(task: Task, column: Column, run: Run, trials: int, tail_weights: list[float]) -> dict[float, Searched]:
    """The search that is shipped, by what it weighs the tail with."""
    return {
        weight: tuned(task, column, run, f"found-{weight:g}", {"trials": trials, "tail_weight": weight})
        for weight in tail_weights
    }


def tuned(task: Task, column: Column, run: Run, name: str, settings: dict[str, Any]) -> Searched:
    """The defaults first, then TPE's proposals, ASHA on their epochs."""
    asked = task.experiment.tune.model_copy(update=settings)
    return _search(task, column, run, name, TPE, asked, [task.first], None)


def races(task: Task, column: Column, run: Run, trials: int, seeds: int) -> Races:
    """Random searches, and ASHA on the same points, and with TPE for up to as many epochs."""
    each = []
    for seed in range(seeds):
        asked = task.experiment.tune.model_copy(update={"trials": trials, "seed": seed})
        points = _points(task, trials, seed)
        for way, name in ((RANDOM, "random"), (ASHA, "asha")):
            each.append(_search(task, column, run, f"{name}-{seed}", way, asked, points, RandomSampler(seed)))
        each.append(tuned(task, column, run, f"tpe-{seed}", {"trials": 2 * trials, "seed": seed}))
    return Races(each)


def _points(task: Task, trials: int, seed: int) -> list[Point]:
    """Random points, after that of the defaults."""
    study = optuna.create_study(sampler=RandomSampler(seed))
    return [task.first, *(study.ask(task.ranges).params for _ in range(trials - 1))]


def _search(
    task: Task,
    column: Column,
    run: Run,
    name: str,
    way: str,
    asked: config.Tune,
    first: list[Point],
    sampler: BaseSampler | None,
) -> Searched:
    """Run what is missing of a search; it keeps a book."""
    experiment = task.screened.model_copy(update={"name": f"{task.experiment.name}-{name}", "tune": asked})
    book = task.book(name, experiment)
    trainable = tune.with_parameters(
        quick.run,
        settings=experiment.model_dump(mode="json"),
        prepared=task.prepared.root,
        rare=task.rare,
        rows={split: column.rows[split] for split in ("train", "val")},
    )
    each = Work("screening", experiment, task.ranges, trainable, 0.0, book, f"{task.folder}/checkpoints")
    if not each.left:
        return Searched(way, asked.seed, book, [])
    if not book.trials:
        book.start(task.first)
    print(f"\n── {name}: {way}, {each.left} trials", flush=True)
    sampler = sampler or proposals.tpe(asked, len(book.trials))
    proposing = proposals.going_on(["objective"], task.ranges, book, [], first, sampler)
    budget = Budget(asked, 0.0, book.spent)
    scheduler = None if way == RANDOM else work.halving(asked, task.first)
    with Follow(each, run, budget) as follow:
        work.run(each, proposing, scheduler, follow, budget)
    return Searched(way, asked.seed, book, follow.overheads)


def overhead(searched: list[Searched]) -> list[dict[str, Any]]:
    """Seconds of a trial beside its training, of those that were run just now."""
    seconds = [each for one in searched for each in one.overheads]
    if not seconds:
        return []
    said = {"part": "overhead", "what": "a trial beside its training", "trials": len(seconds)}
    worst = sorted(seconds)[int(0.9 * (len(seconds) - 1))]
    return [{**said, "seconds": round(statistics.median(seconds), 2), "90 %": round(worst, 2)}]
