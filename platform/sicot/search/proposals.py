"""What is tried next: the points given first, then what Optuna's TPE makes of the trials that are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import InMemoryStorage
from ray.tune.search.optuna import OptunaSearch

from sicot.config import Tune
from sicot.search.book import Book, Trial
from sicot.search.space import Point

FIRST_AT_RANDOM = 10  # trials before TPE models what it has seen; at most a third of them
AIMS = {"weighted": ["objective"], "pareto": ["overall", "tail"]}
"""The metrics that are maximised."""


@dataclass(frozen=True)
class Known:
    """A point whose outcome is known."""

    point: Point
    scores: dict[str, float]
    """`objective`, `overall` and `tail`."""
    curve: list[float] = field(default_factory=list)
    """The objective after each epoch."""

    @classmethod
    def of(cls, trial: Trial) -> Known:
        """A trial that has ended."""
        return cls(trial.point, trial.epochs[-1], [epoch["objective"] for epoch in trial.epochs])


def tpe(tune: Tune, known: int) -> BaseSampler:
    """TPE on all settings at once; trials under way count as bad ones, so that no two are alike.

    Args:
        tune: says how many trials there are, and the seed.
        known: trials so far; the same seed again would propose the same trials again.
    """
    first = min(FIRST_AT_RANDOM, max(3, tune.trials // 3))
    return TPESampler(seed=tune.seed + known, n_startup_trials=first, multivariate=True, constant_liar=True)


def going_on(
    aims: list[str],
    ranges: dict[str, BaseDistribution],
    book: Book,
    known: Sequence[Known],
    first: Sequence[Point],
    sampler: BaseSampler,
) -> OptunaSearch:
    """:func:`proposing` for what a book lacks: points that were begun go first, those that it has are not tried again.

    What is ``known`` from elsewhere counts where the book has no trial of it.
    """
    begun = [trial.point for trial in book.left]
    own = [trial.point for trial in book.trials]
    new = [point for point in first if point not in own]
    other = [each for each in known if each.point not in own]
    return proposing(aims, ranges, [*other, *map(Known.of, book.ended)], [*begun, *new], sampler)


def proposing(
    aims: list[str],
    ranges: dict[str, BaseDistribution],
    known: Sequence[Known],
    first: Sequence[Point],
    sampler: BaseSampler,
) -> OptunaSearch:
    """Tune's searcher.

    Args:
        aims: one or several metrics to maximise.
        ranges: of the settings.
        known: told to the sampler.
        first: tried before it is asked.
        sampler: proposes the rest.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    store = InMemoryStorage()  # OptunaSearch itself takes no known trial of several objectives
    study = optuna.create_study(
        storage=store, study_name="search", sampler=sampler, directions=["maximize"] * len(aims)
    )
    for each in known:
        curve = dict(enumerate(each.curve, 1)) if len(aims) == 1 else {}
        study.add_trial(
            optuna.create_trial(
                params=each.point,
                distributions=ranges,
                values=[each.scores[aim] for aim in aims],
                intermediate_values=curve,
            )
        )
    for point in first:
        study.enqueue_trial(point)
    metric, mode = (aims, ["max"] * len(aims)) if len(aims) > 1 else (aims[0], "max")
    return OptunaSearch(ranges, metric=metric, mode=mode, sampler=sampler, storage=store, study_name="search")
