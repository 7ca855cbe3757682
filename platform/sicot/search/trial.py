"""One trial: a whole training in its own process, measured on validation after each epoch."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import torch
from ray import tune

from sicot import storage
from sicot.config import Experiment
from sicot.prepare.prepared import PreparedSet
from sicot.search.book import key
from sicot.search.space import Point, apply
from sicot.train import processor, worker
from sicot.train.worker import Save

Rare = Literal["tail", "macro"]
"""Which accuracy speaks for rare products: that of tail classes, or macro where validation has no tail rows."""


SAID = "said.json"  # in a checkpoint: the figures of its epoch


def scores(metrics: dict[str, Any], tail_weight: float, rare: Rare) -> dict[str, float]:
    """What a search looks at, in [0, 1], each the mean of photo alone and photo with words.

    ``overall`` and ``tail`` accuracy, and the ``objective``: (1 − tail_weight) · overall + tail_weight · tail.
    ``metrics`` are those of an epoch, with :func:`sicot.train.worker.validate`'s under ``val/``.
    """
    regimes = [regime for regime in ("image", "image_text") if f"val/{regime}/top1" in metrics]
    overall, tail = (
        sum(metrics[f"val/{regime}/{share}"] for regime in regimes) / len(regimes) for share in ("top1", rare)
    )
    return {"overall": overall, "tail": tail, "objective": (1 - tail_weight) * overall + tail_weight * tail}


def run(point: Point, settings: dict[str, Any], prepared: str, rare: Rare, checkpoints: str, gpu: bool) -> None:
    """What each of Tune's processes runs; a trial that was interrupted goes on from its last epoch.

    Args:
        point: the sampled values.
        settings: the experiment that they are put into.
        prepared: root of the prepared set.
        rare: see :data:`Rare`.
        checkpoints: where trials keep their last epoch. Tune's own checkpoints can be found only through its
            pickled state.
        gpu: train on the GPU this process was given.
    """
    processor.use(max(1, int(settings["tune"]["cpus_per_trial"])))
    experiment, place = apply(Experiment(**settings), point), f"{checkpoints}/{key(point)}"
    data = PreparedSet.open(prepared)
    begun = time.monotonic()

    def report(metrics: dict[str, Any], save: Save) -> None:
        if "val/macro" not in metrics:
            return  # within an epoch, or at the very end
        said = {**metrics, **scores(metrics, experiment.tune.tail_weight, rare)}
        with tempfile.TemporaryDirectory() as folder:
            if metrics["epoch"] < experiment.train.epochs:
                save(Path(folder))
            storage.write_json(f"{folder}/{SAID}", said)
            storage.replace_folder(folder, place)
        tune.report({**said, "training_s": time.monotonic() - begun})

    with tempfile.TemporaryDirectory() as copy:
        kept = storage.local_folder(place, copy) if storage.exists(place) else None
        if kept:  # the driver may have been killed before it heard
            said = storage.read_json(f"{kept}/{SAID}")
            tune.report({**said, "training_s": 0.0})
            if said["epoch"] == experiment.train.epochs:
                return
        worker.fit(
            experiment,
            data,
            report,
            device=torch.device("cuda" if gpu else "cpu"),
            checkpoint=Path(kept) if kept else None,
        )
