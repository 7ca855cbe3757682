"""Questions that wait together are answered together.

A lone question is answered at once, and under load the batches fill by themselves. Small photos are decoded by whoever
answers them: handing each from one thread to another costs more than that. Large ones, which would hold up the others
of their batch, are decoded by another thread first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from sicot.bundle import Answer, Item, Query
from sicot.endpoint.telemetry import Telemetry
from sicot.endpoint.turns import Asked, OnLoop, OnThreads

LARGE = 64_000
"""Bytes of a photo from which on it is decoded apart: about a millisecond."""


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
            threads: batches answered at once, and large photos decoded meanwhile; the event loop answers where it is 1.
            telemetry: is told how long questions wait, and how many are answered at once.
        """
        self.decode, self.answer, self.telemetry = decode, answer, telemetry
        self.decoders = ThreadPoolExecutor(threads, "decode")
        self.turns = OnLoop(self._answer, most) if threads == 1 else OnThreads(self._answer, most, threads)

    async def ask(self, query: Query, k: int) -> Answer:
        """The answer, with k classes. Who is cancelled meanwhile costs no more than was begun."""
        loop = asyncio.get_running_loop()
        asked = Asked(query, k, loop, loop.create_future())
        if len(query.image or b"") < LARGE:
            self.turns.put(asked)
        else:
            self.decoders.submit(self._apart, asked)
        return await asked.future

    def close(self) -> None:
        """End the threads, once what waits is answered. Nothing may be asked any more."""
        self.decoders.shutdown()
        self.turns.close()

    def _apart(self, asked: Asked) -> None:
        """Decode a large photo, then let it wait with the others."""
        asked.go_on()
        if self._decoded(asked):
            asked.wait()
            self.turns.put(asked)

    def _decoded(self, asked: Asked) -> Item | None:
        """What was asked, ready for the model. None where nobody waits for it any more, or it cannot be read."""
        if asked.item is None and not asked.future.cancelled():
            try:
                asked.item = self.decode(asked.query)
            except Exception as error:  # noqa: BLE001  whoever asked gets it
                asked.loop.call_soon_threadsafe(_settle, [(asked, error)])
        return asked.item

    def _answer(self, taken: Sequence[Asked]) -> None:
        for asked in taken:
            asked.go_on()
        ready = {asked: item for asked in taken if (item := self._decoded(asked)) and not asked.future.cancelled()}
        if not ready:
            return
        batch = list(ready)
        if self.telemetry:
            self.telemetry.took("queue", batch[0].waited)
            self.telemetry.batch(len(batch))
        outcomes: Sequence[Any]
        try:
            answers = self.answer(list(ready.values()), max(asked.k for asked in batch))
            outcomes = [
                replace(answer, ranked=answer.ranked[: asked.k]) for answer, asked in zip(answers, batch, strict=True)
            ]
        except Exception as error:  # noqa: BLE001  whoever asked gets it
            outcomes = [error] * len(batch)
        batch[0].loop.call_soon_threadsafe(_settle, list(zip(batch, outcomes, strict=True)))


def _settle(outcomes: Sequence[tuple[Asked, Answer | Exception]]) -> None:
    """On the event loop: one wake-up for a batch."""
    for asked, outcome in outcomes:
        if asked.future.done():
            continue
        if isinstance(outcome, Exception):
            asked.future.set_exception(outcome)
        else:
            asked.future.set_result(outcome)
