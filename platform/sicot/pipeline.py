"""The whole way: prepare, train, compare, evaluate, register, serve, ask; what is interrupted is continued."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sicot import bundle, origin, probe, registry, screen, storage, track
from sicot.config import Experiment, Serve
from sicot.evaluate import run as evaluation
from sicot.prepare import pipeline as preparing
from sicot.prepare.prepared import PreparedSet
from sicot.train import compare, trainer

Start = Callable[[Serve, str], str]
"""Starts the endpoint on the Ray session that is up; returns its URL."""


def places(experiment: Experiment) -> int:
    """Logical CPUs a local cluster needs for this experiment: the workers, replicas, and some for Ray Data."""
    return max(experiment.train.workers, experiment.serve.replicas) + 2


def prepare(experiment: Experiment) -> PreparedSet:
    """Prepare the catalogue into ``<folder>/prepared`` as a tracked run."""
    with track.run(experiment, "prepare", experiment.name, resume=True) as run:
        prepared = _prepare(experiment, run)
    origin.tell({"data": prepared.manifest.digest})
    return prepared


def _prepare(experiment: Experiment, run: track.Run) -> PreparedSet:
    prepared = preparing.prepare(experiment)
    manifest = prepared.manifest
    run.tags({"sicot.data": manifest.digest})
    run.metrics({"rows": manifest.rows, "quarantined": manifest.quarantined, "classes": manifest.classes})
    return prepared


def train(experiment: Experiment) -> str:
    """Train on ``<folder>/prepared`` as a tracked run; gives the bundle's place."""
    prepared = PreparedSet.open(f"{experiment.folder}/prepared")
    if experiment.fresh:
        forget(experiment.folder)
    with track.run(
        experiment, "train", experiment.name, resume=True, tags={"sicot.data": prepared.manifest.digest}
    ) as run:
        return trainer.fit(experiment, prepared, run, experiment.folder)


def forget(folder: str) -> None:
    """Delete what earlier training and its consequences have left in a run's folder; the prepared set stays."""
    system, root = storage.open_uri(folder)
    for name in ("train", "bundle", "visual", "report"):
        storage.delete_folder(f"{folder}/{name}")
    for name in ("training.json", "comparison.json", "summary.json"):
        if storage.exists(f"{folder}/{name}"):
            system.delete_file(f"{root}/{name}")


class Steps:
    """Announces steps and keeps their seconds."""

    def __init__(self, names: list[str]):
        self.names, self.seconds, self.begun = names, dict[str, float](), time.perf_counter()

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        print(f"\n── {self.names.index(name) + 1}/{len(self.names)} {name}", flush=True)
        begun = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + round(time.perf_counter() - begun, 1)

    def done(self) -> dict[str, float]:
        """Seconds by step, and in all."""
        return {**self.seconds, "total": round(time.perf_counter() - self.begun, 1)}


def run(experiment: Experiment, start: Start, stop: Callable[[], None], dashboard: str) -> dict[str, Any]:
    """Run every step and write ``<folder>/summary.json``; gives the summary."""
    baselines = ["baseline"] if experiment.evaluate.baseline else []
    step = Steps(["prepare", "train", *baselines, "evaluate", "register", "serve"])
    if experiment.fresh:
        forget(experiment.folder)
    with track.run(experiment, "pipeline", experiment.name, resume=True) as tracked:
        storage.write_bytes(f"{experiment.folder}/config.yaml", experiment.dump())
        tracked.dict(experiment.model_dump(mode="json"), "config.yaml")
        with step("prepare"):
            prepared = _prepare(experiment, tracked)
            origin.tell({"data": prepared.manifest.digest})
        with step("train"):
            place = trainer.fit(experiment, prepared, tracked, experiment.folder)
        visual: dict[str, Any] = {}
        further: list[dict[str, Any]] = []
        for name in baselines:
            with step(name):
                visual, further = _baseline(experiment, prepared, tracked)
        with step("evaluate"):
            test = _test(experiment, prepared, place, f"{experiment.folder}/report", tracked)
            differences = tail_differences(test, visual, further) if visual else {}
            other = _other_title(experiment, tracked)
        with step("register"):
            folder = registry.fetch(place, experiment.tracking_uri)
            folder = registry.carry(folder, experiment.registry.name, experiment.tracking_uri)
            version = registry.register(tracked, folder, experiment.registry.name)
            decision = registry.promote(
                experiment.registry.name,
                version,
                experiment.tracking_uri,
                evaluation.gate_question(
                    evaluation.prepared_rows(prepared, "test", experiment.evaluate.rows), experiment.evaluate
                ),
                experiment.registry.tail_tolerance,
            )
            print(decision.reason)
        with step("serve"):
            model_uri = f"models:/{experiment.registry.name}/{version}"
            served = _serve(experiment, prepared, model_uri, folder, start, stop)
        summary = {
            "name": experiment.name,
            "rows": sum(prepared.manifest.rows.values()),
            "quarantined": sum(prepared.manifest.quarantined.values()),
            "test": {**test, **other},
            "baseline": visual,
            "sicot_minus_visual": differences,
            "training": storage.read_json(f"{place}/bundle.json")["training"],
            "served": served,
            "mlflow": {"run_id": tracked.id, "model_uri": model_uri, "promoted": decision.promoted},
            "seconds": step.done(),
        }
        storage.write_json(f"{experiment.folder}/summary.json", summary)
        tracked.dict(summary, "summary.json")
        tracked.metrics({"tail": {name: d["mean"] for name, d in differences.items()}, "seconds": summary["seconds"]})
    screen.show(experiment, summary, dashboard)
    return summary


def tail_differences(
    test: dict[str, Any], visual: dict[str, Any], further: list[dict[str, Any]]
) -> dict[str, dict[str, float | None]]:
    """SICoT's tail accuracy minus the visual-only baseline's, paired by seed, for photo alone and photo with words."""
    theirs = [visual["image"]["tail"], *(pair["visual"]["image/tail"] for pair in further)]
    regimes = [regime for regime in ("image", "image_text") if regime in test]
    ours = {r: [test[r]["tail"], *(pair["sicot"][f"{r}/tail"] for pair in further)] for r in regimes}
    return {
        f"{regime}_tail": compare.paired_difference([a - b for a, b in zip(ours[regime], theirs, strict=True)])
        for regime in regimes
        if ours[regime][0] is not None
    }


def _baseline(
    experiment: Experiment, prepared: PreparedSet, parent: track.Run
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Test metrics of the visual-only model of the same budget, and the comparison over further seeds."""
    visual = experiment.model_copy(update={"model": experiment.model.visual_only()})
    with track.run(visual, "baseline", f"{experiment.name}, visual only", parent=parent) as run:
        place = trainer.fit(visual, prepared, run, f"{experiment.folder}/visual")
    seeds = [experiment.train.seed + n for n in range(1, experiment.evaluate.seeds + 1)]
    further = compare.further_seeds(experiment, prepared, seeds, f"{experiment.folder}/comparison.json")
    return _test(experiment, prepared, place, f"{experiment.folder}/visual/report"), further


def _test(
    experiment: Experiment, prepared: PreparedSet, place: str, report: str, run: track.Run | None = None
) -> dict[str, Any]:
    """Metrics on the test split by regime, kept with the bundle and the run; writes the report."""
    folder, rows = (
        registry.fetch(place, experiment.tracking_uri),
        evaluation.prepared_rows(prepared, "test", experiment.evaluate.rows),
    )
    metrics = evaluation.evaluate(folder, rows, report, experiment.evaluate, run).metrics
    bundle.annotate(place, metrics)
    return metrics


def _other_title(experiment: Experiment, parent: track.Run) -> dict[str, Any]:
    """The same experiment on another title column, as ``image_<column>``; {} if none is asked for."""
    column = experiment.evaluate.other_title
    if not column:
        return {}
    print(f"the same once more, trained on the column {column}", flush=True)
    columns = experiment.catalogue.columns.model_copy(update={"title": column})
    other = experiment.model_copy(
        update={
            "name": re.sub(r"[^A-Za-z0-9._-]", "_", column),
            "storage": f"{experiment.folder}/other",
            "catalogue": experiment.catalogue.model_copy(update={"columns": columns}),
        }
    )
    if experiment.fresh:
        forget(other.folder)
    with track.run(other, "other title", f"{experiment.name}, {column}", parent=parent) as run:
        prepared = _prepare(other, run)
        place = trainer.fit(other, prepared, run, other.folder)
        metrics = _test(other, prepared, place, f"{other.folder}/report", run)
    return {f"image_{column}": metrics["image_text"], f"{column}_image": metrics["image"]}


def _serve(
    experiment: Experiment, prepared: PreparedSet, model: str, folder: str, start: Start, stop: Callable[[], None]
) -> dict[str, Any]:
    """Serve the registered model, put test products to the running endpoint, and compare with the bundle's answers."""
    url = start(experiment.serve.model_copy(update={"model": model}), experiment.tracking_uri)
    try:
        return probe.ask(url, folder, prepared, rows=100)
    finally:
        stop()
