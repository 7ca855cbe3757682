"""What one process of the endpoint does: it serves a model, and takes up the next one while it runs."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from threading import Lock, Thread, Timer
from typing import Any

import torch
from fastapi import FastAPI
from ray.exceptions import RayActorError
from ray.serve.context import _get_global_client
from ray.serve.exceptions import RayServeException
from ray.serve.grpc_util import RayServegRPCContext
from ray.serve.handle import DeploymentHandle

from sicot import config, registry
from sicot.bundle import Query
from sicot.endpoint import api, rpc, server
from sicot.endpoint.classes import Away
from sicot.endpoint.served import Served
from sicot.endpoint.telemetry import FLUSH_SECONDS, METRICS, Telemetry
from sicot.enrol import Conflict
from sicot.errors import UserError
from sicot.export import Export
from sicot.rpc.recognizer_pb2 import Query as RpcQuery
from sicot.rpc.recognizer_pb2 import Recognition

log = logging.getLogger(__name__)

LINGER = 2.0
"""Seconds until a model that was replaced takes no more questions: a request asks as soon as it has met its model."""


class Replica:
    """Has the model that answers now (see :class:`sicot.endpoint.api.Models`).

    ``page`` is the package that holds the page's folder: each machine looks up its own copy. ``teacher`` reaches the
    one :class:`sicot.endpoint.teacher.Teacher`, where an alias is served.
    """

    def __init__(self, settings: config.Serve, tracking_uri: str, page: str, teacher: DeploymentHandle | None = None):
        for handler in logging.getLogger("ray.serve").handlers:  # else bugs of ours stand in another file than requests
            logging.getLogger("sicot").addHandler(handler)
        torch.set_num_threads(1)  # threads that answer, with several of PyTorch's each, are far slower than with one
        running = _get_global_client(raise_if_no_controller_running=False)
        if running:
            server.guard(running.http_config.host, settings)
        self.settings, self.tracking_uri, self.page = settings, tracking_uri, Path(str(files(page) / "page"))
        self.teacher, self._taking_up = teacher, Lock()
        self.telemetry = Telemetry(settings, Export(METRICS))
        self.challenger: Served | None = None
        self._before: dict[str, Served] = {}
        self.now = self._served(registry.resolve(settings.model, tracking_uri))
        try:
            self._follow_challenger()
        except Exception as error:  # noqa: BLE001  one that is tried keeps nobody from being answered
            log.error("there is no challenger: %s", error)
        Thread(target=self._report, name="report", daemon=True).start()
        if "@" in settings.model or settings.challenger:
            Thread(target=self._follow, name="follow", daemon=True).start()

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Ray Serve calls this once the model is loaded."""
        self.web = api.create(self, self.settings, self.page, self.telemetry)
        return self.web

    async def Recognize(self, query: RpcQuery, grpc_context: RayServegRPCContext) -> Recognition:
        """Ray Serve calls this, by its name in the protocol, for a call by gRPC."""
        return await rpc.recognize(self.web, query, grpc_context)

    async def enrol(self, label: str, queries: Sequence[Query], who: str) -> Served:
        """See :class:`sicot.endpoint.api.Models`."""
        return await self._taught("enrol", label, queries, who)

    async def withdraw(self, label: str, who: str) -> Served:
        """See :class:`sicot.endpoint.api.Models`."""
        return await self._taught("withdraw", label, who)

    async def _taught(self, what: str, *given: Any) -> Served:
        """The model after a change that the teacher was asked for."""
        if self.teacher is None:
            message = "never changes: serve an alias, such as models:/sicot@champion, to enrol products"
            raise Conflict(f"{self.settings.model} {message}")
        try:
            outcome = await getattr(self.teacher, what).remote(*given)
        except (RayActorError, RayServeException) as error:
            raise Away("the process that changes the model ended: try again in a moment") from error
        if isinstance(outcome, Exception):
            raise outcome
        try:
            await asyncio.to_thread(self._take_up, self._follow_champion)
        except UserError as error:
            log.error("%s goes on serving: %s", self.now.uri, error, extra={"event": "model_kept"})
            raise Away(f"{outcome} is registered but could not be taken up: try again in a moment") from error
        return self.now

    def _report(self) -> None:
        while True:
            self.telemetry.flush(self.now.info, self.now.version)
            time.sleep(FLUSH_SECONDS)

    def _follow(self) -> None:
        """Take up whatever the aliases come to mean. What fails is tried again."""
        said = ""
        while True:
            time.sleep(self.settings.follow_seconds)
            try:
                self._take_up(self._follow_champion, self._follow_challenger)
                said = ""
            except Exception as error:  # noqa: BLE001  a registry that is away, a bundle that is broken: serve on
                if str(error) != said:
                    serving = " and ".join(self._answering())
                    log.error("%s goes on serving: %s", serving, error, extra={"event": "model_kept"})
                said = str(error)

    def _take_up(self, *follow: Callable[[], None]) -> None:
        """Serve what aliases mean, where that is another version; else nothing happens.

        Requests that are under way are answered by the model that they met.
        """
        with self._taking_up:
            before = self._before = self._answering()
            try:
                for each in follow:
                    each()
            finally:
                now, self._before = self._answering(), {}
                for uri in before.keys() - now.keys():
                    closing = Timer(LINGER, before[uri].batches.close)
                    closing.daemon = True
                    closing.start()
                if now.keys() != before.keys():
                    served, gone = " and ".join(now), " and ".join(before)
                    log.warning("%s serves in place of %s", served, gone, extra={"event": "model_changed"})

    def _answering(self) -> dict[str, Served]:
        """The models that requests may meet, by URI: the champion first."""
        return {each.uri: each for each in (self.now, self.challenger) if each}

    def _follow_champion(self) -> None:
        uri = registry.resolve(self.settings.model, self.tracking_uri)
        if uri != self.now.uri:
            self.now = self._served(uri)

    def _follow_challenger(self) -> None:
        """Who is the champion as well, as one is after winning, or whose alias is gone, challenges nobody."""
        if not self.settings.challenger:
            return
        uri = registry.find(self.settings.challenger, self.tracking_uri)
        if uri in (None, self.now.uri):
            self.challenger = None
        elif self.challenger is None or uri != self.challenger.uri:
            self.challenger = self._served(uri)

    def _served(self, uri: str) -> Served:
        """The model, loaded; one that answered a moment ago in the other part is."""
        return self._before.get(uri) or Served(uri, self.settings, self.tracking_uri, self.telemetry)
