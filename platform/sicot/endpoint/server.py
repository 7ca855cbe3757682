"""Starting Ray Serve, and saying in one line why that cannot be."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager

from ray import serve
from ray.serve import Application
from ray.serve.context import _get_global_client

from sicot import cluster, config, ports
from sicot.endpoint import rpc
from sicot.endpoint.keys import Keys, is_loopback
from sicot.errors import UserError

OWN = {"host", "port", "grpc_port"}
"""Settings that are Ray Serve's, not the application's."""


def session(settings: config.Serve) -> AbstractContextManager[str]:
    """As :func:`sicot.cluster.session`, urgent; a local cluster has the CPUs that the endpoint takes, and its HAProxy
    gives a replica two batches of requests for each thread: with four, fewer are answered under overload."""
    at_once = 2 * settings.threads * settings.max_batch
    return cluster.session(settings.replicas * settings.threads + 2, at_once, urgent=True)


def listen(settings: config.Serve) -> str:
    """Open the endpoint's port on the Ray session that is up (0: a free one) and return the URL.

    Where Ray Serve runs already, its port is used.

    Raises:
        UserError: others could ask without a key, the port cannot be opened, or the cluster has too few CPUs.
    """
    guard(settings.host, settings)
    what = f"an endpoint with {settings.replicas} replicas of {settings.threads} thread(s)"
    cluster.require(settings.replicas * settings.threads, 0, what)
    running = _get_global_client(raise_if_no_controller_running=False)
    if running is None:
        host, port = settings.host, free_port(settings.host, settings.port)
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        if settings.grpc_port is not None:
            free_port(host, settings.grpc_port, "grpc_port")
        serve.start(
            http_options={"host": host, "port": port},
            grpc_options=rpc.options(settings),
            logging_config={"enable_access_log": False, "log_level": "ERROR"},
        )
    else:
        host, port = running.http_config.host, running.http_config.port
        if settings.port not in (0, port):
            raise UserError(f"Ray Serve listens on port {port} already: use that port, or run `serve shutdown` first")
        if settings.grpc_port is not None:
            raise UserError(
                "Ray Serve runs already: give it gRPC where it is started (grpc_options), not --serve.grpc_port"
            )
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def guard(host: str | None, settings: config.Serve) -> None:
    """See to it that an endpoint which listens for others has keys. :class:`UserError` if it has none.

    Behind HAProxy every request comes from this machine: who asks says nothing of where it came from.
    """
    if not is_loopback(host or "") and not Keys.read(settings.keys).hashes:
        raise UserError(f"listening on {host} lets others in: make keys (python -m jobs.key) and give --serve.keys")


def free_port(host: str, port: int, setting: str = "port") -> int:
    """``port`` if it can be opened on ``host``, a free one for 0. :class:`UserError`, naming ``setting``, if not."""
    try:
        if port:
            ports.try_port(host, port)
        return port or ports.free(1, host)[0]
    except OSError as error:
        raise UserError(
            f"port {port} on {host} cannot be opened ({error.strerror}): "
            f"stop what uses it, or choose another with --serve.{setting}"
            + (" (0 takes a free one)" if setting == "port" else "")
        ) from error


def deploy(application: Application) -> None:
    """Run the application in place of the one before; returns when it answers."""
    serve.run(application)


def stop() -> None:
    """End Ray Serve and free its port, once requests that are under way are answered; the Ray session stays up."""
    for name in serve.status().applications:
        serve.delete(name)  # shutdown alone would end HAProxy first
    serve.shutdown()
