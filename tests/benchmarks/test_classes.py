"""The benchmark of class counts measures every method, and outlives a worker that the system kills for its memory."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from multiprocessing.connection import Connection

import pytest

from benchmarks.classes import __main__ as classes
from benchmarks.classes.methods import METHODS
from benchmarks.classes.worker import Setting

SMALL = Setting(
    method="ours",
    classes=300,
    workers=1,
    dimension=16,
    batch=32,
    sampled=60,
    steps=2,
    warm=1,
    device="cpu",
    threads=1,
)


@pytest.mark.parametrize(("method", "workers"), [*((method, 1) for method in METHODS), ("ours", 2)])
def test_a_method_is_measured(method: str, workers: int) -> None:
    figures = classes.run(replace(SMALL, method=method, workers=workers))
    assert figures is not None
    assert figures["samples_per_s"] > 0
    assert 0 < figures["loss"] < 20
    assert figures["peak_mb"] >= figures["idle_mb"] > 0


def killed(rank: int, setting: Setting, port: int, pipe: Connection) -> None:
    """A worker that has taken too much memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def broken(rank: int, setting: Setting, port: int, pipe: Connection) -> None:
    """A worker with a mistake."""
    raise SystemExit(3)


def test_a_worker_killed_by_the_system_costs_its_row_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classes, "work", killed)
    assert classes.run(SMALL) is None


def test_a_worker_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classes, "work", broken)
    with pytest.raises(SystemExit, match="ended before it had measured anything"):
        classes.run(SMALL)
