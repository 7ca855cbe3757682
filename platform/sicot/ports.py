"""Free TCP ports, for what is to listen a moment later."""

from __future__ import annotations

import random
import socket

# Below those that systems give to connections by themselves (Linux: from 32768): none of these goes to another process
# between being found here and being opened there, but to one that looks for the same.
RANGE = range(20_000, 30_000)


def free(count: int = 1, host: str = "127.0.0.1") -> list[int]:
    """So many different ports that could be opened on ``host`` just now.

    Raises:
        OSError: no more of them can be opened.
    """
    found: list[int] = []
    for port in random.sample(RANGE, len(RANGE)):
        try:
            try_port(host, port)
        except OSError as error:
            refused = error
            continue
        found.append(port)
        if len(found) == count:
            return found
    raise refused


def try_port(host: str, port: int) -> None:
    """See to it that the port can be opened on ``host``. :class:`OSError` if it cannot."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was closed a moment ago is free
        probe.bind((host, port))
