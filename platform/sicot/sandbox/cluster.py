"""Starting and ending a sandbox, and saying what of it is up.

<folder>/processes.json   what was started
<folder>/places.json      its network, its ports, and the short folder in /tmp for the nodes' sockets and the database
<folder>/logs/*.log       what it had to say
<folder>/token            what lets a client in; only its owner can read it
<folder>/environment      for a shell that submits jobs
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shlex
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from sicot import ports, storage
from sicot.errors import UserError
from sicot.sandbox import nodes, services
from sicot.sandbox.network import Network
from sicot.sandbox.processes import Processes
from sicot.sandbox.services import BUCKET, Part

PATIENCE = 180.0  # seconds until a part that does not answer is given up


class Sandbox:
    """The sandbox whose state is in a folder."""

    def __init__(self, folder: Path, prometheus: Path):
        """
        Args:
            folder: for its state; made if needed.
            prometheus: settings of Prometheus, whose first job scrapes Ray's nodes.
        """
        self.folder, self.settings = folder.absolute(), prometheus.absolute()
        self.processes = Processes(self.folder)

    def up(self) -> None:
        """Start what is not up. :class:`UserError` if a package is missing, or a part does not come to answer."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with _alone(self.folder):
            self._write()
            waited: set[str] = set()
            for part in self.parts:
                if self.processes.find(part.name):
                    print(f"  {part.name:<11} is up already", flush=True)
                    continue
                for name in part.needs:
                    self._wait(self.part(name), waited)
                self._start(part)
            for part in self.parts:
                self._wait(part, waited)

    def down(self) -> int:
        """End all that was started and delete the folder; gives how many processes there were."""
        if not self._places_file.exists():  # nothing was started, or somebody has deleted it
            return self.processes.end({})
        with _alone(self.folder):
            ended = self.processes.end({"database": signal.SIGINT})
            self.network.end()
            shutil.rmtree(self.scratch, ignore_errors=True)
            shutil.rmtree(self.folder)
        return ended

    def restart(self, name: str) -> None:
        """Start a part that was ended, and wait until it answers."""
        part = self.part(name)
        self._start(part)
        self._wait(part, set())

    def status(self) -> str:
        """A line for each part: its name, whether it answers, where."""
        if not self._places_file.exists():
            return f"no cluster in {self.folder}"
        lines = []
        for part in self.parts:
            there = self.processes.find(part.name)
            state = "down" if not there else "up" if part.ready() else "does not answer"
            lines.append(f"  {part.name:<11} {state:<16} {part.address}")
        return "\n".join(lines)

    def instructions(self) -> str:
        """How to use it, for people."""
        shell = shlex.quote(os.path.relpath(self.folder / "environment"))
        return "\n".join(
            [
                f"  dashboard   {self.part(nodes.HEAD).address}",
                f"  MLflow      {self.part('mlflow').address}",
                f"  Prometheus  {self.part('prometheus').address}",
                "",
                "The dashboard asks for the token in " + str(self.token) + ". To submit jobs, in this folder:",
                "",
                f"  . {shell}",
                "  ray job submit --working-dir . --runtime-env runtime_env.yaml -- \\",
                "    python -m jobs.prepare --preset demo --storage $SICOT_STORAGE --track.uri $MLFLOW_TRACKING_URI",
                "",
                "which is",
                "",
                *(f"  export {name}={shlex.quote(value)}" for name, value in self.environment.items()),
            ]
        )

    @property
    def environment(self) -> dict[str, str]:
        """What a shell that submits jobs needs."""
        return {
            "RAY_API_SERVER_ADDRESS": nodes.dashboard(self.network, self.ports),
            **nodes.access(self.token),
            "MLFLOW_TRACKING_URI": f"http://{self.address('mlflow')}",
            "SICOT_STORAGE": f"s3://{BUCKET}/runs",
        }

    @property
    def token(self) -> Path:
        """File of the token that lets clients in."""
        return self.folder / "token"

    @cached_property
    def parts(self) -> list[Part]:
        """All parts, in the order they are started."""
        s3 = services.s3_environment(self.address("s3"))
        database = self.scratch / "database"
        shared = nodes.environment(self.network, self.scratch, self.token) | s3
        shared |= {"RAY_PROMETHEUS_HOST": f"http://{self.address('prometheus')}"}
        start = (self.ports, self.scratch, shared, self.token)
        targets = self.scratch / nodes.HEAD / "session_latest" / "prom_metrics_service_discovery.json"
        return [
            services.store(self.address("s3"), self.folder),
            services.database(database),
            nodes.head(self.network, *start),
            services.prometheus(self.address("prometheus"), self.settings, targets, self.folder),
            services.mlflow(self.address("mlflow"), services.database_url(database), s3, self.folder),
            *(nodes.worker(self.network, name, *start) for name in nodes.WORKERS),
        ]

    def part(self, name: str) -> Part:
        """The part of that name."""
        return next(part for part in self.parts if part.name == name)

    def address(self, name: str) -> str:
        """Where one of the services listens, host:port."""
        return f"{self.network.addresses[services.PLACE]}:{self.ports[name]}"

    @cached_property
    def network(self) -> Network:
        """Addresses of the nodes, of the services, and of this machine as they see it."""
        return Network(**self._places["network"])

    @property
    def ports(self) -> dict[str, int]:
        """Port of each listener."""
        chosen: dict[str, int] = self._places["ports"]
        return chosen

    @property
    def scratch(self) -> Path:
        """A folder with a name short enough for sockets, which PostgreSQL's user may enter."""
        return Path(self._places["scratch"])

    @property
    def _places_file(self) -> Path:
        return self.folder / "places.json"

    @cached_property
    def _places(self) -> dict[str, Any]:
        if not self._places_file.exists():
            names = ("s3", "mlflow", "prometheus", *nodes.PORTS)
            scratch = tempfile.mkdtemp(prefix="sicot-", dir="/tmp")
            os.chmod(scratch, 0o711)
            network = Network.make([*nodes.CPUS, services.PLACE])
            chosen = dict(zip(names, ports.free(len(names), network.host), strict=True))
            places = {"scratch": scratch, "network": asdict(network), "ports": chosen}
            storage.write_json(str(self._places_file), places)
        read: dict[str, Any] = storage.read_json(str(self._places_file))
        return read

    def _write(self) -> None:
        """The token and the shell's environment."""
        if not self.token.exists():
            with os.fdopen(os.open(self.token, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
                file.write(secrets.token_hex(32))
        lines = [f"export {name}={shlex.quote(value)}\n" for name, value in self.environment.items()]
        (self.folder / "environment").write_text("".join(lines))

    def _start(self, part: Part) -> None:
        line = self.network.on(part.place, part.command.line)
        self.processes.start(part.name, replace(part.command, line=line))

    def _wait(self, part: Part, waited: set[str]) -> None:
        """Return when the part answers, and say so."""
        if part.name in waited:
            return
        begun = time.monotonic()
        while not part.ready():
            log = self.processes.log(part.name)
            if not self.processes.find(part.name):
                raise UserError(
                    f"{part.name} ended: {_last_line(log)} (all of it is in {log}); make cluster-down clears up"
                )
            if time.monotonic() > begun + PATIENCE:
                raise UserError(f"{part.name} does not answer: see {log}; make cluster-down clears up")
            time.sleep(0.2)
        waited.add(part.name)
        print(f"  {part.name:<11} {part.address}", flush=True)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Nobody else starts or ends the sandbox meanwhile. :class:`UserError` if somebody does."""
    with (folder / ".lock").open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(f"another process is starting or ending the cluster in {folder}: wait for it") from error
        yield


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n")
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "it said nothing")
