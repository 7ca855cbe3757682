"""A network of a sandbox's own: each Ray node has a namespace, with an address, ports and a loopback of its own.

A bridge joins them, on which this machine has an address, too. Only root can make one; else, and where a firewall keeps
packets from passing (Docker's may), all nodes share 127.0.0.1. Other machines reach neither, as long as this machine
forwards no packets.
"""

from __future__ import annotations

import os
import random
import secrets
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from sicot.errors import UserError

LOOPBACK = "127.0.0.1"
PREFIX = "10.213"
"""Of the addresses; the third number is one that nobody here uses."""
REACHED = "import socket, sys; print(socket.socket().connect_ex((sys.argv[1], 9)))"
"""Tries a port where nobody listens: a refusal has come from there, silence has not."""
REFUSED = "111"


@dataclass(frozen=True)
class Network:
    """Who has which address."""

    name: str
    """Of the bridge, and the beginning of each namespace's; "" where all share loopback."""
    host: str
    """This machine's own, which nodes reach it by."""
    addresses: dict[str, str]

    @classmethod
    def make(cls, names: Sequence[str]) -> Network:
        """A new network for nodes of these names, or loopback where there can be none."""
        shared = cls("", LOOPBACK, dict.fromkeys(names, LOOPBACK))
        if os.getuid() or not shutil.which("ip"):
            return shared
        used = _ip("addr")
        third = random.choice([n for n in range(1, 255) if f" {PREFIX}.{n}.1/" not in used])
        addresses = {name: f"{PREFIX}.{third}.{fourth}" for fourth, name in enumerate(names, 2)}
        network = cls(f"sicot{secrets.token_hex(3)}", f"{PREFIX}.{third}.1", addresses)
        try:
            network._join()
        except UserError:
            network.end()
            return shared
        return network

    def on(self, node: str, line: Sequence[str]) -> list[str]:
        """The command line that runs ``line`` where a node is; "": here."""
        return ["ip", "netns", "exec", self._space(node), *line] if self.name and node else list(line)

    def end(self) -> None:
        """Take it away, once nothing runs on it."""
        if not self.name:
            return
        links = [("link", "del", link) for link in (*map(self._cable, self.addresses), self.name)]
        for line in [*links, *(("netns", "del", self._space(node)) for node in self.addresses)]:
            with suppress(UserError):  # some of it may never have been made
                _ip(*line)

    def _space(self, node: str) -> str:
        return f"{self.name}-{node}"

    def _cable(self, node: str) -> str:
        return f"{self.name}n{list(self.addresses).index(node)}"  # a link's name may have 15 characters

    def _join(self) -> None:
        """Make it. :class:`UserError` if that fails, or the nodes do not reach each other and this machine."""
        _ip("link", "add", self.name, "type", "bridge")
        _ip("addr", "add", f"{self.host}/24", "dev", self.name)
        _ip("link", "set", self.name, "up")
        for node, address in self.addresses.items():
            space, cable = self._space(node), self._cable(node)
            _ip("netns", "add", space)
            _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", space)
            _ip("link", "set", cable, "master", self.name, "up")
            _ip("-n", space, "addr", "add", f"{address}/24", "dev", "eth0")
            _ip("-n", space, "link", "set", "eth0", "up")
            _ip("-n", space, "link", "set", "lo", "up")
            _ip("-n", space, "route", "add", "default", "via", self.host)  # Ray asks which address leads outside
        first, *others = self.addresses
        for address in (self.host, *(self.addresses[other] for other in others)):
            tried = self.on(first, ["timeout", "5", sys.executable, "-c", REACHED, address])
            if subprocess.run(tried, capture_output=True, text=True).stdout.strip() != REFUSED:
                raise UserError(f"{address} is not reached from {self.addresses[first]}")


def _ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout
