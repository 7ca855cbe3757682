"""The training loop of one rank, plain PyTorch, top to bottom. Ray Train calls it; so can a plain process.

C classes, B batch.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from sicot.config import Experiment, Train
from sicot.errors import UserError
from sicot.model.recognizer import SICoT
from sicot.model.sharded import ShardedClassifier
from sicot.prepare.prepared import PreparedSet
from sicot.train import shards, weights
from sicot.train.calibration import calibrate, class_sums
from sicot.train.learner import Learner
from sicot.train.loader import Batch, TrainingBatches, evaluation_batches

Save = Callable[[Path], None]
Report = Callable[[dict[str, Any], Save], None]
"""Called equally often on every rank: metrics, and a function that writes a checkpoint into a folder."""

Progress = Callable[[int, int, int], None]
"""Called after each step: epoch, steps done in it, steps in all."""


@dataclass
class Position:
    """Where training stands."""

    epoch: int = 0
    step: int = 0  # batches done in this epoch, of so many:
    steps: int = 0
    seconds: float = 0.0  # spent in training steps so far
    speeds: list[float] = field(default_factory=list)  # images/s of each epoch
    best: float = -1.0
    best_epoch: int = -1
    best_state: dict[str, Tensor] = field(default_factory=dict)


def silent(epoch: int, step: int, steps: int) -> None:
    """Progress for nobody."""


def build(config: Experiment, prepared: PreparedSet) -> SICoT:
    """A new model for a prepared set: trunk weights, word vectors, idf and class prior in place.

    Where the classifier is sharded, it has no rows here: see :mod:`sicot.train.shards`.
    """
    torch.manual_seed(config.train.seed)
    try:
        model = SICoT(
            config.model,
            prepared.manifest.images.size,
            torch.from_numpy(prepared.classes.log_prior),
            torch.from_numpy(prepared.word_vectors()),
            torch.from_numpy(prepared.idf),
            sharded=shards.is_sharded(config, len(prepared.classes)),
        )
    except ValueError as error:
        raise UserError(str(error)) from error
    weights.initialise(model.visual, config.model.visual)
    return model


def fit(
    config: Experiment,
    prepared: PreparedSet,
    report: Report,
    *,
    rank: int = 0,
    world: int = 1,
    device: torch.device | None = None,
    checkpoint: Path | None = None,
    progress: Progress = silent,
) -> SICoT:
    """Train, and return the model to keep: the best on validation if ``train.patience`` is set, else the last.

    Args:
        config: the experiment.
        prepared: what to train on.
        report: called after each epoch (and every ``train.checkpoint_steps``), the last time with ``final``.
        rank, world: this process among all; above one, a process group must be up.
        device: default CPU.
        checkpoint: folder of a checkpoint to continue from.
        progress: told of every step.
    """
    device = device or torch.device("cpu")
    train = config.train
    batches = TrainingBatches(prepared, train.batch_size, rank, world, train.seed)
    moves = train.epochs * -(-len(batches) // train.accumulate)
    model = build(config, prepared)
    head = shards.head_of(config, model, prepared, rank, world, device, checkpoint)
    learner = Learner(train, model, moves, device, world, head)
    patience = train.patience if prepared.manifest.rows["val"] else 0
    at = _position(learner, checkpoint, device, len(batches))

    def save(folder: Path) -> None:
        if rank == 0:
            with (folder / "state.pt").open("wb") as file:  # else a full disk is some other error
                torch.save({"learner": learner.state(), "position": vars(at)}, file)
        if head:
            shards.save(head, folder)

    loader = batches.loader(train.loader_threads)
    for epoch in range(at.epoch, train.epochs):
        if patience and epoch - 1 - at.best_epoch >= patience:
            break
        batches.epoch, batches.skip = epoch, at.step
        losses = train_epoch(train, learner, batches, loader, at, lambda metrics: report(metrics, save), progress)
        _same_buffers(learner.kept, world)
        scores = validate(learner.kept, prepared, config.evaluate.batch_size, rank, world, head=head)
        if patience and scores["macro"] > at.best:
            at.best, at.best_epoch = scores["macro"], epoch
            at.best_state = {name: value.clone() for name, value in learner.kept.state_dict().items()}
        report(
            {
                "epoch": epoch + 1,
                **losses,
                **{f"val/{name}": value for name, value in scores.items()},
                "learning_rate": learner.schedule.get_last_lr()[0],
                "seconds": at.seconds,
            },
            save,
        )
    model = learner.kept
    if at.best_state:
        model.load_state_dict(at.best_state)
    calibration, means = finish(config, learner, prepared, rank, world)

    def save_final(folder: Path) -> None:
        save(folder)
        if rank == 0:
            state = {**model.state_dict(), **means}
            kept = {name: value.detach().to("cpu", torch.float32).contiguous() for name, value in state.items()}
            save_file(kept, folder / "weights.safetensors")

    steady = {"images_per_s": statistics.median(at.speeds[1:] or at.speeds)} if at.speeds else {}
    last = {"final": True, "calibration": calibration, "epoch": at.epoch, "seconds": at.seconds, **steady}
    report(last, save_final)
    return model


def finish(
    config: Experiment, learner: Learner, prepared: PreparedSet, rank: int, world: int
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a trained model needs to answer: the calibration (on rank 0), and `means_2CD` if it has all rows itself."""
    measured, model, head = config.evaluate, learner.kept, learner.head
    size, kept = measured.batch_size, measured.known_kept
    if head:
        return calibrate(model, prepared, size, kept, head, config.index.candidates), {}
    sums_2CD = class_sums(model, prepared, size, rank, world)
    means_2CD = functional.normalize(_sum_over_ranks(sums_2CD, sums_2CD.device, world), dim=2)
    return calibrate(model, prepared, size, kept) if rank == 0 else {}, {"means_2CD": means_2CD}


def train_epoch(
    config: Train,
    learner: Learner,
    batches: TrainingBatches,
    loader: Iterable[Batch],
    at: Position,
    checkpoint: Callable[[dict[str, Any]], None],
    progress: Progress,
) -> dict[str, float]:
    """Train from ``at`` to the end of its epoch, and move ``at`` to the next.

    Returns:
        Mean loss parts (``loss/…``), images/s over all ranks, and the share of the time spent waiting for data.
    """
    sums: dict[str, Tensor] = {}
    first_step, waited = at.step, 0.0
    begun = asked = time.perf_counter()
    _seed(config.seed, at.epoch, at.step, batches.rank)
    for batch in loader:
        waited += time.perf_counter() - asked
        done = at.step + 1
        keep = config.checkpoint_steps > 0 and done % config.checkpoint_steps == 0 and done < len(batches)
        for name, part in learner.step(batch, move=keep or done == len(batches)).items():
            sums[name] = sums[name] + part if name in sums else part
        at.step = done
        progress(at.epoch, at.step, len(batches))
        if keep:
            checkpoint({"epoch": at.epoch, "step": at.step})
            _seed(config.seed, at.epoch, at.step, batches.rank)  # a resumed run draws the same numbers
        asked = time.perf_counter()
    steps = max(1, at.step - first_step)
    means = {f"loss/{name}": float(total) / steps for name, total in sums.items()}
    spent = time.perf_counter() - begun
    at.epoch, at.step, at.seconds = at.epoch + 1, 0, at.seconds + spent
    means = _mean_over_ranks({**means, "data_wait": waited / spent}, batches.world)
    at.speeds.append(steps * batches.batch_size * batches.world / spent)
    return {**means, "images_per_s": at.speeds[-1]}


@torch.inference_mode()
def validate(
    model: SICoT,
    prepared: PreparedSet,
    batch_size: int,
    rank: int = 0,
    world: int = 1,
    split: str = "val",
    head: ShardedClassifier | None = None,
) -> dict[str, float]:
    """Accuracy on a split by photo alone and with words: overall, macro (mean over classes), tail.

    ``macro`` is the mean of both regimes' macro accuracy: what early stopping looks at. Rows are dealt to the
    ranks and counts summed, so each row counts once. 0 where the split has no rows. ``head``: this rank's part of a
    sharded classifier.
    """
    model.eval()
    device, classes = model.log_prior_C.device, len(prepared.classes)
    regimes = ["image", "image_text"] if model.config.uses_words else ["image"]
    rows_C = torch.zeros(classes, dtype=torch.float64)
    right_RC = torch.zeros(len(regimes), classes, dtype=torch.float64)
    for batch in evaluation_batches(prepared, split, batch_size, rank, world, equally=head is not None):
        labels_B = batch.labels_B
        rows_C += torch.bincount(labels_B, minlength=classes)
        batch = batch.to(device)
        v_BD = model.visual(batch.images_BHW3)
        for r, regime in enumerate(regimes):
            x_BD, _ = model.feature(v_BD, batch.words_BT if regime == "image_text" else None)
            first_B = head.top(x_BD, 1)[1][:, 0] if head else model.classifier(x_BD).argmax(1)
            right_B = (first_B.cpu() == labels_B).double()
            right_RC[r] += torch.bincount(labels_B, weights=right_B, minlength=classes)
    rows_C, right_RC = _sum_over_ranks(rows_C, device, world), _sum_over_ranks(right_RC, device, world)
    tail_C = torch.from_numpy(prepared.classes.group == "tail")
    scores: dict[str, float] = {}
    for regime, right_C in zip(regimes, right_RC, strict=True):
        scores |= accuracies(regime, right_C, rows_C, tail_C)
    scores["macro"] = sum(scores[f"{regime}/macro"] for regime in regimes) / len(regimes)
    return scores


def accuracies(regime: str, right_C: Tensor, rows_C: Tensor, tail_C: Tensor) -> dict[str, float]:
    """Overall, macro and tail accuracy of a way of asking, from the rows of each class and how many were right."""
    there_C = rows_C > 0
    return {
        f"{regime}/top1": float(right_C.sum() / rows_C.sum().clamp(min=1)),
        f"{regime}/macro": float((right_C[there_C] / rows_C[there_C]).mean()) if there_C.any() else 0.0,
        f"{regime}/tail": float(right_C[tail_C].sum() / rows_C[tail_C].sum().clamp(min=1)),
    }


def _position(learner: Learner, checkpoint: Path | None, device: torch.device, steps: int) -> Position:
    """Where to go on: at the start, or where the checkpoint was taken (a sharded classifier has read its own rows).

    An epoch of another number of workers has other batches: the same share of it, and of the schedule, counts as done.
    """
    if checkpoint is None:
        return Position(steps=steps)
    state = torch.load(checkpoint / "state.pt", map_location=device, weights_only=True)
    learner.restore(state["learner"])
    at = Position(**state["position"])
    if at.steps != steps:
        learner.schedule.last_epoch = round(learner.schedule.last_epoch * steps / at.steps)
        at.step, at.steps = at.step * steps // at.steps, steps
    return at


def _seed(seed: int, epoch: int, step: int, rank: int) -> None:
    """Seed augmentation and dropout from the place in training, so that no random state has to be kept."""
    torch.manual_seed(hash((seed, epoch, step, rank)) % 2**63)


def _same_buffers(model: SICoT, world: int) -> None:
    """Give every rank rank 0's batch statistics, so that all of them measure the model that is saved."""
    if world > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def _sum_over_ranks(value: Tensor, device: torch.device, world: int) -> Tensor:
    if world == 1:
        return value
    total = value.to(device)
    dist.all_reduce(total)
    return total.cpu()


def _mean_over_ranks(values: dict[str, float], world: int) -> dict[str, float]:
    if world == 1:
        return values
    everyone: list[dict[str, float]] = [{} for _ in range(world)]
    dist.all_gather_object(everyone, values)
    return {name: sum(one[name] for one in everyone) / world for name in values}
