"""How a process computes where there is no GPU."""

from __future__ import annotations

import platform
import resource
from threading import Thread

import pytest
import ray
import torch

from sicot.config import Train
from sicot.config import Visual as Settings
from sicot.model.visual import Visual
from sicot.train import processor
from sicot.train.learner import half_precision


def faults(keep: bool) -> int:
    """Pages that the system had to give a training of ten steps, 256 MiB each."""
    counts = []

    def count() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

    def steps() -> None:
        if keep:
            processor.use(1)
        for step in range(16):
            if step == 6:  # before, what is kept grows
                begun = count()
            blocks = [torch.ones(64 << 18) for _ in range(4)]
            del blocks
        counts.append(count() - begun)

    thread = Thread(target=steps)  # where Ray Train and Tune run what is theirs
    thread.start()
    thread.join()
    return counts[0]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")
def test_a_step_is_given_the_memory_that_the_one_before_has_freed(ray_cluster: None) -> None:
    alone = ray.remote(max_calls=1)(faults)
    kept, given_back = ray.get([alone.remote(True), alone.remote(False)])
    assert kept < 1000
    assert given_back > 500_000


def test_depthwise_convolutions_learn_in_float32_and_are_asked_in_what_is_fast() -> None:
    cpu, auto = torch.device("cpu"), Train(precision="auto")
    small, dense = Visual(Settings(trunk="mobilenet_v2"), 32, 8), Visual(Settings(trunk="resnet18"), 32, 8)
    kept = Visual(Settings(trunk="mobilenet_v2", freeze=1.0), 32, 8)
    fast = half_precision(auto, cpu)  # None where the processor lacks bf16
    assert half_precision(auto, cpu, small) is None
    assert half_precision(auto, cpu, dense) is fast
    assert half_precision(auto, cpu, kept) is fast
    assert half_precision(Train(precision="bf16"), cpu, small) is torch.bfloat16
    assert half_precision(Train(precision="fp32"), cpu, dense) is None
