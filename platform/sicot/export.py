"""Figures of a process on their way to Prometheus, by Ray's agent on each node.

The agent forgets a gauge that it was not told for some seconds, so that those of a process that is gone do not stay.
What is to be seen for longer is told again and again. Where Ray is not up, figures go nowhere, without a word.
"""

from __future__ import annotations

import math
import time
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from threading import Lock, Thread
from typing import Any, Literal

from ray.util import metrics

AGAIN = 1.0
"""Seconds after which gauges are told again; Ray's agent waits for twice its report interval, which is 1 s or more."""


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
        self.shown: dict[tuple[Metric, tuple[tuple[str, str], ...]], float] = {}
        self.lock = Lock()
        Thread(target=_keep_telling, args=(weakref.ref(self),), name="gauges", daemon=True).start()

    def observe(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        """One more value of a histogram."""
        self.made[metric].observe(value, labels)

    def add(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        """So much more on a counter."""
        self.made[metric].inc(value, labels)

    def set(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        """What a gauge shows from now on; NaN: that there is nothing, until Ray forgets it."""
        with self.lock:
            key = (metric, tuple(labels.items()))
            if math.isnan(value):
                self.shown.pop(key, None)
            else:
                self.shown[key] = value
            self.made[metric].set(value, labels)

    def tell_again(self) -> None:
        """Tell what gauges show."""
        with self.lock:
            for (metric, labels), value in self.shown.items():
                self.made[metric].set(value, dict(labels))


def _keep_telling(export: weakref.ref[Export]) -> None:
    while told := export():
        told.tell_again()
        del told  # whoever drops it ends this, too
        time.sleep(AGAIN)


def _made(metric: Metric) -> Any:
    if metric.kind == "histogram":
        return metrics.Histogram(metric.name, metric.help, list(metric.bounds), metric.labels)
    return {"counter": metrics.Counter, "gauge": metrics.Gauge}[metric.kind](metric.name, metric.help, metric.labels)
