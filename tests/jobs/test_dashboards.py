"""The pages to follow runs by, as a user opens them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from sicot import ports

pytestmark = pytest.mark.timeout(300)


@contextmanager
def dashboards(folder: Path, *arguments: str, path: str | None = None) -> Iterator[dict[str, str]]:
    """`python -m jobs.dashboards` while it is up; what it says, by name."""
    environment = {**os.environ, "PATH": path if path is not None else os.environ["PATH"]}
    environment["RAY_API_SERVER_ADDRESS"] = f"http://127.0.0.1:{ports.free()[0]}"  # nobody there
    command = [sys.executable, "-m", "jobs.dashboards", "--storage", str(folder), *arguments]
    with (folder / "out").open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while "Ctrl-C" not in (said := (folder / "out").read_text()):
            assert process.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.3)
        yield {line.split()[0]: line.split(maxsplit=1)[1] for line in said.splitlines() if not line.startswith("Ctrl")}
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


def closed(url: str) -> bool:
    try:
        httpx.get(url, timeout=5)
    except httpx.ConnectError:
        return True
    return False


def given(*names: str) -> list[str]:
    """Free ports, as arguments."""
    return [
        each for name, port in zip(names, ports.free(len(names)), strict=True) for each in (f"--{name}_port", str(port))
    ]


@pytest.mark.system
def test_what_is_installed_is_up_until_ctrl_c(tmp_path: Path) -> None:
    with dashboards(tmp_path, *given("mlflow", "prometheus", "grafana")) as said:
        assert httpx.get(f"{said['MLflow']}/health").status_code == 200
        prometheus = httpx.get(f"{said['Prometheus']}/api/v1/rules").json()
        assert len(prometheus["data"]["groups"]) == 3
        assert said["Ray"].startswith("no cluster answers at http://127.0.0.1:")
        assert (tmp_path / "mlflow.db").exists()
    assert closed(said["MLflow"])
    assert closed(said["Prometheus"])


def test_what_is_missing_is_said_with_where_to_get_it(tmp_path: Path) -> None:
    with dashboards(tmp_path, "--track.uri", "http://mlflow.example.com:5000", path="") as said:
        assert said["MLflow"] == "http://mlflow.example.com:5000"
        assert said["Prometheus"] == "not installed: apt-get install prometheus"
        assert "https://grafana.com/grafana/download" in said["Grafana"]


def test_what_is_up_already_is_left_alone(tmp_path: Path) -> None:
    with httpx.Client() as client, dashboards(tmp_path, *(mine := given("mlflow")), path="") as first:
        (tmp_path / "again").mkdir()
        with dashboards(tmp_path / "again", *mine, path="") as second:
            assert second["MLflow"] == f"{first['MLflow']}  was up already"
        assert client.get(f"{first['MLflow']}/health").status_code == 200


def test_a_program_that_does_not_start_is_told_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "dashboards").mkdir()
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "prometheus"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-m", "jobs.dashboards", "--storage", str(tmp_path), "--track.uri", "http://mlflow:5000",
         *given("prometheus")],
        env={**os.environ, "PATH": f"{tmp_path}/bin:/bin"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.strip() == f"error: Prometheus does not start: see {tmp_path}/dashboards/prometheus.log"
