"""Making the next version of the model that is served: one that knows a product more, or one less.

A single process does it for all replicas, one change after the other: each starts from the version before, so two at a
time would each leave out what the other adds. MLflow has no lock, and no way to move an alias only if it still means
what it did. A process of its own also outlives the replica that was asked, and does not slow down its answers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from threading import Lock

import torch
from ray import serve
from ray.serve import Application

from sicot import cache, config, enrol, registry
from sicot.bundle import Bundle, Query
from sicot.endpoint.classes import Away
from sicot.errors import UserError
from sicot.prepare.images import BadImage

log = logging.getLogger(__name__)

Outcome = str | BadImage | UserError
"""The version with the change, as `models:/name/version`, or why there is none: raised by a replica, not here, where
Ray Serve would log it as a fault of ours."""


class Teacher:
    """Changes what an alias means."""

    def __init__(self, alias: str, tracking_uri: str):
        """
        Args:
            alias: as `models:/name@alias`.
            tracking_uri: MLflow's store.
        """
        torch.set_num_threads(1)
        self.alias, self.tracking_uri = alias, tracking_uri
        self.lock = Lock()  # Ray Serve sends the next change also where it gave the one before up
        self.known: tuple[str, Bundle] | None = None

    def enrol(self, label: str, queries: Sequence[Query], who: str) -> Outcome:
        """Enrol a product; see :func:`sicot.enrol.enrol` for what can be wrong, and :class:`Away`.

        The promotion gate is not asked: its rows are those of the products before, where a new one can only cost, and
        asking takes minutes. Whoever holds a key with the right has decided; a rollback takes it back.
        """
        return self._change(lambda base: enrol.enrol(base, {label: queries}), f"{who} enrolled {label!r}")

    def withdraw(self, label: str, who: str) -> Outcome:
        """Withdraw a product; :class:`sicot.enrol.Absent` if it is none, and :class:`Away`."""
        return self._change(lambda base: enrol.withdraw(base, label), f"{who} withdrew {label!r}")

    def _change(self, change: Callable[[Bundle], Bundle], note: str) -> Outcome:
        with self.lock:
            try:
                while True:  # again where somebody crowned another version meanwhile
                    version, base = self._base()
                    try:
                        made = change(base)
                    except UserError as error:
                        return error.__cause__ if isinstance(error.__cause__, BadImage) else error
                    if made.info.digest == base.info.digest:
                        return version  # it was asked for before
                    if after := self._register(version, made, note):
                        self.known = after, made
                        log.warning("%s follows %s: %s", after, version, note)
                        return after
            except UserError as error:
                log.error("%s: %s", note, error)
                return Away("the registry of models does not answer: try again in a moment")

    def _base(self) -> tuple[str, Bundle]:
        """The version that the alias means now."""
        version = registry.resolve(self.alias, self.tracking_uri)
        if self.known is None or self.known[0] != version:
            self.known = version, Bundle.load(registry.fetch(version, self.tracking_uri))
        return self.known

    def _register(self, version: str, made: Bundle, note: str) -> str | None:
        with cache.aside() as aside:
            enrol.save(made, str(aside / "bundle"))
            folder = cache.keep(aside / "bundle")  # where replicas on this machine find it
        return registry.supersede(self.alias, version, folder, note, self.tracking_uri)


def bind(settings: config.Serve, tracking_uri: str) -> Application | None:
    """The teacher as Ray Serve runs it: one process, there while it is needed. None where a model never changes."""
    if "@" not in settings.model:
        return None
    deploy = serve.deployment(
        name="teacher",
        ray_actor_options={"num_cpus": 0},  # at work for seconds at a time: it waits for no place of its own
        max_ongoing_requests=1,
        autoscaling_config={"min_replicas": 0, "max_replicas": 1, "target_ongoing_requests": 1},
        logging_config={"enable_access_log": False, "log_level": "ERROR"},
    )
    return deploy(Teacher).bind(settings.model, tracking_uri)
