"""Writing down which answers were given: beside the answering, many at a time, and never at its cost."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import TYPE_CHECKING

from fastapi import FastAPI
from sqlalchemy.exc import SQLAlchemyError

from sicot import bundle, config
from sicot.endpoint.schema import MAX_REQUEST_ID
from sicot.feedback import Arm, store
from sicot.feedback.store import Answered, Store

if TYPE_CHECKING:
    from sicot.endpoint.api import Model

log = logging.getLogger(__name__)

MOST, BATCH = 10_000, 500
"""Answers that wait at most, and that are written at once."""
PAUSE = 1.0
"""Seconds between batches: feedback on an answer comes later than that."""
FORGET = 3600.0
"""Seconds between looks for what is too old."""
LONGEST = 30.0
"""Seconds between attempts, at most, while the database is away."""


def of(settings: config.Serve) -> Journal | None:
    """The journal of an endpoint; None for one that keeps nothing. :class:`UserError` if `feedback` is no database."""
    return Journal(Store(settings.feedback), settings.feedback_days) if settings.feedback else None


def closing(journal: Journal | None) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """The lifespan of an application that writes down, before it ends, what it has answered."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        if journal:
            await asyncio.to_thread(journal.close)

    return lifespan


def note(
    journal: Journal | None, request_id: str, arm: Arm, model: Model, visitor: str | None, answer: bundle.Answer
) -> None:
    """Write down an answer soon, where answers are kept."""
    if journal is None or len(request_id) > MAX_REQUEST_ID:  # nobody could say anything of it
        return
    version = model.version or model.info.digest[:12]
    label, score, unknown = answer.ranked[0].label, answer.score, answer.unknown
    journal.put(Answered(request_id, time.time(), arm, version, visitor, label, score, unknown, answer.group))


class Journal:
    """Takes answers and writes them to the database; those that find no room are counted as ``dropped``.

    What is older than so many ``days`` is deleted there; 0 deletes nothing.
    """

    def __init__(self, kept: Store, days: int = 0, most: int = MOST) -> None:
        self.store, self.days, self.dropped = kept, days, 0
        self._forget_at = time.monotonic()
        self.waiting: Queue[Answered] = Queue(most)
        self._closing = Event()
        self._thread = Thread(target=self._work, name="journal", daemon=True)
        self._thread.start()

    def put(self, answered: Answered) -> None:
        """Write this down soon. Never waits and never raises."""
        try:
            self.waiting.put_nowait(answered)
        except Full:
            self.dropped += 1

    def close(self, seconds: float = 5.0) -> None:
        """Write what waits, if that can be done in so many seconds, and end."""
        self._closing.set()
        self._thread.join(seconds)
        self.store.close()

    def _work(self) -> None:
        told = 0
        while not self._closing.is_set() or not self.waiting.empty():
            batch = self._batch()
            if batch:
                self._write(batch)
            if self.dropped > told:
                log.error("%d answers were not written down: %s is away or slow", self.dropped - told, self.store.name)
                told = self.dropped
            if self.days and time.monotonic() >= self._forget_at:
                self._forget()
            self._closing.wait(PAUSE if self.waiting.qsize() < BATCH else 0)

    def _forget(self) -> None:
        self._forget_at = time.monotonic() + FORGET
        try:
            if gone := self.store.forget(time.time() - self.days * 24 * 3600):
                log.warning("%d answers and feedback of more than %d days ago were deleted", gone, self.days)
        except Exception as error:  # noqa: BLE001  the next time, then
            log.error("nothing was deleted from %s: %r", self.store.name, error)

    def _batch(self) -> list[Answered]:
        batch: list[Answered] = []
        try:
            while len(batch) < BATCH:
                batch.append(self.waiting.get_nowait())
        except Empty:
            pass
        return batch

    def _write(self, batch: list[Answered]) -> None:
        """Again and again, until it is done or it is time to end."""
        pause, said = PAUSE, ""
        while True:
            try:
                return self.store.record(batch)
            except Exception as error:  # noqa: BLE001  whatever it is, the endpoint answers on
                why = store.line(error) if isinstance(error, SQLAlchemyError) else repr(error)
            if why != said:
                log.error("%d answers wait for %s: %s", len(batch), self.store.name, why)
                said = why
            if self._closing.wait(pause):
                self.dropped += len(batch)
                return None
            pause = min(2 * pause, LONGEST)
