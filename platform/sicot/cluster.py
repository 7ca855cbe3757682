"""Starting Ray, or joining the cluster that a job was submitted to."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from sicot import ingress
from sicot.errors import UserError


@contextmanager
def session(cpus: int = 4, at_once: int = ingress.AT_ONCE, urgent: bool = False) -> Iterator[str]:
    """Ray for the length of the block: the cluster of ``RAY_ADDRESS`` or of this job, else a local one.

    A local cluster gets two logical CPUs a core, since many wait while others work, and at least ``cpus``;
    its HAProxy gives a replica ``at_once`` requests at a time. Its processes leave the processor to all others of the
    machine, so that these go on while it trains, but not where it is ``urgent``: an endpoint's answers would come late.
    Yields the dashboard's URL ("" where there is none). A session that is already up is used and left up.
    """
    if ray.is_initialized():
        yield dashboard_url()
        return
    address = os.environ.get("RAY_ADDRESS", "local")
    if address == "local":  # its processes inherit these
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")  # nobody takes this machine away
        os.environ.setdefault("PYTHONWARNINGS", "ignore::DeprecationWarning")  # Ray's own, of its own calls
    with tempfile.TemporaryDirectory(prefix="sicot-") as folder:
        own = {}
        if address == "local":
            own = ingress.environment(Path(folder), at_once) | ({"RAY_worker_niceness": "0"} if urgent else {})
        with _environment(own), _up(address, cpus):
            yield dashboard_url()


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """These variables for the length of the block: they name files of one session, which another must not meet."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _up(address: str, cpus: int) -> Iterator[None]:
    """Ray for the length of the block.

    :class:`UserError` if no cluster answers at the address.
    """
    places = max(cpus, 2 * (os.cpu_count() or 1))
    local: dict[str, Any] = {"num_cpus": places, "object_store_memory": 800_000_000} if address == "local" else {}
    try:
        ray.init(address=address, log_to_driver=True, logging_level=logging.ERROR, **local)
    except ConnectionError as error:
        raise UserError(f"no Ray cluster answers at {address}: start one or unset RAY_ADDRESS") from error
    try:
        yield
    finally:
        ray.shutdown()


def dashboard_url() -> str:
    """The dashboard of the running cluster, or ""."""
    url = getattr(ray._private.worker._global_node, "webui_url", None) or ray._private.worker.get_dashboard_url()
    return f"http://{url}" if url else ""


def has_gpus(asked: bool | None) -> bool:
    """Whether work goes on GPUs: as it was asked, or where nothing was, if the cluster has any."""
    return asked if asked is not None else ray.cluster_resources().get("GPU", 0) > 0


def require(cpus: float, gpus: float, what: str) -> None:
    """See to it that the work does not silently wait for ever.

    :class:`UserError` if a local cluster is too small; one that was joined may grow, so there it is only said.
    """
    have = ray.cluster_resources()
    for kind, need in (("CPU", cpus), ("GPU", gpus)):
        if need <= have.get(kind, 0):
            continue
        short = f"{what} needs {need:g} {kind}s, the cluster has {have.get(kind, 0):g}"
        if "RAY_ADDRESS" not in os.environ:
            raise UserError(f"{short}: use fewer workers or a larger cluster")
        print(f"{short}: waiting for it to grow", flush=True)
