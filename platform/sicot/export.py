"""Figures of a process on their way to Prometheus, by Ray's agent on each node.

The agent forgets what a gauge of a process showed half a minute after the process is gone. Where Ray is not up, figures
go nowhere, without a word.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ray.util import metrics


@dataclass(frozen=True, eq=False)
class Metric:
    """One figure; Ray puts `ray_` before its name, and `_total` behind a counter's."""

    kind: Literal["counter", "gauge", "histogram"]
    name: str
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    """Of a histogram's buckets."""


class Export:
    """Hands over the figures of one process; each call takes about a microsecond."""

    def __init__(self, figures: Iterable[Metric]):
        """For these figures alone."""
        self.made = {metric: _made(metric) for metric in figures}

    def observe(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        """One more value of a histogram."""
        self.made[metric].observe(value, labels)

    def add(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        """So much more on a counter."""
        self.made[metric].inc(value, labels)

    def set(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        """What a gauge shows from now on."""
        self.made[metric].set(value, labels)


def _made(metric: Metric) -> Any:
    if metric.kind == "histogram":
        return metrics.Histogram(metric.name, metric.help, list(metric.bounds), metric.labels)
    return {"counter": metrics.Counter, "gauge": metrics.Gauge}[metric.kind](metric.name, metric.help, metric.labels)
