"""What one process of the endpoint holds: a bundle, threads that decode, and a thread that answers in batches."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from fastapi import FastAPI
from ray import serve

from sicot import bundle, config, registry
from sicot.endpoint import api

DECODERS = 2
"""Threads that decode photos while the model answers; decoders let go of the interpreter's lock."""


class Replica:
    """Answers for the web application (see :class:`sicot.endpoint.api.Answers`).

    ``page`` is the package that holds the page's folder: each machine looks up its own copy.
    """

    def __init__(self, settings: config.Serve, tracking_uri: str, page: str):
        for handler in logging.getLogger("ray.serve").handlers:  # else bugs of ours stand in another file than requests
            logging.getLogger("sicot").addHandler(handler)
        torch.set_num_threads(1)  # processes with several threads each are far slower than with one
        self.settings, self.page = settings, Path(str(files(page) / "page"))
        self.bundle = bundle.Bundle.load(registry.fetch(settings.model, tracking_uri))
        self.info = self.bundle.info
        self.version = settings.model.rpartition("/")[2] if settings.model.startswith("models:/") else ""
        limits = {"max_pixels": min(settings.max_pixels, self.info.images.max_pixels), "max_bytes": settings.max_bytes}
        self.info.images = self.info.images.model_copy(update=limits)
        self.decoders = ThreadPoolExecutor(DECODERS, "decode")
        self.thread = ThreadPoolExecutor(1, "model")
        batched = serve.batch(max_batch_size=settings.max_batch, batch_wait_timeout_s=settings.batch_wait_ms / 1000)
        self._ask = batched(self._answer)
        self._warm_up()

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Ray Serve calls this once the model is loaded."""
        return api.create(self, self.settings, self.page)

    async def recognise(self, query: bundle.Query, k: int) -> bundle.Answer:
        """Decode beside the event loop, then wait for a place in a batch."""
        item = await asyncio.get_running_loop().run_in_executor(self.decoders, self.bundle.encode, query)
        return await self._ask((item, k))

    async def _answer(self, asked: list[tuple[bundle.Item, int]]) -> list[bundle.Answer]:
        items, most = [item for item, _ in asked], max(k for _, k in asked)
        answers = await asyncio.get_running_loop().run_in_executor(self.thread, self.bundle.answer, items, most)
        return [replace(answer, ranked=answer.ranked[:k]) for answer, (_, k) in zip(answers, asked, strict=True)]

    def _warm_up(self) -> None:
        """The first request should not pay for dictionaries and kernels."""
        tokens, words = self.bundle.read("预热 warm up", ())
        size = self.info.images.size
        self.bundle.answer([bundle.Item(np.zeros((size, size, 3), np.uint8), tokens, words)])
