"""A sandbox's Ray nodes: each with its own address or ports, sockets, cache and folder for temporary files."""

from __future__ import annotations

import sys
from pathlib import Path

import requests

from sicot import ingress
from sicot.sandbox.network import Network
from sicot.sandbox.processes import Command
from sicot.sandbox.services import Part, answers, clean

HEAD, WORKERS = "head", ("worker-1", "worker-2")
CPUS = {HEAD: 2, WORKERS[0]: 4, WORKERS[1]: 4}
"""Logical ones: where one worker is lost, the others still have place for four of Ray Train's."""
STORE = 200_000_000
"""Bytes of each node's object store."""
RAY, JOIN = "ray.scripts.scripts", "sicot.sandbox.join"
"""What starts a node with an address of its own, and one that shares 127.0.0.1."""
PORTS = ("gcs", "dashboard", "client", *(f"{name} agent" for name in CPUS))
"""Those that a node cannot choose itself where several are on a machine."""


def environment(network: Network, scratch: Path, token: Path) -> dict[str, str]:
    """What all nodes of the cluster read, and, of these, the jobs on them."""
    folder = scratch / "ingress"
    folder.mkdir(exist_ok=True)
    return {
        **ingress.environment(folder),
        **access(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        # where nodes share 127.0.0.1, drivers and tasks have to look for them there
        **({} if network.name else {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}),
    }


def access(token: Path) -> dict[str, str]:
    """What a process needs to be let in."""
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}


def head(network: Network, ports: dict[str, int], scratch: Path, shared: dict[str, str], token: Path) -> Part:
    """The head node: job server, dashboard, drivers of submitted jobs."""
    address = dashboard(network, ports)
    line = [
        "--head", f"--port={ports['gcs']}", f"--dashboard-port={ports['dashboard']}",
        f"--dashboard-host={network.addresses[HEAD]}",
        f"--ray-client-server-port={ports['client']}",
    ]  # fmt: skip
    command = _start(network, HEAD, line, ports, scratch, shared)
    return Part(HEAD, address, command, lambda: answers(f"{address}/api/version", _credentials(token)), ("s3",), HEAD)


def worker(
    network: Network, name: str, ports: dict[str, int], scratch: Path, shared: dict[str, str], token: Path
) -> Part:
    """A worker node."""
    command = _start(network, name, [f"--address={network.addresses[HEAD]}:{ports['gcs']}"], ports, scratch, shared)
    head = dashboard(network, ports)
    said = f"{CPUS[name]} logical CPUs at {network.addresses[name]}"
    return Part(name, said, command, lambda: name in alive(head, token), (HEAD,), name)


def dashboard(network: Network, ports: dict[str, int]) -> str:
    """URL of the head's dashboard, which jobs are submitted to."""
    return f"http://{network.addresses[HEAD]}:{ports['dashboard']}"


def alive(dashboard: str, token: Path) -> list[str]:
    """Names of the nodes that Ray holds to be up."""
    try:
        said = requests.get(f"{dashboard}/api/v0/nodes", headers=_credentials(token), timeout=5).json()
        nodes = said["data"]["result"]["result"]
        return [node["node_name"] for node in nodes if node["state"] == "ALIVE"]
    except (requests.RequestException, LookupError, TypeError):
        return []


def _credentials(token: Path) -> dict[str, str]:
    return {"Authorization": f"Bearer {token.read_text()}"}


def _start(
    network: Network, name: str, line: list[str], ports: dict[str, int], scratch: Path, shared: dict[str, str]
) -> Command:
    folder = scratch / name
    for each in ("tmp", "cache"):
        (folder / each).mkdir(parents=True, exist_ok=True)
    own = {"TMPDIR": str(folder / "tmp"), "XDG_CACHE_HOME": str(folder / "cache")}
    command = [
        sys.executable, "-m", RAY if network.name else JOIN, "start", "--block", *line, f"--node-name={name}",
        f"--node-ip-address={network.addresses[name]}", f"--num-cpus={CPUS[name]}", f"--object-store-memory={STORE}",
        f"--dashboard-agent-listen-port={ports[f'{name} agent']}", "--min-worker-port=0", "--max-worker-port=0",
        f"--temp-dir={folder}",
    ]  # fmt: skip
    return Command(command, clean() | shared | own, folder)
