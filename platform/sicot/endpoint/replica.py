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
from sicot.endpoint.served import Served

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
        self.challenger: Served | None = None
        self.now = self._served(registry.resolve(settings.model, tracking_uri))
        try:
            self._follow_challenger()
        except Exception as error:  # noqa: BLE001  one that is tried keeps nobody from being answered
            log.error("there is no challenger: %s", error)
        if "@" in settings.model or settings.challenger:
            Thread(target=self._follow, name="follow", daemon=True).start()

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Ray Serve calls this once the model is loaded."""
        return api.create(self, self.settings, self.page)

    def _follow(self) -> None:
        """Take up what the aliases mean, whenever that is another version. What fails is tried again.

        Requests that are under way are answered by the model that they met.
        """
        said = ""
        while True:
            time.sleep(self.settings.follow_seconds)
            before = self._answering()
            try:
                self._follow_champion()
                self._follow_challenger()
                said = ""
            except Exception as error:  # noqa: BLE001  a registry that is away, a bundle that is broken: serve on
                if str(error) != said:
                    log.error("%s goes on serving: %s", " and ".join(self._answering()), error)
                said = str(error)
            now = self._answering()
            if now.keys() == before.keys():
                continue
            log.warning("%s serves in place of %s", " and ".join(now), " and ".join(before))
            time.sleep(self.settings.max_seconds + 1)
            for uri in before.keys() - now.keys():
                before[uri].batches.close()

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
        """The model, loaded; a challenger that becomes champion is."""
        if self.challenger and self.challenger.uri == uri:
            return self.challenger
        return Served(uri, self.settings, self.tracking_uri)
