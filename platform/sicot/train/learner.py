"""One co-training step in plain PyTorch: model, optimiser, schedule, averaged weights. Knows no Ray and no files."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from sicot.config import Train
from sicot.model.recognizer import STREAMS, SICoT, Streams
from sicot.model.sharded import ShardedClassifier
from sicot.train.augment import augment
from sicot.train.loader import Batch


class Learner:
    """Takes steps with a model on one rank; :meth:`state` and :meth:`restore` make it resumable."""

    def __init__(
        self,
        config: Train,
        model: SICoT,
        moves: int,
        device: torch.device,
        world: int = 1,
        head: ShardedClassifier | None = None,
    ):
        """
        Args:
            config: the train section.
            model: moved to ``device``; it is trained in place.
            moves: how often the weights will move in the whole training, for the schedule.
            device: where to train.
            world: number of ranks; above 1 a process group must be up.
            head: this rank's rows of the classifier, where it is sharded.
        """
        self.config, self.device, self.head = config, device, head
        self.model = model.to(device)
        if config.channels_last:
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if config.compile:
            self.model.visual.trunk.compile()
        replicated: nn.Module = Streams(self.model) if head else self.model
        self.parallel: nn.Module = _parallel(replicated) if world > 1 else replicated
        self.averaged = (
            AveragedModel(self.model, multi_avg_fn=average(config.ema), use_buffers=True) if config.ema else None
        )
        self.dtype = half_precision(config, device, model)
        self.optimiser = torch.optim.AdamW(parameter_groups(config, model), fused=True)
        self.pace = partial(warmup_cosine, moves=moves, warmup=config.warmup)
        self.schedule = LambdaLR(self.optimiser, self.pace)
        self.held = 0  # batches whose gradients wait

    @property
    def kept(self) -> SICoT:
        """The model that is evaluated and kept: the averaged one if weights are averaged."""
        return self.averaged.module if self.averaged else self.model  # type: ignore[return-value]

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """bf16 where it pays, else nothing."""
        return torch.autocast(self.device.type, self.dtype) if self.dtype else contextlib.nullcontext()

    def step(self, batch: Batch, move: bool = False) -> dict[str, Tensor]:
        """Learn from a batch; loss parts by name, on the device (reading them would wait for it).

        The weights move after ``accumulate`` batches, or at once if ``move``: before a checkpoint nothing may wait.
        """
        self.model.train()
        self.held += 1
        moves = move or self.held == self.config.accumulate
        # between moves, gradients stay on their rank
        together = isinstance(self.parallel, DistributedDataParallel)
        hold = self.parallel.no_sync() if together and not moves else contextlib.nullcontext()  # type: ignore[operator]
        batch = batch.to(self.device)
        with hold, self.autocast():
            said = self.parallel(augment(batch.images_BHW3, self.config.augment), batch.words_BT, batch.labels_B)
            parts = said if self.head is None else self._sharded(self.head, batch.labels_B, *said)
            parts["loss"].backward()
        if moves:
            if self.head:
                self.head.step(self._rows_rate(), self.held)
            if self.held > 1:
                for parameter in self.model.parameters():
                    if parameter.grad is not None:
                        parameter.grad /= self.held
            self.held = 0
            if self.config.clip:
                nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
            self.optimiser.step()
            self.optimiser.zero_grad(set_to_none=True)
            self.schedule.step()
            if self.averaged:
                self.averaged.update_parameters(self.model)
        return {name: part.detach() for name, part in parts.items()}

    def _rows_rate(self) -> float:
        """Learning rate of a sharded classifier's rows in this step."""
        rows = self.config.sharding
        return rows.learning_rate * (self.pace(self.schedule.last_epoch) if rows.schedule == "cosine" else 1.0)

    def _sharded(
        self, head: ShardedClassifier, labels_B: Tensor, x_BSD: Tensor, counts_BS: Tensor, contrast: Tensor
    ) -> dict[str, Tensor]:
        """Loss parts where the classifier is sharded."""
        weights = self.model.config.loss
        streams = STREAMS[: x_BSD.shape[1]]
        weights_S = x_BSD.new_tensor([getattr(weights, name) for name in streams])
        distill = weights.distill if len(streams) > 1 else 0.0
        with torch.autocast(self.device.type, enabled=False):
            loss, parts = head.loss(x_BSD.float(), labels_B, weights_S, counts_BS, distill, self.dtype)
        named = dict(zip((*streams, "distill"), parts, strict=False))
        if weights.contrast and len(streams) > 1:
            named["contrast"] = contrast
        return {"loss": loss + weights.contrast * contrast, **named}

    def state(self) -> dict[str, Any]:
        """All that the next step depends on; a sharded classifier's rows are saved by :mod:`sicot.train.shards`."""
        return {
            "model": self.model.state_dict(),
            "averaged": self.averaged.state_dict() if self.averaged else None,
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state`."""
        self.model.load_state_dict(state["model"])
        if self.averaged:
            self.averaged.load_state_dict(state["averaged"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])


def average(decay: float) -> Callable[[Any, Any, Any], None]:
    """The update of averaged weights: their decay climbs to ``decay`` as (1 + t) / (10 + t) with the moves t.

    A short training would otherwise keep mostly its random start.
    """

    def update(averaged: Any, current: Any, moves: Tensor) -> None:
        t = float(moves)
        get_ema_multi_avg_fn(min(decay, (1 + t) / (10 + t)))(averaged, current, moves)

    return update


def _parallel(model: nn.Module) -> DistributedDataParallel:
    """The model with gradients averaged over ranks.

    Its buffers, batch statistics and the log prior of each class, stay on their rank: another needs them only when the
    epoch is over, see :func:`sicot.train.worker.fit`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # newer PyTorch calls it otherwise
        return DistributedDataParallel(model, broadcast_buffers=False)


def half_precision(config: Train, device: torch.device, learning: nn.Module | None = None) -> torch.dtype | None:
    """bf16 if it is asked for, or on auto if it is fast there; None for float32.

    A GPU is fast where it computes in bf16. So is a processor, unless depthwise convolutions are ``learning``: a step
    of MobileNetV2 takes a quarter longer in bf16 than in float32, one of EfficientNet two thirds.
    """
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = torch.cpu._is_avx512_bf16_supported() and not (learning and _depthwise(learning))
    return torch.bfloat16 if config.precision == "bf16" or (config.precision == "auto" and fast) else None


def _depthwise(net: nn.Module) -> bool:
    convolutions = (part for part in net.modules() if isinstance(part, nn.Conv2d) and part.weight.requires_grad)
    return any(1 < part.groups == part.in_channels for part in convolutions)


def parameter_groups(config: Train, model: SICoT) -> list[dict[str, Any]]:
    """AdamW's groups: trunk, word vectors and the rest at their own rates; vectors and scalars do not decay."""
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        factor = 1.0
        if name.startswith("visual.trunk."):
            factor = config.trunk_rate
        elif name.startswith("semantic.vectors."):
            factor = config.word_rate
        decays = parameter.ndim > 1 and not name.startswith("semantic.vectors.")
        groups.setdefault((factor, decays), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": config.learning_rate * factor,
            "weight_decay": config.weight_decay if decays else 0.0,
        }
        for (factor, decays), parameters in groups.items()
    ]


def warmup_cosine(move: int, moves: int, warmup: float) -> float:
    """Factor of the learning rate: a linear climb over the first ``warmup`` share, then half a cosine to 0."""
    climb = max(1, round(moves * warmup))
    if move < climb:
        return (move + 1) / climb
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (move - climb) / max(1, moves - climb))))
