"""A head node that somebody has started, up once for all tests that send jobs to it."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import psutil
import pytest

from sicot import ports
from tests.killing import kill_tree

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
RAY = str(BIN / "ray")


def answers(url: str) -> bool:
    try:
        with urlopen(f"{url}/api/version", timeout=5):
            return True
    except HTTPError:
        return True  # 401: it is up and wants the token, which `ray job submit` sends
    except OSError:
        return False


@pytest.fixture(scope="package")
def head() -> Iterator[dict[str, str]]:
    """Environment of a shell that submits to a head node of its own, apart from every other Ray on the machine."""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:  # short: it holds sockets
        gcs, dashboard, agent, client = ports.free(4)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        environment |= {"RAY_TMPDIR": folder, "RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
        environment |= {"RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}"}
        environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        environment["PATH"] = f"{BIN}{os.pathsep}{environment['PATH']}"  # a job's `python` is the head node's
        command = [RAY, "start", "--head", "--block", "--num-cpus=4", "--node-ip-address=127.0.0.1"]
        command += [f"--port={gcs}", f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"]
        command += [f"--ray-client-server-port={client}", f"--temp-dir={folder}"]
        command += [f"--object-store-memory={300 * 2**20}"]
        log = Path(folder) / "start.log"
        with log.open("w") as out:
            process = subprocess.Popen(command, env=environment, stdout=out, stderr=out, start_new_session=True)
        try:
            deadline = time.monotonic() + 180
            while not answers(environment["RAY_API_SERVER_ADDRESS"]):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
            yield environment
        finally:
            # at once: a head that has run Ray Data takes half a minute to stop of itself
            psutil.wait_procs(kill_tree(process.pid), timeout=10)
