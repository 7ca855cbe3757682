"""The files of a sharded classifier: a range of classes in each, written by the rank that has it.

    rows-<first>-<end>.safetensors    `rows` [R, D], and the optimiser's state, of classes first … end - 1

Any number of ranks reads what any other number has written: each takes its range out of the files that hold it, and
no more than that is in memory. C classes, R of a range, D feature dimension.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from sicot.config import Experiment
from sicot.errors import UserError
from sicot.model.recognizer import SICoT
from sicot.model.rows import OPTIMISERS
from sicot.model.sharded import ShardedClassifier, bounds, initial_rows
from sicot.prepare.prepared import PreparedSet
from sicot.train.class_words import begin_with_words


def head_of(
    config: Experiment,
    model: SICoT,
    prepared: PreparedSet,
    rank: int,
    world: int,
    device: torch.device,
    checkpoint: Path | None,
) -> ShardedClassifier | None:
    """This rank's rows: new ones, or a checkpoint's. None where the classifier is not sharded. All ranks must call.

    Raises:
        UserError: the settings need a second copy of a classifier that is kept once.
    """
    sharding, classes = config.train.sharding, len(model.log_prior_C)
    if not is_sharded(config, classes):
        return None
    if config.train.ema or config.train.patience:
        name = "ema" if config.train.ema else "patience"
        raise UserError(
            f"train.{name} keeps a second copy of the weights, and the classifier of {classes:,} classes is sharded: "
            f"set it to 0, or raise train.sharding.above"
        )
    if config.evaluate.seeds:
        raise UserError(
            f"evaluate.seeds trains in one process each, and the classifier of {classes:,} classes is sharded: "
            f"set it to 0, or raise train.sharding.above"
        )
    rows_RD = initial_rows(classes, config.model.dimension, rank, world, config.train.seed).to(device)
    optimiser = OPTIMISERS[sharding.optimiser](rows_RD)
    head = ShardedClassifier(
        rows_RD,
        model.log_prior_C,
        optimiser,
        kind=config.model.classifier,
        tau=config.model.loss.tau,
        sampled=sharding.sampled,
        rank=rank,
        world=world,
    )
    if checkpoint:
        first, end = bounds(classes, rank, world)
        for name, tensor in {"rows": rows_RD, **optimiser.state}.items():
            read(checkpoint, name, first, end, tensor)
    else:
        begin_with_words(model, head, prepared, rank, world)
    return head


def is_sharded(config: Experiment, classes: int) -> bool:
    """Whether so many classes are dealt to the workers."""
    return classes > config.train.sharding.above


def save(head: ShardedClassifier, folder: Path) -> None:
    """Write this rank's rows and the state of their optimiser."""
    write(folder, head.first, {"rows": head.rows_RD, **head.optimiser.state})


def write(folder: Path, first: int, tensors: dict[str, Tensor]) -> None:
    """Write the tensors of a range of classes; nothing for an empty one."""
    end = first + len(tensors["rows"])
    if end > first:
        kept = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        save_file(kept, folder / f"rows-{first:010d}-{end:010d}.safetensors")


def read(folder: Path, name: str, first: int, end: int, into: Tensor) -> None:
    """Fill ``into`` with the tensor ``name`` of classes first … end - 1.

    Raises:
        UserError: files of some of the classes are missing.
    """
    met = 0
    for path in folder.glob("rows-*.safetensors"):
        begin, stop = (int(part) for part in path.stem.split("-")[1:])
        low, high = max(first, begin), min(end, stop)
        if low < high:
            with safe_open(path, framework="pt") as file:
                into[low - first : high - first] = file.get_slice(name)[low - begin : high - begin]
            met += high - low
    if met < end - first:
        raise UserError(f"{folder} has {met:,} of classes {first:,} to {end:,}: files of the checkpoint are missing")


def all_rows(folder: Path, classes: int, dimension: int) -> Tensor:
    """The rows of all classes, rows_CD."""
    rows_CD = torch.empty(classes, dimension)
    read(folder, "rows", 0, classes, rows_CD)
    return rows_CD
