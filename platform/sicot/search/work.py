"""Trials of a kind, and how Ray Tune runs them side by side."""

from __future__ import annotations

import logging
import os
import tempfile
from dataclasses import dataclass
from math import ceil
from typing import Any, Literal

import ray
from optuna.distributions import BaseDistribution
from ray import tune
from ray.tune import Callback, Stopper
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch

from sicot import cluster
from sicot.config import Experiment, Tune
from sicot.errors import UserError
from sicot.search.book import Book
from sicot.search.gauges import Gauges
from sicot.search.space import Point

HALVING = 4  # of the trials that reach a rung, ASHA lets about one in so many go on


@dataclass(frozen=True)
class Work:
    """Trials of a kind."""

    kind: Literal["trial", "screening"]
    """Also of their MLflow runs: `screening` are those on cached features, before the trials."""
    experiment: Experiment
    """What a trial trains before its values are put in; `tune.trials` says how many."""
    ranges: dict[str, BaseDistribution]
    trainable: Any
    """Tune's function, given all but the point."""
    gpus: float
    """GPUs of a trial."""
    book: Book
    checkpoints: str
    """Where trials keep their last epoch."""

    @property
    def left(self) -> int:
        """Trials still to be run."""
        return self.experiment.tune.trials - len(self.book.ended)


def require(asked: Tune, gpus: float) -> None:
    """See to it that the trials have room at the same time.

    :class:`UserError` if they have none: in all, on a node, or where shares of a GPU do not add up to whole ones.
    """
    at_once = f"a search with {asked.concurrent} trials at a time"
    cluster.require(asked.concurrent * asked.cpus_per_trial + 1, asked.concurrent * gpus, at_once)
    if 0 < gpus < 1:
        whole = ceil(asked.concurrent / int(1 / gpus + 1e-9))  # a share lies on one GPU
        cluster.require(0, whole, f"{at_once}, of {gpus:g} GPUs each, {int(1 / gpus + 1e-9)} to a GPU,")
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(node.get("CPU", 0) >= asked.cpus_per_trial and node.get("GPU", 0) >= gpus for node in nodes):
        raise UserError(
            f"tune.cpus_per_trial and tune.gpus_per_trial: no node has the {asked.cpus_per_trial:g} CPUs and {gpus:g} "
            "GPUs of a trial, which cannot be spread over nodes"
        )


class Halving(ASHAScheduler):
    """ASHA that never stops the first trial: the gain is measured against it, to the end."""

    def __init__(self, first: Point, **settings: Any):
        super().__init__(**settings)
        self.first = first

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        action = super().on_trial_result(tune_controller, trial, result)
        spared = trial.config == self.first and result["epoch"] < self._max_t
        return TrialScheduler.CONTINUE if spared else action


def halving(asked: Tune, first: Point) -> Halving:
    """ASHA on epochs, for the weighted objective; it spares the point ``first``."""
    return Halving(
        first,
        time_attr="epoch",
        metric="objective",
        mode="max",
        max_t=asked.epochs,
        grace_period=min(asked.grace, asked.epochs),
        reduction_factor=HALVING,
    )


def run(
    work: Work, proposing: OptunaSearch, scheduler: TrialScheduler | None, follow: Callback, budget: Stopper
) -> None:
    """Run the trials that are left, until the budget is used up.

    Args:
        work: the trials.
        proposing: says what each is of.
        scheduler: may stop some early; None: nobody does.
        follow: told of everything.
        budget: ends the search, and each trial after its last epoch.
    """
    asked = work.experiment.tune
    for name, value in {
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # CSV, JSON and TensorBoard files: the book has it all
        "TUNE_DISABLE_SIGINT_HANDLER": "1",  # else Ctrl-C looks like the end of the search
        "RAY_AIR_NEW_OUTPUT": "0",  # the new one prints a box even when it is told to be silent
    }.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # Follow says it in a line
    with tempfile.TemporaryDirectory() as folder:  # nobody reads what Tune keeps, and trials report no checkpoint to it
        tune.Tuner(
            tune.with_resources(work.trainable, {"cpu": asked.cpus_per_trial, "gpu": work.gpus}),
            tune_config=tune.TuneConfig(
                num_samples=work.left,
                max_concurrent_trials=asked.concurrent,
                search_alg=proposing,
                scheduler=scheduler or FIFOScheduler(),
                reuse_actors=True,  # a second a trial instead of two
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=folder,
                stop=budget,
                callbacks=[follow, Gauges(work.experiment.name, asked.trials, work.book)],
                failure_config=tune.FailureConfig(max_failures=1),
                verbose=0,
            ),
        ).fit()
