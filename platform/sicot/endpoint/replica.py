"""What one process of the endpoint holds: a bundle, and threads that decode and answer."""

from __future__ import annotations

import hashlib
import logging
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from cachetools import LRUCache
from fastapi import FastAPI

from sicot import bundle, config, registry
from sicot.endpoint import api
from sicot.endpoint.batches import Batches


class Replica:
    """Answers for the web application (see :class:`sicot.endpoint.api.Answers`).

    ``page`` is the package that holds the page's folder: each machine looks up its own copy.
    """

    def __init__(self, settings: config.Serve, tracking_uri: str, page: str):
        for handler in logging.getLogger("ray.serve").handlers:  # else bugs of ours stand in another file than requests
            logging.getLogger("sicot").addHandler(handler)
        torch.set_num_threads(1)  # threads that answer, with several of PyTorch's each, are far slower than with one
        self.settings, self.page = settings, Path(str(files(page) / "page"))
        self.bundle = bundle.Bundle.load(registry.fetch(settings.model, tracking_uri), settings.threads)
        self.info = self.bundle.info
        self.version = settings.model.rpartition("/")[2] if settings.model.startswith("models:/") else ""
        limits = {"max_pixels": min(settings.max_pixels, self.info.images.max_pixels), "max_bytes": settings.max_bytes}
        self.info.images = self.info.images.model_copy(update=limits)
        self._warm_up()
        self.answered: LRUCache[tuple[bytes, str, tuple[str, ...], int], bundle.Answer] = LRUCache(settings.cache or 1)
        self.batches = Batches(self.bundle.encode, self.bundle.answer, settings.max_batch, settings.threads)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Ray Serve calls this once the model is loaded."""
        return api.create(self, self.settings, self.page)

    async def recognise(self, query: bundle.Query, k: int) -> bundle.Answer:
        """Decode and answer beside the event loop, or as before where the same was asked."""
        if not self.settings.cache:
            return await self.batches.ask(query, k)
        key = (hashlib.sha256(query.image).digest() if query.image else b"", query.title, query.tags, k)
        answer = self.answered.get(key)
        if answer is None:
            answer = self.answered[key] = await self.batches.ask(query, k)
        return answer

    def _warm_up(self) -> None:
        """The first request should not pay for dictionaries and kernels."""
        tokens, words = self.bundle.read("预热 warm up", ())
        size = self.info.images.size
        self.bundle.answer([bundle.Item(np.zeros((size, size, 3), np.uint8), tokens, words)])
