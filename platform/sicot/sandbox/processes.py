"""The processes of a sandbox: a JSON file says which were started, and only these are ever ended.

A process is known by its number and the time it started, since numbers are given again. What it starts in turn is
known by its session and by a variable, which are inherited; so nothing is left over, not even by a start that was
killed half-way.
"""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from sicot import storage

MARK = "SICOT_SANDBOX"
GENTLY = 10.0  # seconds that a process has to end by itself


@dataclass(frozen=True)
class Command:
    """What to start, and how."""

    line: Sequence[str]
    environment: dict[str, str]
    folder: Path
    """Where it runs."""
    user: str | None = None
    """Who runs it; only root can name another."""


class Processes:
    """The processes noted in ``<folder>/processes.json``; their output is in ``<folder>/logs``."""

    def __init__(self, folder: Path):
        self.folder, self._file = folder, folder / "processes.json"
        self._noted: dict[str, dict[str, float]] = storage.read_json(str(self._file)) if self._file.exists() else {}

    def log(self, name: str) -> Path:
        """Where a process writes what it has to say."""
        return self.folder / "logs" / f"{name}.log"

    def start(self, name: str, command: Command) -> None:
        """Start a process in a session of its own and note it under a name."""
        self.log(name).parent.mkdir(parents=True, exist_ok=True)
        user = pwd.getpwnam(command.user) if command.user else None
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                command.line,
                cwd=command.folder,
                env={**command.environment, MARK: str(self.folder)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C at the terminal is not for it
                user=user.pw_uid if user else None,
                group=user.pw_gid if user else None,
                extra_groups=[] if user else None,
            )
        self._noted[name] = {"pid": process.pid, "started": psutil.Process(process.pid).create_time()}
        storage.write_json(str(self._file), self._noted)

    def find(self, name: str) -> psutil.Process | None:
        """The process noted under a name, if it lives."""
        noted = self._noted.get(name)
        with suppress(psutil.NoSuchProcess):
            if noted and not _is_another(noted):
                process = psutil.Process(int(noted["pid"]))
                return process if process.status() != psutil.STATUS_ZOMBIE else None
        return None

    def kill(self, name: str) -> None:
        """End a process and all that it started, at once."""
        if process := self.find(name):
            end([process, *process.children(recursive=True)], signal.SIGKILL)

    def end(self, gently: Mapping[str, signal.Signals]) -> int:
        """End all processes, the named ones first, by a signal of their own; gives how many there were."""
        ended = 0
        for name, how in gently.items():
            if process := self.find(name):
                end([process], how)
                ended += 1
        rest = self.living()
        end(rest, signal.SIGKILL)
        return ended + len(rest)

    def living(self) -> list[psutil.Process]:
        """All processes of this sandbox: by the mark or, where one hides what it was given, by its session."""
        sessions = {int(noted["pid"]) for noted in self._noted.values() if not _is_another(noted)}
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                mine = os.getsid(process.pid) in sessions or process.environ().get(MARK) == str(self.folder)
                if mine and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found


def _is_another(noted: dict[str, float]) -> bool:
    """Whether the number of a process was given again."""
    try:
        return psutil.Process(int(noted["pid"])).create_time() != noted["started"]
    except psutil.NoSuchProcess:
        return False


def end(processes: Sequence[psutil.Process], how: signal.Signals) -> None:
    """Send a signal, wait, and kill what is left."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(how)
    _, left = psutil.wait_procs(processes, timeout=GENTLY)
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=GENTLY)
