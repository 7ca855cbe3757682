"""The search: Optuna proposes, Ray Tune runs trials side by side, ASHA stops those that fall behind."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from ray import tune

from sicot import cluster, storage, track
from sicot.config import Experiment
from sicot.errors import UserError
from sicot.prepare.pipeline import prepare
from sicot.prepare.prepared import PreparedSet
from sicot.search import proposals, quick, results, summary, trial, warm, work
from sicot.search.book import Book
from sicot.search.budget import Budget
from sicot.search.follow import Follow
from sicot.search.live import Live
from sicot.search.proposals import AIMS, Known
from sicot.search.space import Dimension, Point, distributions, standing
from sicot.search.trial import Rare
from sicot.search.work import Work
from sicot.track import Run
from sicot.train import compare, worker


def places(experiment: Experiment) -> int:
    """Logical CPUs a local cluster needs: the trials at a time, one to spare, and one more for preparing."""
    return ceil(experiment.tune.concurrent * experiment.tune.cpus_per_trial) + 2


def search(experiment: Experiment, space: Sequence[Dimension]) -> Book:
    """Search ``space`` from where the experiment stands, and write ``<folder>/best.yaml``; needs a running Ray session.

    Everything else is under ``<folder>/search``, and the settings of a Pareto front under ``<folder>/front``. A search
    that is finished is shown again; one that was cut off, or is given more, goes on. Only training and validation rows
    are looked at, never the test split.

    Raises:
        UserError: the cluster is too small, validation has no rows, ``<folder>/search`` is of other settings, the
            budget is used up before the first trial has ended, or that trial, the experiment as it stands, fails.
    """
    folder = f"{experiment.folder}/search"
    if experiment.fresh:
        storage.delete_folder(folder)
        experiment = experiment.model_copy(update={"fresh": False})
    asked = experiment.tune
    prepared = _prepared(experiment)
    task = Task(experiment, prepared, distributions(space, experiment), folder, *rare(prepared))
    book = task.book("trials", task.trained)
    over = task.is_done(book) or Budget(asked, 0.0, book.spent).over
    if over and storage.exists(results.best_file(experiment)):
        more = "more with a larger budget, such as --tune.trials, anew with --fresh"
        print(f"already searched, {len(book.ended)} trials: {folder} ({more})")
        summary.show(book, experiment, list(task.ranges))
        return book
    gpus = asked.gpus_per_trial if cluster.has_gpus(experiment.train.gpu) else 0.0
    if asked.gpu_hours and not gpus:
        raise UserError("tune.gpu_hours: trials use no GPU here: give tune.minutes or tune.trials")
    budget = Budget(task.trained.tune, gpus, book.spent)
    if budget.over:
        raise UserError(f"the search has used {budget}: give more of it, or --fresh")
    work.require(asked, gpus)
    worker.build(task.trained, prepared)  # finds out here, once, whether the settings fit together
    tags = {"sicot.data": prepared.manifest.digest, "sicot.measure": task.measure}
    with track.run(experiment, "search", experiment.name, resume=bool(book.trials), tags=tags) as run:
        overheads = (task.screen_and_train if asked.screen else task.try_all)(run, book, budget)
        first = book.trials[0]
        if first.state == "failed":
            raise UserError(f"trial 1, the experiment as it stands, failed: {first.reason}")
        if not first.ended:
            raise UserError(f"the search has used {budget} before trial 1, the experiment as it stands, has ended")
        results.write(experiment, book, run)
        run.metrics({"overhead_s": float(np.median(overheads)) if overheads else None})
    summary.show(book, experiment, list(task.ranges))
    summary.overhead(overheads)
    return book


def fingerprint(trained: Experiment, prepared: PreparedSet, ranges: dict[str, BaseDistribution]) -> str:
    """Names what a search is of; what it is given, and how many trials run at a time, may change while it goes on."""
    settings = trained.model_dump(mode="json", include={"model": True, "train": True, "tune": True})
    settings["tune"] = {
        name: settings["tune"][name] for name in ("objective", "tail_weight", "epochs", "grace", "folds")
    }
    parts = [settings, prepared.manifest.digest, {name: repr(each) for name, each in ranges.items()}]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Task:
    """A search: from where, on what, in which ranges."""

    experiment: Experiment
    prepared: PreparedSet
    ranges: dict[str, BaseDistribution]
    folder: str
    rare: Rare
    rows: tuple[int, int]
    """Of validation, and those of tail classes among them."""

    @property
    def first(self) -> Point:
        """The experiment as it stands."""
        return standing(self.ranges, self.experiment)

    @property
    def trained(self) -> Experiment:
        """The experiment as one process trains it; after screening, for as long as the experiment itself says."""
        asked = self.experiment.tune
        return _for(self.experiment, self.experiment.train.epochs if asked.screen else asked.epochs, asked.trials)

    @property
    def screened(self) -> Experiment:
        """The experiment as it is screened: its trunk is kept, on the CPU."""
        one = _for(self.experiment, self.experiment.tune.epochs, self.experiment.tune.trials)
        visual = one.model.visual.model_copy(update={"freeze": 1.0})
        train = one.train.model_copy(update={"precision": "fp32"})  # small steps are faster in it
        return one.model_copy(update={"model": one.model.model_copy(update={"visual": visual}), "train": train})

    @property
    def measure(self) -> str:
        """Searches whose figures can be compared have the same."""
        asked = self.trained.tune
        aim = f"{1 - asked.tail_weight:g} overall + {asked.tail_weight:g} {self.rare}"
        return f"{aim} after {asked.epochs} epochs on {self.prepared.manifest.digest[:12]}"

    def book(self, name: str, trained: Experiment) -> Book:
        """The book of trials that train so."""
        return Book(f"{self.folder}/{name}.json", fingerprint(trained, self.prepared, self.ranges))

    def try_all(self, run: Run, book: Book, budget: Budget) -> list[float]:
        """Trials of the experiment, sampled one after the other. Gives each one's seconds beside its training."""
        each = self._work("trial", self.trained, book, budget.gpus)
        known, tips = warm.start(self.experiment, self.ranges, self.measure, run.id)
        return self._search(run, each, budget, known, [self.first, *tips])

    def screen_and_train(self, run: Run, book: Book, budget: Budget) -> list[float]:
        """Trials on cached features; then the first and the best of them in full. Gives seconds as `try_all` does."""
        chosen, overheads = self.book("screened", self.screened), []
        part = Budget(self.screened.tune, 0.0, book.spent, share=0.5)
        if len(chosen.ended) < self.experiment.tune.trials and not part.over:
            known, tips = warm.start(self.experiment, self.ranges, self.measure, run.id, screening=True)
            each = self._work("screening", self.screened, chosen, 0.0)
            overheads = self._search(run, each, part, known, [self.first, *tips])
        run.dict(chosen.dump(), "screened.json")
        ended, left = [trial.point for trial in book.ended], [trial.point for trial in book.left]
        missing = left + [point for point in self._promising(chosen) if point not in ended + left]
        trained = _for(self.trained, self.trained.train.epochs, len(ended) + len(missing))
        print(f"\ntraining {len(missing)} points in full, for {trained.train.epochs} epochs; {len(ended)} are done")
        each = self._work("trial", trained, book, budget.gpus)
        return overheads + self._run(run, each, budget, [], missing, halve=False)

    def is_done(self, book: Book) -> bool:
        """Whether all that was asked for has a result."""
        asked = self.experiment.tune
        if not asked.screen:
            return len(book.ended) >= asked.trials
        chosen = self.book("screened", self.screened)
        ended = [trial.point for trial in book.ended]
        return len(chosen.ended) >= asked.trials and all(point in ended for point in self._promising(chosen))

    def _promising(self, book: Book) -> list[Point]:
        """What deserves to be trained in full: the first point, and the best, of a Pareto search the front's first."""
        front = book.front if self.experiment.tune.objective == "pareto" else []
        best = [trial.point for trial in (*reversed(front), *book.ranked)]
        points = [self.first, *(point for point in best if point != self.first)]
        return [point for place, point in enumerate(points) if point not in points[:place]][
            : self.experiment.tune.screen + 1
        ]

    def _search(self, run: Run, each: Work, budget: Budget, known: list[Known], first: list[Point]) -> list[float]:
        summary.announce(each, self.rows, self.rare)
        halve = self.experiment.tune.objective == "weighted"
        return self._run(run, each, budget, known, first, halve)

    def _run(
        self, run: Run, each: Work, budget: Budget, known: list[Known], first: list[Point], halve: bool
    ) -> list[float]:
        """Run what of the trials is missing; points that were begun go first, then those of ``first``."""
        asked, book = each.experiment.tune, each.book
        if not book.trials:
            book.start(self.first)  # number 1, whichever process is up first
        sampler = proposals.tpe(asked, len(book.trials))
        proposing = proposals.going_on(AIMS[asked.objective], self.ranges, book, known, first, sampler)
        scheduler = work.halving(asked, self.first) if halve else None
        pictures = "plots" if each.kind == "trial" else f"plots/{each.kind}"
        with Live(run, book, self.ranges, pictures), Follow(each, run, budget) as follow:
            if each.left > 0:
                work.run(each, proposing, scheduler, follow, budget)
        return follow.overheads

    def _work(self, kind: Any, experiment: Experiment, book: Book, gpus: float) -> Work:
        checkpoints = f"{self.folder}/checkpoints"
        said = {"settings": experiment.model_dump(mode="json"), "prepared": self.prepared.root, "rare": self.rare}
        if kind == "screening":
            trainable = tune.with_parameters(quick.run, rows=quick.rows(experiment, self.prepared), **said)
        else:
            trainable = tune.with_parameters(trial.run, checkpoints=checkpoints, gpu=gpus > 0, **said)
        return Work(kind, experiment, self.ranges, trainable, gpus, book, checkpoints)


def _for(experiment: Experiment, epochs: int, trials: int) -> Experiment:
    """The experiment as one process trains it, to the end; it is ASHA that stops early."""
    one = compare.with_seed(experiment, experiment.train.seed)
    train = one.train.model_copy(update={"epochs": epochs, "patience": 0})
    return one.model_copy(
        update={"train": train, "tune": one.tune.model_copy(update={"epochs": epochs, "trials": trials})}
    )


def _prepared(experiment: Experiment) -> PreparedSet:
    """The run's prepared set, prepared now if there is none."""
    root = f"{experiment.folder}/prepared"
    return PreparedSet.open(root) if storage.exists(f"{root}/manifest.json") else prepare(experiment)


def rare(prepared: PreparedSet) -> tuple[Rare, tuple[int, int]]:
    """Which accuracy speaks for rare products; rows of validation, and those of tail classes among them."""
    tables = [storage.read_table(uri, ["label"])["label"].to_numpy() for uri in prepared.uris("val")]
    labels = np.concatenate(tables) if tables else np.empty(0, int)
    if not len(labels):
        raise UserError(
            "the prepared set has no validation rows to search on: prepare with catalogue.split.val above 0"
        )
    tail = int((prepared.classes.group[labels] == "tail").sum())
    return "tail" if tail else "macro", (len(labels), tail)
