"""The search: Optuna proposes, Ray Tune runs trials side by side, ASHA stops those that fall behind."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from ray import tune
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch

from sicot import cluster, storage, track
from sicot.config import Experiment
from sicot.errors import UserError
from sicot.prepare.pipeline import prepare
from sicot.prepare.prepared import PreparedSet
from sicot.search import plots, screen, trial
from sicot.search.book import Book, Trial
from sicot.search.follow import Follow
from sicot.search.gauges import Gauges
from sicot.search.space import Dimension, Point, apply, distributions, standing
from sicot.search.trial import Rare
from sicot.train import compare, worker

HALVING = 3  # of the trials that reach a rung, ASHA lets about one in so many go on
FIRST_AT_RANDOM = 10  # trials before Optuna models what it has seen; at most a third of them


def places(experiment: Experiment) -> int:
    """Logical CPUs a local cluster needs: the trials at a time, one to spare, and one more for preparing."""
    return experiment.tune.concurrent + 2


def search(experiment: Experiment, space: Sequence[Dimension]) -> Book:
    """Search ``space`` from where the experiment stands, and write ``<folder>/best.yaml``; needs a running Ray session.

    Everything is under ``<folder>/search``. A search that is finished is shown again; one that was cut off, or is
    given more ``tune.trials``, goes on. Only training and validation rows are looked at, never the test split.

    Raises:
        UserError: the cluster is too small, validation has no rows, ``<folder>/search`` is of other settings, or
            the first trial, the experiment as it stands, fails.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder = f"{experiment.folder}/search"
    tuned = experiment.tune
    if experiment.fresh:
        storage.delete_folder(folder)
        experiment = experiment.model_copy(update={"fresh": False})
    prepared = _prepared(experiment)
    rare, rows = _rare(prepared)
    trained = _as_trials_train(experiment)
    ranges = distributions(space, experiment)
    book = Book(f"{folder}/trials.json", fingerprint(trained, prepared, ranges))
    best_file = f"{experiment.folder}/best.yaml"
    if len(book.ended) >= tuned.trials and storage.exists(best_file):
        print(f"already searched, {len(book.ended)} trials: {folder} (more with --tune.trials, anew with --fresh)")
        screen.show(book, list(ranges), best_file)
        return book
    gpu = cluster.has_gpus(experiment.train.gpu)
    cluster.require(tuned.concurrent + 1, int(gpu), f"a search with {tuned.concurrent} trials at a time")
    worker.build(trained, prepared)  # finds out here, once, whether the settings fit together
    if len(book.ended) < tuned.trials:
        screen.announce(trained, list(ranges), rows, rare, len(book.ended))
    tags = {"sicot.data": prepared.manifest.digest}
    with track.run(experiment, "search", experiment.name, resume=bool(book.trials), tags=tags) as run:
        if len(book.ended) < tuned.trials:
            with Follow(trained, book, run, f"{folder}/checkpoints") as follow:
                _tune(trained, prepared, book, ranges, follow, rare, gpu, folder)
        first, best = book.trials[0], book.best
        if not first.ended or best is None:
            raise UserError(f"trial 1, the experiment as it stands, failed: {first.reason}")
        found = best_experiment(experiment, best.point)
        storage.write_bytes(best_file, found.dump())
        run.dict(found.model_dump(mode="json"), "best.yaml")
        _keep(run, book, first, best, ranges)
    screen.show(book, list(ranges), best_file)
    return book


def best_experiment(experiment: Experiment, point: Point) -> Experiment:
    """The experiment to train with the values found, under a name of its own."""
    return apply(experiment.model_copy(update={"name": f"{experiment.name[:59]}-best"}), point)


def fingerprint(trained: Experiment, prepared: PreparedSet, ranges: dict[str, BaseDistribution]) -> str:
    """Names what a search is of; the number of trials and of those at a time may change while it goes on."""
    settings = trained.model_dump(mode="json", include={"model": True, "train": True, "tune": True})
    for free in ("trials", "concurrent", "seed"):
        del settings["tune"][free]
    parts = [settings, prepared.manifest.digest, {name: repr(each) for name, each in ranges.items()}]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class Halving(ASHAScheduler):
    """ASHA that never stops the first trial: the gain is measured against it, to the end."""

    def __init__(self, first: Point, **settings: Any):
        super().__init__(**settings)
        self.first = first

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        action = super().on_trial_result(tune_controller, trial, result)
        spared = trial.config == self.first and result["epoch"] < self._max_t
        return TrialScheduler.CONTINUE if spared else action


def _tune(
    trained: Experiment,
    prepared: PreparedSet,
    book: Book,
    ranges: dict[str, BaseDistribution],
    follow: Follow,
    rare: Rare,
    gpu: bool,
    folder: str,
) -> None:
    """Run the trials that are missing."""
    config, first = trained.tune, standing(ranges, trained)
    if not book.trials:
        book.start(first)  # number 1, whichever process is up first
    for name, value in {
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # CSV, JSON and TensorBoard files: the book has it all
        "TUNE_DISABLE_SIGINT_HANDLER": "1",  # else Ctrl-C looks like the end of the search
        "RAY_AIR_NEW_OUTPUT": "0",  # the new one prints a box even when it is told to be silent
    }.items():
        os.environ.setdefault(name, value)
    storage.delete_folder(f"{folder}/tune")  # nobody reads what Tune keeps there, but for the errors of failed trials
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # Follow says it in a line
    trainable = tune.with_parameters(
        trial.run,
        settings=trained.model_dump(mode="json"),
        prepared=prepared.root,
        rare=rare,
        checkpoints=follow.checkpoints,
        gpu=gpu,
    )
    tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1, "gpu": int(gpu)}),
        tune_config=tune.TuneConfig(
            num_samples=config.trials - len(book.ended),
            max_concurrent_trials=config.concurrent,
            search_alg=_optuna(config.trials, config.seed, book, ranges),
            scheduler=Halving(
                first,
                time_attr="epoch",
                metric="objective",
                mode="max",
                max_t=config.epochs,
                grace_period=min(config.grace, config.epochs),
                reduction_factor=HALVING,
            ),
            reuse_actors=True,  # a second a trial instead of two
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=folder,
            callbacks=[follow, Gauges(trained.name, config.trials, book)],
            failure_config=tune.FailureConfig(max_failures=1),
            verbose=0,
        ),
    ).fit()


def _optuna(trials: int, seed: int, book: Book, ranges: dict[str, BaseDistribution]) -> OptunaSearch:
    """Optuna with what the book already knows, to begin with the trials there that have no result yet."""
    begin = [each.point for each in book.left]
    sampler = TPESampler(
        seed=seed + len(book.trials),  # the same seed again would propose the same trials again
        n_startup_trials=min(FIRST_AT_RANDOM, max(3, trials // 3)),
    )
    proposing = OptunaSearch(ranges, metric="objective", mode="max", points_to_evaluate=begin, sampler=sampler)
    for each in book.ended:
        values = [epoch["objective"] for epoch in each.epochs]
        proposing.add_evaluated_point(each.point, values[-1], intermediate_values=values)
    return proposing


def _prepared(experiment: Experiment) -> PreparedSet:
    """The run's prepared set, prepared now if there is none."""
    root = f"{experiment.folder}/prepared"
    return PreparedSet.open(root) if storage.exists(f"{root}/manifest.json") else prepare(experiment)


def _rare(prepared: PreparedSet) -> tuple[Rare, tuple[int, int]]:
    """Which accuracy speaks for rare products; rows of validation, and those of tail classes among them."""
    tables = [storage.read_table(uri, ["label"])["label"].to_numpy() for uri in prepared.uris("val")]
    labels = np.concatenate(tables) if tables else np.empty(0, int)
    if not len(labels):
        raise UserError(
            "the prepared set has no validation rows to search on: prepare with catalogue.split.val above 0"
        )
    tail = int((prepared.classes.group[labels] == "tail").sum())
    return "tail" if tail else "macro", (len(labels), tail)


def _as_trials_train(experiment: Experiment) -> Experiment:
    """The experiment as one process trains it, for ``tune.epochs``; it is ASHA that stops early."""
    one = compare.with_seed(experiment, experiment.train.seed)
    update = {"epochs": experiment.tune.epochs, "patience": 0}
    return one.model_copy(update={"train": one.train.model_copy(update=update)})


def _keep(run: track.Run, book: Book, first: Trial, best: Trial, ranges: dict[str, BaseDistribution]) -> None:
    """What the search's MLflow run keeps."""
    objective = {"first": first.epochs[-1]["objective"], "best": best.epochs[-1]["objective"]}
    run.metrics({"objective": objective, "gain": objective["best"] - objective["first"]})
    run.tags({"sicot.best": best.number})
    run.dict(book.dump(), "trials.json")
    figures = plots.draw(book.trials, ranges)
    for name, figure in figures.items():
        run.figure(figure, f"plots/{name}")
    run.show(f"plots/{name}" for name in figures)
