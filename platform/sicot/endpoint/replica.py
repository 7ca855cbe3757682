"""What one process of the endpoint holds: a bundle, threads that decode, and a thread that answers in batches."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path

import torch
from fastapi import FastAPI
from ray import serve

from sicot import bundle, config, registry
from sicot.endpoint import api

DECODERS = 2
"""Threads that decode photos while the model answers; decoders free the interpreter's lock."""


class Replica:
    """Answers for the web application: decodes beside the event loop, asks the model in batches.

    ``page`` is the package that holds the web page's folder, so that every machine finds its own.
    """

    def __init__(self, settings: config.Serve, tracking_uri: str, page: str):
        torch.set_num_threads(1)  # processes with several threads each are far slower than with one
        self.settings, self.page = settings, Path(str(files(page) / "page"))
        self.bundle = bundle.Bundle.load(registry.fetch(settings.model, tracking_uri))
        self.info = self.bundle.info
        self.version = settings.model.removeprefix(f"models:/{self.info.name}/") if "models:/" in settings.model else ""
        self._narrow()
        self.decoders = ThreadPoolExecutor(DECODERS, "decode")
        self.thread = ThreadPoolExecutor(1, "model")
        self._ask = serve.batch(max_batch_size=settings.max_batch, batch_wait_timeout_s=settings.batch_wait_ms / 1000)(
            self._answer
        )
        self.bundle.answer([self.bundle.blank()])  # the first request should not pay for warming up

    def _narrow(self) -> None:
        """The endpoint's limits, where they are tighter than the model's own."""
        images, settings = self.info.images, self.settings
        images.max_pixels = min(images.max_pixels, settings.max_pixels)
        images.max_bytes = min(images.max_bytes, settings.max_bytes)

    def __serve_build_asgi_app__(self) -> FastAPI:  # noqa: PLW3201  Ray Serve's name
        return api.create(self, self.settings, self.page)

    async def recognise(self, query: bundle.Query, k: int) -> bundle.Answer:
        """See :class:`sicot.endpoint.api.Answers`."""
        item = await asyncio.get_running_loop().run_in_executor(self.decoders, self.bundle.encode, query)
        return await self._ask((item, k))

    async def _answer(self, asked: list[tuple[bundle.Item, int]]) -> list[bundle.Answer]:
        items, most = [item for item, _ in asked], max(k for _, k in asked)
        answers = await asyncio.get_running_loop().run_in_executor(self.thread, self.bundle.answer, items, most)
        return [
            bundle.Answer(answer.ranked[:k], answer.words, answer.no_word)
            for answer, (_, k) in zip(answers, asked, strict=True)
        ]
