"""What an operator sees of the endpoint: figures for Prometheus, and a line in the log for what was refused.

Figures go to a :class:`Sink`, which hands them to Ray: its agent on each node exports those of all replicas there. A
page of metrics on the endpoint's own port would be that of one replica, another one each time it is asked.

Labels take few values, all of them ours. Nothing that a client sends becomes one, or stands in a line of the log, but
the id of its request.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Mapping
from threading import Lock
from typing import Protocol

from starlette.types import Scope

from sicot import bundle, config
from sicot.drift import Window
from sicot.export import Metric

log = logging.getLogger(__name__)

LEFT, OTHER = 499, "other"
"""Status of a request whose client left, and path of what has no route."""
FLUSH_SECONDS = 5.0
"""How often counts are handed over."""
QUIET_SECONDS = 1.0
"""A refusal of the same kind is logged once in this time."""
TIMES = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
STAGES = ("read", "decode", "queue", "model", "search")
"""Of an answer: reading the body, decoding the photo, waiting for a thread, the visual network, the rest (attention,
comparing with the classes)."""
REQUESTS = Metric("counter", "sicot_requests", "Requests, by route and outcome.", ("path", "status", "code"))
SECONDS = Metric("histogram", "sicot_request_seconds", "Time of requests that were answered.", ("path",), TIMES)
STAGE_SECONDS = 0.05
"""A stage is timed once in this time: under load, handing over five times an answer would take a twentieth of all work,
here and in Ray's agent."""
STAGE = Metric("histogram", "sicot_stage_seconds", "Time of some of the answers by stage.", ("stage",), TIMES)
BATCH = Metric("histogram", "sicot_batch_size", "Questions answered at once.", (), (1, 2, 4, 8, 12, 16, 24, 32, 64))
CACHE = Metric("counter", "sicot_cache", "Questions that were kept from before (hit), or not (miss).", ("outcome",))
ANSWERS = Metric(
    "counter", "sicot_answers", "Answers, by way of asking and group of the first class.", ("asked", "group", "unknown")
)
SCORE = Metric("histogram", "sicot_score", "Score of answers.", ("asked",), tuple(n / 20 for n in range(1, 21)))
PSI = Metric("gauge", "sicot_score_psi", "Drift of scores from those of validation; NaN: not enough yet.", ("asked",))
MODEL = Metric("gauge", "sicot_model_info", "1 for the model that this replica serves.", ("name", "version", "digest"))
REPLICAS = Metric("gauge", "sicot_replicas", "Replicas that there should be.")
METRICS = (REQUESTS, SECONDS, STAGE, BATCH, CACHE, ANSWERS, SCORE, PSI, MODEL, REPLICAS)


class Sink(Protocol):
    """Where figures go. Called from any thread."""

    def observe(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        """One more value of a histogram."""
        ...

    def add(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        """So much more on a counter."""
        ...

    def set(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        """What a gauge shows from now on; NaN: nothing."""
        ...


class Telemetry:
    """Takes note of what one process of the endpoint does."""

    def __init__(self, settings: config.Serve, sink: Sink | None = None):
        """
        Args:
            settings: of the endpoint.
            sink: where figures go; None where nobody looks at any.
        """
        self.settings, self.sink = settings, sink
        self.counts: Counter[tuple[Metric, tuple[str, ...]]] = Counter()
        self.windows: dict[str, Window] = {}
        self.model: tuple[str, ...] = ()
        self.timed: dict[str, float] = {}
        self.refused: dict[tuple[int, str], tuple[float, int]] = {}
        self.lock = Lock()

    def request(self, scope: Scope, status: int, seconds: float) -> None:
        """A request is over.

        Args:
            scope: of the request, with the route that was found, and in its state the id and the error's code.
            status: HTTP status; 0 for who left before there was one, which is counted as 499.
            seconds: it took.
        """
        path, code = getattr(scope.get("route"), "path", OTHER), scope["state"].get("code", "")
        status = status or LEFT
        self._count(REQUESTS, path, str(status), code)
        if status < 400:
            self._observe(SECONDS, seconds, path)
        elif status != LEFT:
            self._log_refusal(status, code, scope["state"]["request_id"])

    def took(self, stage: str, seconds: float) -> None:
        """A stage of `STAGES` of an answer; kept of some of them."""
        now = time.perf_counter()
        if now >= self.timed.get(stage, -math.inf) + STAGE_SECONDS:
            self.timed[stage] = now
            self._observe(STAGE, seconds, stage)

    def batch(self, size: int) -> None:
        """So many questions are answered at once."""
        self._observe(BATCH, size)

    def cache(self, hit: bool) -> None:
        """A question whose answer was kept, or was not."""
        self._count(CACHE, "hit" if hit else "miss")

    def answer(self, answer: bundle.Answer, digest: str) -> None:
        """What a client is answered, by the model of that digest; drift is the champion's alone."""
        self._count(ANSWERS, answer.regime, answer.group, str(answer.unknown).lower())
        self._observe(SCORE, answer.score, answer.regime)
        window = self.windows.get(answer.regime)
        if window and digest[:12] == self.model[-1]:
            with self.lock:
                window.add(answer.score, time.monotonic())

    def flush(self, info: bundle.Info, version: str) -> None:
        """Hand over what was counted, and what gauges show of the model that answers now.

        Where that is another one than before, drift is counted anew.
        """
        named = (info.name, version, info.digest[:12])
        before, self.model = self.model, named
        gone = set(self.windows)
        if named != before:
            self.windows = {asked: Window(each, self.settings.drift_seconds) for asked, each in info.scores.items()}
        with self.lock:
            counts, self.counts = self.counts, Counter()
            drifts = {asked: window.psi(time.monotonic()) for asked, window in self.windows.items()}
        if not self.sink:
            return
        for (metric, labels), count in counts.items():
            self.sink.add(metric, count, _labels(metric, labels))
        for asked in gone | set(drifts):
            drift = drifts.get(asked)
            self.sink.set(PSI, math.nan if drift is None else drift, {"asked": asked})
        if before and named != before:
            self.sink.set(MODEL, math.nan, _labels(MODEL, before))
        self.sink.set(MODEL, 1, _labels(MODEL, named))
        self.sink.set(REPLICAS, self.settings.replicas, {})

    def _count(self, metric: Metric, *labels: str) -> None:
        """Kept here until it is handed over: Ray takes twenty times as long for it."""
        with self.lock:
            self.counts[metric, labels] += 1

    def _observe(self, metric: Metric, value: float, *labels: str) -> None:
        if self.sink:
            self.sink.observe(metric, value, _labels(metric, labels))

    def _log_refusal(self, status: int, code: str, request_id: str) -> None:
        """One line for each kind of refusal in a while, however many there are; it says how many went before."""
        now = time.monotonic()
        last, unsaid = self.refused.get((status, code), (-math.inf, 0))
        if now - last < QUIET_SECONDS:
            self.refused[status, code] = (last, unsaid + 1)
            return
        self.refused[status, code] = (now, 0)
        said = {"event": "refused", "status": status, "code": code, "request_id": request_id, "unsaid": unsaid}
        log.warning("refused: %d %s", status, code, extra=said)


def _labels(metric: Metric, values: tuple[str, ...]) -> dict[str, str]:
    return dict(zip(metric.labels, values, strict=True))
