"""When questions that wait are answered, and by whom: by the event loop itself, or by threads of their own.

On a core a thread that answers and the event loop only take turns, and each change of turn costs: of 128-pixel photos
the loop alone answers a quarter more. So that is what a process with one thread does. It first reads what has arrived,
and then answers no more at a time than keeps others from being read for `HOLD` seconds.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Thread

from sicot.bundle import Answer, Item, Query

HOLD = 0.025
"""Seconds that the event loop answers questions before it turns to others; a single one may take longer."""
WAIT = 0.001
"""Seconds that it waits for as many questions as it answered last: clients that are answered together ask together
again, and a batch costs less than its halves."""
QUIET = 3
"""Rounds of the event loop without a new question after which it answers: so many take one from its socket to here."""


@dataclass(eq=False)
class Asked:
    """A question on its way."""

    query: Query
    k: int
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Answer]
    item: Item | None = None
    """The question made ready."""
    waiting_since: float = field(default_factory=time.perf_counter)
    waited: float = 0.0
    """Seconds, to be decoded and to be answered."""

    def wait(self) -> None:
        """Begin to."""
        self.waiting_since = time.perf_counter()

    def go_on(self) -> None:
        """The wait is over."""
        self.waited += time.perf_counter() - self.waiting_since


class OnLoop:
    """The event loop answers. All that is asked is asked on one loop."""

    def __init__(self, answer: Callable[[Sequence[Asked]], None], most: int):
        """
        Args:
            answer: answers a batch.
            most: questions in one.
        """
        self.answer, self.most = answer, most
        self.waiting: deque[Asked] = deque()
        self.fit, self.last = most, 1
        self.rounds, self.since = 0, 0.0
        self.timer: asyncio.TimerHandle | None = None

    def put(self, asked: Asked) -> None:
        """One more waits. Called from any thread."""
        asked.loop.call_soon_threadsafe(self._arrive, asked)

    def close(self) -> None:
        """Nothing ends: what waits is answered as long as the loop runs."""

    def _arrive(self, asked: Asked) -> None:
        self.waiting.append(asked)
        self.rounds = QUIET
        if len(self.waiting) == 1:
            self.since = time.perf_counter()
            asked.loop.call_soon(self._turn)
        elif self.timer and len(self.waiting) >= self.last:
            self.timer.cancel()
            asked.loop.call_soon(self._turn)
            self.timer = None

    def _turn(self) -> None:
        self.timer = None
        loop, waiting = self.waiting[0].loop, len(self.waiting)
        if self.rounds and waiting < self.fit:
            self.rounds -= 1
            loop.call_soon(self._turn)
        elif waiting < min(self.last, self.fit) and (left := self.since + WAIT - time.perf_counter()) > 0:
            self.timer = loop.call_later(left, self._turn)
        else:
            self._answer_some()
            if self.waiting:
                loop.call_soon(self._turn)

    def _answer_some(self) -> None:
        batch = [self.waiting.popleft() for _ in range(min(self.fit, len(self.waiting)))]
        begun = time.perf_counter()
        self.answer(batch)
        self.since = time.perf_counter()
        fit = int(HOLD * len(batch) / max(self.since - begun, 1e-6))
        self.fit, self.last, self.rounds = min(max(fit, 1), self.most), len(batch), QUIET


class OnThreads:
    """Threads answer; each takes all that wait, up to a batch, and never waits for more."""

    def __init__(self, answer: Callable[[Sequence[Asked]], None], most: int, threads: int):
        """
        Args:
            answer: answers a batch.
            most: questions in one.
            threads: batches answered at once.
        """
        self.answer, self.most = answer, most
        self.waiting: SimpleQueue[Asked | None] = SimpleQueue()
        self.threads = [Thread(target=self._work, name=f"model-{n}", daemon=True) for n in range(threads)]
        for thread in self.threads:
            thread.start()

    def put(self, asked: Asked) -> None:
        """One more waits. Called from any thread."""
        self.waiting.put(asked)

    def close(self) -> None:
        """End the threads, once what waits is answered. Nothing may be put any more."""
        for _ in self.threads:
            self.waiting.put(None)

    def _work(self) -> None:
        while batch := self._take():
            self.answer(batch)

    def _take(self) -> list[Asked]:
        """All that wait, at most a batch; at least one, or none when it is time to end."""
        batch: list[Asked] = []
        while len(batch) < self.most:
            try:
                asked = self.waiting.get(block=not batch)
            except Empty:
                break
            if asked is None:
                if batch:
                    self.waiting.put(None)  # after these
                break
            batch.append(asked)
        return batch
