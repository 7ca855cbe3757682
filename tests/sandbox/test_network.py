"""A sandbox's network: nodes meet each other and this machine, each has its own ports, and nothing is left of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from sicot.sandbox import network
from sicot.sandbox.network import LOOPBACK, Network

NODES = ("head", "worker")
SERVE = "import socket; s = socket.create_server(('0.0.0.0', 7000)); print('up', flush=True); s.accept()[0].send(b'{}')"
ASK = "import socket; print(socket.create_connection(('{}', 7000), 5).recv(99).decode())"
ALONE = {"head": LOOPBACK, "worker": LOOPBACK}


@pytest.fixture
def made() -> Iterator[Network]:
    found = Network.make(NODES)
    try:
        if not found.name:
            pytest.skip("this machine lets nobody make a network")
        yield found
    finally:
        found.end()


def python(made: Network, node: str, code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(made.on(node, [sys.executable, "-c", code]), stdout=subprocess.PIPE, text=True)


def test_each_node_has_the_same_port_to_itself_and_is_met_by_all(made: Network) -> None:
    servers = {node: python(made, node, SERVE.format(node)) for node in NODES}
    for server in servers.values():
        assert server.stdout
        assert server.stdout.readline() == "up\n"
    from_a_node = python(made, "head", ASK.format(made.addresses["worker"]))
    assert from_a_node.communicate(timeout=30)[0] == "worker\n"
    from_here = python(made, "", ASK.format(made.addresses["head"]))
    assert from_here.communicate(timeout=30)[0] == "head\n"
    for server in servers.values():
        server.wait(30)


def test_nothing_is_left(made: Network) -> None:
    made.end()
    left = subprocess.run(["ip", "netns"], capture_output=True, text=True).stdout
    left += subprocess.run(["ip", "link"], capture_output=True, text=True).stdout
    assert made.name not in left


def test_two_are_apart(made: Network) -> None:
    other = Network.make(NODES)
    try:
        assert not {made.host, *made.addresses.values()} & {other.host, *other.addresses.values()}
    finally:
        other.end()


def test_who_is_not_root_shares_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    shared = Network.make(NODES)
    assert (shared.host, shared.addresses) == (LOOPBACK, ALONE)
    assert shared.on("head", ["ls"]) == ["ls"]
    shared.end()


def test_where_packets_do_not_pass_nodes_share_loopback(made: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "REACHED", "print(110)")  # what silence gives
    before = subprocess.run(["ip", "netns"], capture_output=True, text=True).stdout
    assert Network.make(NODES) == Network("", LOOPBACK, ALONE)
    assert subprocess.run(["ip", "netns"], capture_output=True, text=True).stdout == before
