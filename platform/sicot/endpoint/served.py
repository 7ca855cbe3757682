"""A model that answers: a bundle, the threads that decode and answer for it, and the answers it gave."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from threading import Lock

import numpy as np
from cachetools import LRUCache

from sicot import bundle, config, registry
from sicot.endpoint import schema
from sicot.endpoint.batches import Batches
from sicot.endpoint.telemetry import Telemetry
from sicot.prepare.images import BadImage

PHOTOS = 2000
"""Thumbnails that are kept once they were asked for."""


class Served:
    """One version of the model, ready to be asked."""

    def __init__(self, uri: str, settings: config.Serve, tracking_uri: str, telemetry: Telemetry | None = None):
        """
        Args:
            uri: of the model, not by an alias; see :func:`sicot.registry.resolve`.
            settings: of the endpoint.
            tracking_uri: MLflow's store.
            telemetry: takes note of what is answered.

        Raises:
            UserError: there is no such model, or it cannot be loaded.
        """
        self.uri, self.telemetry = uri, telemetry or Telemetry(settings)
        self.version = uri.rpartition("/")[2] if uri.startswith("models:/") else ""
        self.bundle = bundle.Bundle.load(registry.fetch(uri, tracking_uri), settings.threads)
        self.info = self.bundle.info
        limits = {"max_pixels": min(settings.max_pixels, self.info.images.max_pixels), "max_bytes": settings.max_bytes}
        self.info.images = self.info.images.model_copy(update=limits)
        self.answered: LRUCache[tuple[bytes, str, tuple[str, ...], int], bundle.Answer] | None = (
            LRUCache(settings.cache) if settings.cache else None
        )
        self._photos: LRUCache[tuple[str, str], bytes] = LRUCache(PHOTOS)
        self._one = Lock()
        self._warm_up()
        self.batches = Batches(self._decode, self._answer, settings.max_batch, settings.threads, self.telemetry)

    async def recognise(self, query: bundle.Query, k: int) -> bundle.Answer:
        """Decode and answer beside the event loop, or as before where the same was asked."""
        answer = await self._kept_or_asked(query, k)
        self.telemetry.answer(answer, self.info.digest)
        return answer

    async def _kept_or_asked(self, query: bundle.Query, k: int) -> bundle.Answer:
        if self.answered is None:
            return await self.batches.ask(query, k)
        key = (hashlib.sha256(query.image).digest() if query.image else b"", query.title, query.tags, k)
        answer = self.answered.get(key)
        self.telemetry.cache(hit=answer is not None)
        if answer is None:
            answer = self.answered[key] = await self.batches.ask(query, k)
        return answer

    def _decode(self, query: bundle.Query) -> bundle.Item:
        begun = time.perf_counter()
        item = self.bundle.encode(query)
        self.telemetry.took("decode", time.perf_counter() - begun)
        return item

    def _answer(self, items: Sequence[bundle.Item], k: int) -> list[bundle.Answer]:
        begun, seeing = time.perf_counter(), 0.0

        def seen(seconds: float) -> None:
            nonlocal seeing
            seeing += seconds

        answers = self.bundle.answer(items, k, seen)
        self.telemetry.took("model", seeing)
        self.telemetry.took("search", time.perf_counter() - begun - seeing)
        return answers

    def find(self, part: str, most: int) -> tuple[int, list[schema.Known]]:
        """How many labels have this in them, and the first classes of those; a million are searched in some 100 ms."""
        classes = self.bundle.classes
        total, found = classes.find(part, most)
        return total, [
            schema.Known(label=label, enrolled=each >= self.info.classes, rows=int(classes.count[each]))
            for each, label in zip(found, classes.named(found), strict=True)
        ]

    def thumbnail(self, label: str) -> bytes | None:
        """See :meth:`sicot.bundle.Bundle.thumbnail`; one at a time, since a kept photo may be a large one to decode."""
        with self._one:
            key = (self.info.digest, label)
            found = self._photos.get(key)
            if found is None:
                try:
                    found = self.bundle.thumbnail(label)
                except BadImage:  # larger than this endpoint reads
                    return None
                if found is not None:
                    self._photos[key] = found
            return found

    def _warm_up(self) -> None:
        """The first request should not pay for dictionaries and kernels."""
        tokens, words = self.bundle.read("预热 warm up", ())
        size = self.info.images.size
        self.bundle.answer([bundle.Item(np.zeros((size, size, 3), np.uint8), tokens, words)])
