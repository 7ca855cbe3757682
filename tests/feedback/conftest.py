"""Databases: a SQLite file, and one on a PostgreSQL server of the tests' own."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from sicot import ports
from sicot.feedback.store import Store


class Server:
    """Debian's PostgreSQL in a folder of its own; as root, it is run by the user that the package makes."""

    def __init__(self, folder: Path):
        self.folder, (self.port,) = folder, ports.free()
        self.user = pwd.getpwnam("postgres") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
        programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
        self.programs = programs[-1].parent
        os.chown(folder, self.user.pw_uid, self.user.pw_gid)
        initdb = [str(self.programs / "initdb"), "-D", str(folder / "data"), "-U", "shop", "-A", "trust"]
        self._start(initdb).communicate()
        self.start()

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        who = {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []} if os.getuid() == 0 else {}
        quiet = subprocess.DEVNULL
        return subprocess.Popen(command, cwd=self.folder, stdout=quiet, stderr=quiet, start_new_session=True, **who)

    def url(self, database: str = "postgres") -> str:
        """Of one of its databases."""
        return f"postgresql://shop@127.0.0.1:{self.port}/{database}"

    def fresh(self, name: str) -> str:
        """URL of a new database."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def start(self) -> None:
        """Returns when it answers."""
        options = ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={self.folder}"]
        command = [str(self.programs / "postgres"), "-D", str(self.folder / "data"), "-p", str(self.port), *options]
        self.process = self._start(command)
        deadline = time.monotonic() + 60
        while True:
            try:
                return psycopg.connect(self.url(), connect_timeout=2).close()
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, "PostgreSQL does not start"
                if self.process.poll() is not None:  # processes of the one that was killed may still be ending
                    self.process = self._start(command)
                time.sleep(0.1)

    def stop(self, how: int = signal.SIGINT) -> None:
        """End it; without warning by SIGKILL."""
        self.process.send_signal(how)
        self.process.wait(30)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A PostgreSQL server."""
    folder = Path(tempfile.mkdtemp(prefix="sicot-postgresql-", dir="/tmp"))  # where another user may enter
    server = Server(folder)
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.system)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a database that is not made yet, or is empty."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/sub/feedback.db"
    return request.getfixturevalue("server").fresh(f"test-{tmp_path.name}")


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """The database."""
    store = Store.open(url)
    yield store
    store.close()
