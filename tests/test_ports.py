"""Free ports are different ones, can be opened, and are none that the system gives away by itself."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from sicot import ports


def test_all_that_are_found_can_be_opened_at_once():
    with ExitStack() as held:
        for port in ports.free(20):
            held.enter_context(socket.create_server(("127.0.0.1", port)))


def test_the_system_gives_none_of_them_to_a_connection():
    given = Path("/proc/sys/net/ipv4/ip_local_port_range")
    if not given.exists():
        pytest.skip("this system does not say which ports it gives")
    lowest, _ = map(int, given.read_text().split())
    if lowest < ports.RANGE.stop:
        pytest.skip("this system gives all ports")
    assert max(ports.free(20)) < lowest


def test_a_port_that_is_taken_is_not_found(monkeypatch: pytest.MonkeyPatch):
    with socket.create_server(("127.0.0.1", ports.free()[0])) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(ports, "RANGE", range(port, port + 1))
        with pytest.raises(OSError, match="in use"):
            ports.free()
