"""One measurement in processes of its own, so that the memory of one method is not counted to another.

B rows of a batch, S streams, D dimension, C classes, R rows of a rank.
"""

from __future__ import annotations

import math
import resource
import time
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional

from benchmarks.classes.methods import METHODS, Adaptive, Method

SCALE = 16.0
PARTS = 32  # values of each of the parts that classes are made of
HELD = 2048  # rows that the loss is measured on
BLOCK = 16_384


@dataclass(frozen=True)
class Setting:
    """What is measured."""

    method: str
    classes: int
    workers: int
    dimension: int
    batch: int
    """Products of all workers in a step."""
    sampled: int
    steps: int
    warm: int
    """First steps, which are not timed."""
    device: str
    threads: int


def work(rank: int, setting: Setting, port: int, pipe: Connection) -> None:
    """Measure, and send figures (rank 0's, with the greatest memory of all)."""
    torch.set_num_threads(setting.threads)
    device = torch.device(setting.device)
    if setting.workers > 1:
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            init_method=f"tcp://127.0.0.1:{port}",
            rank=rank,
            world_size=setting.workers,
        )
    batches = Batches(setting, rank, device)
    batches.draw(setting.batch)
    idle = _peak(device)
    method: Method = METHODS[setting.method](
        setting.classes, setting.dimension, setting.sampled, rank, setting.workers, device
    )
    seconds = []
    for _ in range(setting.warm + setting.steps):
        x_BSD, labels_B = batches.draw(setting.batch // setting.workers)
        begun = _now(device)
        method.step(x_BSD, labels_B)
        seconds.append(_now(device) - begun)
    figures = {
        "samples_per_s": setting.batch / float(np.median(seconds[setting.warm :])),
        "peak_mb": _peak(device),
        "idle_mb": idle,
        "state_mb": method.state_bytes() / 2**20,
        "loss": held_loss(method, setting, device),
    }
    pipe.send({**asdict(setting), **figures})


class Batches:
    """Rows of classes as frequent as Zipf's law says, class 0 most: each class a sum of shared parts, each row near it.

    Stream 0 stands for the photo, stream 1 for photo and words: nearer to the class.
    """

    def __init__(self, setting: Setting, rank: int, device: torch.device):
        self.random = torch.Generator().manual_seed(rank)
        self.classes, self.device = setting.classes, device
        digits = max(1, math.ceil(math.log(setting.classes, PARTS)))
        self.parts = torch.randn(digits, PARTS, setting.dimension, generator=torch.Generator().manual_seed(0))

    def draw(self, rows: int) -> tuple[Tensor, Tensor]:
        """x_BSD, times the scale, and labels_B."""
        # the inverse of Zipf's law for exponent 1
        uniform_B = torch.rand(rows, generator=self.random, dtype=torch.double)
        labels_B = (uniform_B * math.log(self.classes + 1)).exp().sub(1).long().clamp(max=self.classes - 1)
        centre_BD, rest_B = torch.zeros(rows, self.parts.shape[2]), labels_B
        for part in self.parts:
            centre_BD += part[rest_B % PARTS]
            rest_B = rest_B // PARTS
        centre_B1D = functional.normalize(centre_BD, dim=1)[:, None]
        noise_BSD = functional.normalize(torch.randn(rows, 2, centre_BD.shape[1], generator=self.random), dim=2)
        x_BSD = SCALE * functional.normalize(centre_B1D + torch.tensor([0.8, 0.5])[:, None] * noise_BSD, dim=2)
        return x_BSD.to(self.device), labels_B.to(self.device)


@torch.no_grad()
def held_loss(method: Method, setting: Setting, device: torch.device) -> float:
    """Cross-entropy over all classes of the photo's stream, on rows of no batch."""
    held = Batches(setting, 10_000, device)
    x_BSD, labels_B = held.draw(HELD)
    x_BD = x_BSD[:, 0]
    if isinstance(method, Adaptive):
        return float(method.softmax(x_BD, labels_B).loss)
    assert method.rows_RD is not None
    lse = [x_BD.new_full((HELD,), -math.inf)]
    truth_B = x_BD.new_zeros(HELD)
    for low in range(0, len(method.rows_RD), BLOCK):
        unit_KD = functional.normalize(method.rows_RD[low : low + BLOCK], dim=1)
        z_BK = x_BD @ unit_KD.T
        lse.append(z_BK.logsumexp(1))
        place_B = labels_B - method.first - low
        here_B = (place_B >= 0) & (place_B < len(unit_KD))
        truth_B[here_B] = z_BK[here_B, place_B[here_B]]
    lse_B = torch.stack(lse).logsumexp(0)
    if setting.workers > 1 and len(method.rows_RD) < setting.classes:
        total_B = lse_B.exp()  # at most e^16 a class: no overflow in double
        dist.all_reduce(total_B)
        dist.all_reduce(truth_B)
        lse_B = total_B.log()
    return float((lse_B - truth_B).mean())


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _peak(device: torch.device) -> float:
    """Most memory so far, MiB: of the GPU's where there is one, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status")
    if status.exists():  # getrusage counts what the parent held before this process became itself
        return float(status.read_text().partition("VmHWM:")[2].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def measured(figures: list[dict[str, Any]]) -> dict[str, Any]:
    """One row of all ranks' figures: rank 0's, with the memory of the worker that takes most."""
    worst = max(figures, key=lambda each: each["peak_mb"])
    return {**figures[0], "peak_mb": worst["peak_mb"], "idle_mb": worst["idle_mb"]}
