"""How Ray Train runs the loop: workers, checkpoints, lost workers, and the bundle at the end."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
import torch.distributed as dist
from ray.train import Checkpoint
from ray.train.torch import get_device
from ray.train.v2._internal.execution import context as reporting
from ray.train.v2.api.callback import UserCallback
from ray.train.v2.api.config import CheckpointConfig, FailureConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.train.v2.api.exceptions import TrainingFailedError
from ray.train.v2.torch.torch_trainer import TorchTrainer
from safetensors.torch import load_file
from torch import nn

from sicot import bundle, cluster, origin, storage
from sicot.config import Experiment
from sicot.errors import UserError
from sicot.prepare.prepared import PreparedSet
from sicot.track import Run
from sicot.train import gauges, processor, progress, shards, worker
from sicot.train.calibration import ask
from sicot.train.loader import evaluation_batches


def fit(experiment: Experiment, prepared: PreparedSet, run: Run | None, folder: str) -> str:
    """Train on the cluster, write the bundle, and return its place, ``<folder>/bundle``.

    What is finished is not done again: a bundle of the same settings and data is returned at once, and an
    interrupted training goes on from its last checkpoint in ``<folder>/train``.

    Raises:
        UserError: the cluster is too small, the settings do not fit together, or ``folder`` holds a training
            with other settings.
    """
    place, settings = f"{folder}/bundle", fingerprint(experiment, prepared)
    if storage.exists(f"{place}/bundle.json"):
        info = storage.read_json(f"{place}/bundle.json")
        if info["training"]["settings"] == settings:
            print(f"already trained: {place} (digest {info['digest'][:12]})", flush=True)
            return place
    gpu = cluster.has_gpus(experiment.train.gpu)
    workers, fewest = experiment.train.workers, experiment.train.min_workers
    cluster.require(workers, workers if gpu else 0, f"training with {workers} workers")
    model = worker.build(experiment, prepared)  # also checks the settings
    rows = len(prepared.classes) - len(model.classifier.weight)  # of a sharded classifier
    parameters = sum(p.numel() for p in model.parameters()) + rows * experiment.model.dimension
    print(
        f"training {experiment.model.visual.trunk} ({parameters / 1e6:.1f} M parameters) on "
        f"{prepared.manifest.rows['train']:,} rows, {workers} worker(s) on {'GPU' if gpu else 'CPU'}",
        flush=True,
    )
    if experiment.train.patience and not prepared.manifest.rows["val"]:
        print("validation has no rows: train.patience is ignored, and the last epoch is kept", flush=True)
    _claim(folder, settings)
    system, path = storage.open_uri(folder)
    trainer = TorchTrainer(
        train_function,
        train_loop_config={"experiment": experiment.model_dump(mode="json"), "prepared": prepared.root},
        scaling_config=ScalingConfig(num_workers=(fewest, workers) if fewest else workers, use_gpu=gpu),
        run_config=RunConfig(
            name="train",
            storage_path=path,
            storage_filesystem=system,
            failure_config=FailureConfig(max_failures=experiment.train.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            logging_config=LoggingConfig(log_level="WARNING"),
            callbacks=[LogToRun(run)] if run else [],
        ),
    )
    try:
        result = trainer.fit()
    except TrainingFailedError as error:
        raise UserError(f"training stopped: {_first_cause(error)}; mend it and run the same command again") from error
    return _bundle(experiment, prepared, result, place, settings, run)


def fingerprint(experiment: Experiment, prepared: PreparedSet) -> str:
    """Names what a training is of: the settings that shape its result, the trunk's first weights, the data.

    The number of workers is not among them: what some have begun, more or fewer may finish.
    """
    shaping: Any = {"model": True, "train": True, "evaluate": {"known_kept"}, "index": True}
    settings = experiment.model_dump(mode="json", include=shaping)
    for name in ("workers", "min_workers", "gpu", "compile", "checkpoint_steps", "max_failures", "loader_threads"):
        del settings["train"][name]
    weights = settings["model"]["visual"]["weights"]
    if weights and storage.exists(weights):  # a file, wherever it is
        settings["model"]["visual"]["weights"] = hashlib.sha256(storage.read_bytes(weights)).hexdigest()
    return hashlib.sha256(json.dumps([settings, prepared.manifest.digest], sort_keys=True).encode()).hexdigest()


def train_function(payload: dict[str, Any]) -> None:
    """What each Ray Train worker runs."""
    # RunConfig's log level does not reach this logger, which writes a long line for each report
    reporting.logger.setLevel(logging.WARNING)
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    device = get_device()
    if device.type == "cpu":
        processor.use(max(1, int(os.environ.get("OMP_NUM_THREADS", "1"))))
    experiment = Experiment(**payload["experiment"])
    # one worker tells for all
    told: list[progress.Lines | gauges.Gauges] = (
        [progress.Lines("", experiment.train.epochs), gauges.Gauges(experiment, world)] if rank == 0 else []
    )

    def after_step(epoch: int, step: int, steps: int) -> None:
        for each in told:
            each.step(epoch, step, steps)

    def report(metrics: dict[str, Any], save: worker.Save) -> None:
        if "val/macro" in metrics:
            for each in told:
                each.epoch(metrics)
        with tempfile.TemporaryDirectory() as folder:
            save(Path(folder))
            kept = any(Path(folder).iterdir())  # what all ranks keep becomes one checkpoint
            ray.train.report(metrics, checkpoint=Checkpoint.from_directory(folder) if kept else None)

    checkpoint = ray.train.get_checkpoint()
    with checkpoint.as_directory() if checkpoint else tempfile.TemporaryDirectory() as folder:
        worker.fit(
            experiment,
            PreparedSet.open(payload["prepared"]),
            report,
            rank=rank,
            world=world if dist.is_initialized() else 1,
            device=device,
            checkpoint=Path(folder) if checkpoint else None,
            progress=after_step,
        )


class LogToRun(UserCallback):
    """Hands what rank 0 reports to the tracker; runs in Ray Train's controller."""

    def __init__(self, run: Run):
        self.run = run  # a copy: what waits for a server that is away waits here, and must be sent from here

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Checkpoint | None) -> None:
        """Log one report; the step is the epoch."""
        values = {name: value for name, value in metrics[0].items() if "/" in name or name in LOGGED}
        if "val/macro" in metrics[0]:
            self.run.metrics(values, step=metrics[0]["epoch"])
        if metrics[0].get("final"):
            self.run.settle()

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Send what waits: this may be the end."""
        self.run.flush()


LOGGED = ("learning_rate", "images_per_s", "data_wait", "seconds")


PHOTOS = 512
"""Photos that the engine is measured on."""


def _bundle(
    experiment: Experiment, prepared: PreparedSet, result: Any, place: str, settings: str, run: Run | None
) -> str:
    """Write the bundle from the last checkpoint."""
    model = worker.build(experiment, prepared)
    sharded = shards.is_sharded(experiment, len(prepared.classes))
    model.means_2CD = torch.zeros(2, 0 if sharded else len(prepared.classes), experiment.model.dimension)
    with result.checkpoint.as_directory() as folder:
        model.load_state_dict(load_file(f"{folder}/weights.safetensors"), assign=True)
        if sharded:
            rows_CD = shards.all_rows(Path(folder), len(prepared.classes), experiment.model.dimension)
            model.classifier.weight = nn.Parameter(rows_CD)
    training = {
        "settings": settings,
        "workers": experiment.train.workers,
        "epochs": result.metrics["epoch"],
        "seconds": round(result.metrics["seconds"], 1),
        "images_per_s": round(result.metrics["images_per_s"], 1),
        "train": experiment.train.model_dump(mode="json"),
        "commit": origin.commit(),
        "mlflow_run": run.id if run else "",
        "ray_job": origin.submission(),
    }
    index = experiment.index if sharded or len(prepared.classes) > experiment.index.above else None
    queries_ND = None
    if index:
        asked = ask(model.eval(), prepared, experiment.evaluate.batch_size)
        queries_ND = torch.cat([x_ND for x_ND, _ in asked.values()]) if asked else None
    calibration = result.metrics["calibration"]
    photos = next(evaluation_batches(prepared, "val" if prepared.manifest.rows["val"] else "train", PHOTOS, 0, 1))
    info = bundle.write(
        place, experiment.name, model, prepared, calibration, training, index, queries_ND, photos.images_BHW3
    )
    print(f"bundle: {place} (digest {info.digest[:12]})", flush=True)
    return place


def _claim(folder: str, settings: str) -> None:
    """Refuse to continue a training of other settings; note whose this is."""
    note = f"{folder}/training.json"
    if storage.exists(note) and storage.read_json(note)["settings"] != settings:
        raise UserError(
            f"{folder} holds a training with other settings or data: choose another --name, or give --fresh"
        )
    storage.write_json(note, {"settings": settings})


def _first_cause(error: TrainingFailedError) -> str:
    failures = getattr(error, "worker_failures", None) or {0: error}
    cause: BaseException = next(iter(failures.values()))
    while cause.__cause__ or getattr(cause, "cause", None):
        cause = cause.__cause__ or cause.cause  # type: ignore[attr-defined]
    return " ".join(f"{type(cause).__name__}: {cause}".split())[:300]
