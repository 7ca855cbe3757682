"""Questions that wait together are answered together.

A thread takes all that wait, up to a batch, and never waits for more to come. So a lone question is answered at once,
and under load the batches fill by themselves. Small photos it decodes itself: handing each from one thread to another
costs more than that. Large ones, which would hold up the others of their batch, are decoded by another thread first.
Nothing of it runs on the event loop but its beginning and its end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from sicot.bundle import Answer, Item, Query
from sicot.endpoint.telemetry import Telemetry

LARGE = 64_000
"""Bytes of a photo from which on it is decoded apart: about a millisecond."""


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
    """Seconds, for a thread that decodes and for one that answers."""

    def wait(self) -> None:
        """Begin to."""
        self.waiting_since = time.perf_counter()

    def go_on(self) -> None:
        """The wait is over."""
        self.waited += time.perf_counter() - self.waiting_since


class Batches:
    """Answers questions of any number of tasks of an event loop."""

    def __init__(
        self,
        decode: Callable[[Query], Item],
        answer: Callable[[Sequence[Item], int], list[Answer]],
        most: int,
        threads: int,
        telemetry: Telemetry | None = None,
    ):
        """
        Args:
            decode: makes a question ready; what it raises goes to whom asked.
            answer: answers questions that are ready, ranking so many classes.
            most: questions answered at once.
            threads: batches answered at once, and large photos decoded meanwhile.
            telemetry: is told how long questions wait, and how many are answered at once.
        """
        self.decode, self.answer, self.most, self.telemetry = decode, answer, most, telemetry
        self.decoders = ThreadPoolExecutor(threads, "decode")
        self.waiting: SimpleQueue[Asked | None] = SimpleQueue()
        self.threads = [Thread(target=self._work, name=f"model-{n}", daemon=True) for n in range(threads)]
        for thread in self.threads:
            thread.start()

    async def ask(self, query: Query, k: int) -> Answer:
        """The answer, with k classes. Who is cancelled meanwhile costs no more than was begun."""
        loop = asyncio.get_running_loop()
        asked = Asked(query, k, loop, loop.create_future())
        if len(query.image or b"") < LARGE:
            self.waiting.put(asked)
        else:
            self.decoders.submit(self._apart, asked)
        return await asked.future

    def close(self) -> None:
        """End the threads, once what waits is answered. Nothing may be asked any more."""
        self.decoders.shutdown()
        for _ in self.threads:
            self.waiting.put(None)

    def _apart(self, asked: Asked) -> None:
        """Decode a large photo, then let it wait with the others."""
        asked.go_on()
        if self._decoded(asked):
            asked.wait()
            self.waiting.put(asked)

    def _decoded(self, asked: Asked) -> Item | None:
        """What was asked, ready for the model. None where nobody waits for it any more, or it cannot be read."""
        if asked.item is None and not asked.future.cancelled():
            try:
                asked.item = self.decode(asked.query)
            except Exception as error:  # noqa: BLE001  whoever asked gets it
                asked.loop.call_soon_threadsafe(_settle, [(asked, error)])
        return asked.item

    def _work(self) -> None:
        while taken := self._take():
            for asked in taken:
                asked.go_on()
            ready = {asked: item for asked in taken if (item := self._decoded(asked)) and not asked.future.cancelled()}
            if not ready:
                continue
            batch = list(ready)
            self._note(batch)
            outcomes: Sequence[Any]
            try:
                answers = self.answer(list(ready.values()), max(asked.k for asked in batch))
                outcomes = [
                    replace(answer, ranked=answer.ranked[: asked.k])
                    for answer, asked in zip(answers, batch, strict=True)
                ]
            except Exception as error:  # noqa: BLE001  whoever asked gets it
                outcomes = [error] * len(batch)
            batch[0].loop.call_soon_threadsafe(_settle, list(zip(batch, outcomes, strict=True)))

    def _note(self, batch: Sequence[Asked]) -> None:
        if self.telemetry:
            for asked in batch:
                self.telemetry.took("queue", asked.waited)
            self.telemetry.batch(len(batch))

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


def _settle(outcomes: Sequence[tuple[Asked, Answer | Exception]]) -> None:
    """On the event loop: one wake-up for a batch."""
    for asked, outcome in outcomes:
        if asked.future.done():
            continue
        if isinstance(outcome, Exception):
            asked.future.set_exception(outcome)
        else:
            asked.future.set_result(outcome)
