"""What earlier searches have found, from MLflow: known to the sampler where it was measured alike, else tried first."""

from __future__ import annotations

import json
from typing import Any

from optuna.distributions import BaseDistribution

from sicot import track
from sicot.config import Experiment
from sicot.errors import UserError
from sicot.search.proposals import AIMS, Known
from sicot.search.space import Point
from sicot.track import Past

BEST = 3  # points of a search of other data that are tried first
SCORES = (*AIMS["weighted"], *AIMS["pareto"])


def start(
    experiment: Experiment, ranges: dict[str, BaseDistribution], measure: str, own: str, screening: bool = False
) -> tuple[list[Known], list[Point]]:
    """Known points, and points to try first, as ``tune.warm_start`` says; prints how many.

    Args:
        experiment: names MLflow's store and experiment.
        ranges: points outside them are left out.
        measure: tells searches whose figures can be compared, see :func:`sicot.search.tuner.search`.
        own: this search's run, which is none of them.
        screening: these trials are measured otherwise than any that were trained in full.

    Raises:
        UserError: there is no such run, or it is none of a search.
    """
    asked = experiment.tune.warm_start
    if asked is None:
        return [], []
    if asked == "same":
        parents = [past for past in track.past(experiment, {"sicot.measure": measure}) if past.id != own]
    else:
        parents = [_search(experiment, asked)]
    known: list[Known] = []
    others: list[Known] = []
    outside = 0
    for parent in parents:
        alike = not screening and parent.tags.get("sicot.measure") == measure
        for trial in track.past(experiment, {"mlflow.parentRunId": parent.id, "sicot.kind": "trial"}, parent):
            if trial.status != "FINISHED" or any(score not in trial.metrics for score in SCORES):
                continue
            point = _point({**parent.params, **trial.params}, ranges)
            if point is None:
                outside += 1
            else:
                (known if alike else others).append(Known(point, trial.metrics))
    best = sorted(others, key=lambda each: -each.scores["objective"])[:BEST]
    print(
        f"warm start: {len(known)} trials of {len(parents)} earlier searches are known"
        + (f", the best {len(best)} that were measured otherwise are tried first" if best else "")
        + (f"; {outside} lie outside today's ranges" if outside else "")
    )
    return known, [each.point for each in best]


def _search(experiment: Experiment, run_id: str) -> Past:
    found = track.read(experiment.tracking_uri, run_id)
    if found is None or found.tags.get("sicot.kind") != "search":
        raise UserError(
            f"tune.warm_start: there is no search with the run id {run_id!r} in MLflow at "
            f"{track.mask(experiment.tracking_uri)}: give the id of a run of kind search, or `same`"
        )
    return found


def _point(params: dict[str, str], ranges: dict[str, BaseDistribution]) -> Point | None:
    """The values of today's settings; None where one is missing or out of its range."""
    point: Point = {}
    for name, each in ranges.items():
        try:
            value = _value(params[name])
            if not each._contains(each.to_internal_repr(value)):
                return None
        except (KeyError, ValueError, TypeError):
            return None
        point[name] = each.to_external_repr(each.to_internal_repr(value))
    return point


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
