"""Starting Ray Serve on a port, and saying in one line why that cannot be."""

from __future__ import annotations

import socket

from ray import serve
from ray.serve import Application
from ray.serve.context import _get_global_client

from sicot import cluster, config
from sicot.errors import UserError


def listen(settings: config.Serve) -> str:
    """Open the endpoint's port on the Ray session that is up; port 0 takes a free one. The URL.

    A Serve that already runs on this cluster is used: its port is the cluster's.

    Raises:
        UserError: the port is taken, or may not be opened; or the cluster has too few CPUs for the replicas.
    """
    cluster.require(cpus=settings.replicas, gpus=0, what=f"an endpoint with {settings.replicas} replicas")
    running = _get_global_client(raise_if_no_controller_running=False)
    if running is not None:
        host, port = running.http_config.host, running.http_config.port
        if settings.port not in (0, port):
            raise UserError(
                f"Ray Serve already listens on port {port}: use --serve.port {port}, or `serve shutdown` first"
            )
    else:
        host, port = settings.host, free_port(settings.host, settings.port)
        serve.start(http_options={"host": host, "port": port}, logging_config={"enable_access_log": False})
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def free_port(host: str, port: int) -> int:
    """``port`` if it can be opened on ``host``, a free one for 0. :class:`UserError` otherwise."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was just closed is free
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UserError(
                f"port {port} on {host} cannot be opened ({error.strerror}): "
                "stop what uses it, or choose another with --serve.port (0 takes a free one)"
            ) from error
        return int(probe.getsockname()[1])


def deploy(app: Application) -> None:
    """Run the application, replacing the one before; returns when it answers."""
    serve.run(app, blocking=False)
