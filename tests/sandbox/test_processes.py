"""A sandbox ends what it started, all of it and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from sicot import storage
from sicot.errors import UserError
from sicot.sandbox import services
from sicot.sandbox.cluster import Sandbox
from sicot.sandbox.processes import Command, Processes

PROMETHEUS = Path(__file__).parents[2] / "deploy/prometheus/prometheus.yml"
SLEEP = ["sleep", "300"]
WITH_CHILD = ["sh", "-c", "setsid sleep 300 & sleep 300"]  # the child is in a session of its own
KILLED_HALF_WAY = """
import os, signal, sys
from pathlib import Path
from sicot import storage
from sicot.sandbox.processes import Command, Processes
storage.write_json = lambda *given: os.kill(os.getpid(), signal.SIGKILL)
Processes(Path(sys.argv[1])).start("it", Command(["sh", "-c", "sleep 300; :"], dict(os.environ), Path(sys.argv[1])))
"""


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    found = Processes(tmp_path)
    yield found
    found.end({})


def command(line: list[str], folder: Path) -> Command:
    return Command(line, dict(os.environ), folder)


def test_a_process_and_all_that_it_started_are_ended_and_no_other(processes: Processes, tmp_path: Path) -> None:
    bystander = subprocess.Popen(SLEEP)
    try:
        processes.start("one", command(WITH_CHILD, tmp_path))
        processes.start("two", command(SLEEP, tmp_path))
        while len(processes.living()) < 4:
            time.sleep(0.02)
        os.kill(processes.find("one").pid, signal.SIGKILL)  # type: ignore[union-attr]  its children are nobody's now
        while processes.find("one"):
            time.sleep(0.02)
        again = Processes(tmp_path)  # as another command has it
        assert again.end({"two": signal.SIGINT}) >= 3
        assert again.living() == []
        assert again.find("two") is None
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_start_that_was_killed_before_it_was_noted_leaves_nothing(processes: Processes, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED_HALF_WAY, str(tmp_path)])
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "processes.json").exists()
    assert processes.living()
    assert processes.end({}) >= 1
    assert processes.living() == []


def test_a_number_that_was_given_to_another_process_is_left_alone(tmp_path: Path) -> None:
    bystander = subprocess.Popen(SLEEP)
    try:
        noted = {"pid": bystander.pid, "started": psutil.Process(bystander.pid).create_time() - 100}
        storage.write_json(str(tmp_path / "processes.json"), {"s3": noted})
        processes = Processes(tmp_path)
        assert processes.find("s3") is None
        assert processes.end({"s3": signal.SIGINT}) == 0
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_part_that_does_not_start_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = Sandbox(tmp_path / "it", PROMETHEUS)
    broken = services.Part("s3", "", command(["sh", "-c", "echo no such luck; exit 3"], tmp_path), lambda: False)
    monkeypatch.setattr(Sandbox, "parts", [broken])
    with pytest.raises(UserError, match=r"s3 ended: no such luck \(all of it is in .*s3\.log\); make cluster-down"):
        sandbox.up()
    assert sandbox.down() == 0
    assert not (tmp_path / "it").exists()
    assert not sandbox.scratch.exists()
    assert Sandbox(tmp_path / "it", PROMETHEUS).status() == f"no cluster in {tmp_path / 'it'}"
    assert Sandbox(tmp_path / "it", PROMETHEUS).down() == 0


def test_two_that_start_it_at_once_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sandbox, "parts", [])
    first, second = (Sandbox(tmp_path / "it", PROMETHEUS) for _ in range(2))
    monkeypatch.setattr(first, "_write", second.up)
    with pytest.raises(UserError, match="another process is starting or ending the cluster"):
        first.up()
    second.down()


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs moto: pip install"):
        services.store("127.0.0.1:1", tmp_path)
    monkeypatch.setattr(services.shutil, "which", lambda name: None)
    with pytest.raises(UserError, match="needs Prometheus: apt-get install"):
        services.prometheus("127.0.0.1:1", PROMETHEUS, tmp_path / "targets", tmp_path)
