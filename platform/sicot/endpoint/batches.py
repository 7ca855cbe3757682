"""Questions that wait together are answered together.

A thread decodes, another answers: it takes all that wait, up to a batch, and never waits for more to come. So a lone
question is answered at once, and under load the batches fill by themselves. Nothing of it runs on the event loop but
its beginning and its end.
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


@dataclass
class Asked:
    """A question on its way."""

    query: Query
    k: int
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Answer]
    item: Item = field(init=False)
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
            threads: batches answered at once, and photos decoded meanwhile.
            telemetry: is told how long questions wait, and how many are answered at once.
        """
        self.decode, self.answer, self.most, self.telemetry = decode, answer, most, telemetry
        self.decoders = ThreadPoolExecutor(threads, "decode")
        self.ready: SimpleQueue[Asked | None] = SimpleQueue()
        self.threads = [Thread(target=self._work, name=f"model-{n}", daemon=True) for n in range(threads)]
        for thread in self.threads:
            thread.start()

    async def ask(self, query: Query, k: int) -> Answer:
        """The answer, with k classes. Who is cancelled meanwhile costs no more than was begun."""
        loop = asyncio.get_running_loop()
        asked = Asked(query, k, loop, loop.create_future())
        self.decoders.submit(self._decode, asked)
        return await asked.future

    def close(self) -> None:
        """End the threads, once what waits is answered. Nothing may be asked any more."""
        self.decoders.shutdown()
        for _ in self.threads:
            self.ready.put(None)

    def _decode(self, asked: Asked) -> None:
        if asked.future.cancelled():
            return
        asked.go_on()
        try:
            asked.item = self.decode(asked.query)
        except Exception as error:  # noqa: BLE001  whoever asked gets it
            asked.loop.call_soon_threadsafe(_settle, [(asked, error)])
        else:
            asked.wait()
            self.ready.put(asked)

    def _work(self) -> None:
        while taken := self._take():
            batch = [asked for asked in taken if not asked.future.cancelled()]
            if not batch:
                continue
            self._note(batch)
            outcomes: Sequence[Any]
            try:
                answers = self.answer([asked.item for asked in batch], max(asked.k for asked in batch))
                outcomes = [
                    replace(answer, ranked=answer.ranked[: asked.k])
                    for answer, asked in zip(answers, batch, strict=True)
                ]
            except Exception as error:  # noqa: BLE001  whoever asked gets it
                outcomes = [error] * len(batch)
            batch[0].loop.call_soon_threadsafe(_settle, list(zip(batch, outcomes, strict=True)))

    def _note(self, batch: Sequence[Asked]) -> None:
        for asked in batch:
            asked.go_on()
            if self.telemetry:
                self.telemetry.took("queue", asked.waited)
        if self.telemetry:
            self.telemetry.batch(len(batch))

    def _take(self) -> list[Asked]:
        """All that wait, at most a batch; at least one, or none when it is time to end."""
        batch: list[Asked] = []
        while len(batch) < self.most:
            try:
                asked = self.ready.get(block=not batch)
            except Empty:
                break
            if asked is None:
                if batch:
                    self.ready.put(None)  # after these
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
