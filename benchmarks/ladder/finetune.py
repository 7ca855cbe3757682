"""Rungs with the whole network trained: Ray Train on all cores, then the bundle is asked like any other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from benchmarks.ladder.rungs import rungs
from benchmarks.ladder.table import Measured, score
from sicot import config, storage
from sicot.evaluate import ask
from sicot.prepare.prepared import PreparedSet
from sicot.train import trainer

RUNGS = ("1 visual, logit-adjusted", "5 bilinear attention, sum", "default")


def trials(
    sets: dict[str, PreparedSet], weights: str | None, train: config.Train, seeds: int, only: list[str]
) -> Iterator[tuple[str, str, config.Experiment]]:
    """Rung, text column and settings of each training."""
    shipped = config.Model()
    base = shipped.model_copy(update={"visual": shipped.visual.model_copy(update={"weights": weights})})
    for rung, model in rungs(base).items():
        if rung not in RUNGS or (only and not any(part in rung for part in only)):
            continue
        for column in sets if model.uses_words else list(sets)[:1]:
            for seed in range(seeds):
                slug = re.sub(r"\W+", "-", f"{rung} {column} {seed}")
                settings = train.model_copy(update={"seed": seed})
                yield rung, column, config.Experiment(name=slug, model=model, train=settings)


def measure(
    rung: str, experiment: config.Experiment, sets: dict[str, PreparedSet], column: str, split: str, folder: str
) -> Measured:
    """Train (or find it trained) and score each regime; the model of full titles is also asked with the others."""
    prepared = sets[column]
    place = trainer.fit(experiment, prepared, None, f"{folder}/{prepared.manifest.digest[:8]}-{experiment.name}")
    said = answers(place, prepared, split)
    named = {"image_text": f"image_{column}" if column != "title" else "image_text"}
    scores = {named.get(regime, regime): score for regime, score in said.items()}
    if column == "title" and experiment.model.uses_words:
        for other in sets:
            if other != column:
                scores[f"image_{other}"] = answers(place, sets[other], split)["image_text"]
    seconds = storage.read_json(f"{place}/bundle.json")["training"]["seconds"]
    return Measured(rung, column, scores, seconds)


def answers(bundle: str, prepared: PreparedSet, split: str) -> dict[str, dict[str, Any]]:
    """Figures by regime, of every row of a split."""
    answered = ask.ask(bundle, ray.data.read_parquet(prepared.uris(split)), k=1)
    scores = {}
    for regime in ask.REGIMES:
        if regime in answered.column_names:
            rows = answered.filter(pa.compute.is_valid(answered[regime]))
            first = np.array([ranked[0] for ranked in rows[regime].to_pylist()])
            scores[regime] = score(rows["label"].to_numpy(), first, prepared.classes)
    return scores
