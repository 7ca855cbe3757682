"""A trial in seconds: what stands on the trunk, trained on cached features of the trunk as it starts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch
from ray import tune

from sicot import cache
from sicot.config import Experiment
from sicot.prepare.prepared import PreparedSet
from sicot.search.space import Point, apply
from sicot.search.trial import Rare, scores
from sicot.train import features, heads, processor, worker
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
    processor.use(max(1, int(settings["tune"]["cpus_per_trial"])))
    experiment, data = apply(Experiment(**settings), point), PreparedSet.open(prepared)
    tail_C = data.classes.group == "tail"
    parts = list(splits(rows, experiment.tune.folds))
    nets = [worker.build(experiment, data) for _ in parts]
    begun = time.monotonic()
    side_by_side = zip(
        *(heads.epochs(net, experiment.train, learnt) for net, (learnt, _) in zip(nets, parts, strict=True)),
        strict=True,
    )
    for epoch, kept in enumerate(side_by_side, 1):
        each = [heads.validate(net, asked, tail_C) for net, (_, asked) in zip(kept, parts, strict=True)]
        metrics = {f"val/{name}": sum(said[name] for said in each) / len(each) for name in each[0]}
        said = scores(metrics, experiment.tune.tail_weight, rare)
        tune.report({"epoch": epoch, **metrics, **said, "training_s": time.monotonic() - begun})


def splits(rows: dict[str, Rows], folds: int) -> Iterator[tuple[Rows, Rows]]:
    """Rows to learn from and rows to be asked about: training and validation, or folds of training."""
    if not folds:
        yield rows["train"], rows["val"]
    train = rows["train"]
    for number in range(folds):
        inside, outside = heads.fold(train.ids, train.labels_N.numpy(), number, folds)
        yield heads.take(train, inside), heads.take(train, outside)
