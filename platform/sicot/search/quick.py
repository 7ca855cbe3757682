"""A trial in seconds: what stands on the trunk, trained on cached features of the trunk as it starts."""

from __future__ import annotations

import time
from typing import Any

import torch
from ray import tune

from sicot import cache
from sicot.config import Experiment
from sicot.prepare.prepared import PreparedSet
from sicot.search.space import Point, apply
from sicot.search.trial import Rare, scores
from sicot.train import features, heads, worker
from sicot.train.features import Rows

VIEWS = 3  # of each photo, the first as it is: about what augmentation is worth on a trunk that is kept


def rows(experiment: Experiment, prepared: PreparedSet) -> dict[str, Rows]:
    """Features of training and validation rows; computed once for a trunk and photos, then from the user's cache."""
    trunk = experiment.model.visual
    if trunk.weights is None:
        print("(the trunk has no weights to start from: screening tells little of its features, more of the words)")
    torch.manual_seed(experiment.train.seed)  # of a trunk without weights
    folder = str(cache.folder("features"))
    return features.load(prepared, trunk, experiment.train.augment, VIEWS, folder, ("train", "val"))


def run(point: Point, settings: dict[str, Any], prepared: str, rare: Rare, rows: dict[str, Rows]) -> None:
    """What each of Tune's processes runs; a trial that was interrupted is soon trained again.

    Args:
        point: the sampled values.
        settings: the experiment that they are put into.
        prepared: root of the prepared set.
        rare: see :data:`sicot.search.trial.Rare`.
        rows: see :func:`rows`.
    """
    torch.set_num_threads(max(1, int(settings["tune"]["cpus_per_trial"])))
    experiment, data = apply(Experiment(**settings), point), PreparedSet.open(prepared)
    tail_C = data.classes.group == "tail"

    def after(epoch: int, net: Any) -> None:
        metrics = {f"val/{name}": value for name, value in heads.validate(net, rows["val"], tail_C).items()}
        said = scores(metrics, experiment.tune.tail_weight, rare)
        tune.report({"epoch": epoch, **metrics, **said, "training_s": time.monotonic() - begun})

    model, begun = worker.build(experiment, data), time.monotonic()
    heads.fit(model, experiment.train, rows["train"], after=after)
