"""What one process of the endpoint does: it serves a model, and takes up the next one while it runs."""

from __future__ import annotations

import logging
import time
from importlib.resources import files
from pathlib import Path
from threading import Thread

import torch
from fastapi import FastAPI
from ray.serve.context import _get_global_client

from sicot import config, registry
from sicot.endpoint import api, server
from sicot.endpoint.export import Export
from sicot.endpoint.served import Served
from sicot.endpoint.telemetry import FLUSH_SECONDS, Telemetry

log = logging.getLogger(__name__)


class Replica:
    """Has the model that answers now (see :class:`sicot.endpoint.api.Models`).

    ``page`` is the package that holds the page's folder: each machine looks up its own copy.
    """

    def __init__(self, settings: config.Serve, tracking_uri: str, page: str):
        for handler in logging.getLogger("ray.serve").handlers:  # else bugs of ours stand in another file than requests
            logging.getLogger("sicot").addHandler(handler)
        torch.set_num_threads(1)  # threads that answer, with several of PyTorch's each, are far slower than with one
        running = _get_global_client(raise_if_no_controller_running=False)
        if running:
            server.guard(running.http_config.host, settings)
        self.settings, self.tracking_uri, self.page = settings, tracking_uri, Path(str(files(page) / "page"))
        self.telemetry = Telemetry(settings, Export())
        self.now = self._served(registry.resolve(settings.model, tracking_uri))
        Thread(target=self._report, name="report", daemon=True).start()
        if "@" in settings.model:
            Thread(target=self._follow, name="follow", daemon=True).start()

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Ray Serve calls this once the model is loaded."""
        return api.create(self, self.settings, self.page, self.telemetry)

    def _served(self, uri: str) -> Served:
        return Served(uri, self.settings, self.tracking_uri, self.telemetry)

    def _report(self) -> None:
        while True:
            self.telemetry.flush(self.now.info, self.now.version)
            time.sleep(FLUSH_SECONDS)

    def _follow(self) -> None:
        """Take up what the alias means, whenever that is another version. What fails is tried again.

        Requests that are under way are answered by the model that they met.
        """
        said = ""
        while True:
            time.sleep(self.settings.follow_seconds)
            try:
                uri = registry.resolve(self.settings.model, self.tracking_uri)
                if uri == self.now.uri:
                    continue
                before, self.now = self.now, self._served(uri)
            except Exception as error:  # noqa: BLE001  a registry that is away, a bundle that is broken: serve on
                if str(error) != said:
                    log.error("%s goes on serving: %s", self.now.uri, error, extra={"event": "model_kept"})
                said = str(error)
                continue
            log.warning("%s serves in place of %s", self.now.uri, before.uri, extra={"event": "model_changed"})
            said = ""
            time.sleep(self.settings.max_seconds + 1)
            before.batches.close()
