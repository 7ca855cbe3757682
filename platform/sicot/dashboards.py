"""The pages to follow runs by, on this machine: those whose programs are installed are started, the rest is said."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import requests

from sicot import config, ports, track
from sicot.errors import UserError
from sicot.sandbox.services import answers

DEPLOY = Path(__file__).parents[2] / "deploy"
HOST = "127.0.0.1"
SECONDS = 90.0
"""In which a program must answer; MLflow takes long where the machine is busy."""


@dataclass
class Page:
    """One page: where it is, or why it is not there."""

    name: str
    url: str = ""
    note: str = ""


Start = Callable[..., Page]
"""Starts a program by name, port, command, the path that answers when it is up, and environment variables."""


@contextmanager
def opened(job: config.Job, mlflow: int, prometheus: int, grafana: int) -> Iterator[list[Page]]:
    """The pages, for the length of the block; what it started is ended after it.

    Args:
        job: names MLflow's store; logs and data of the programs are kept in its ``storage``, where that is a folder.
        mlflow, prometheus, grafana: ports to listen on. One that is taken belongs to a page that is up already.

    Raises:
        UserError: the files of ``deploy`` are not beside this package, or a program does not start.
    """
    if not DEPLOY.is_dir():
        raise UserError(f"{DEPLOY} is not there: dashboards are started in a checkout of the project")
    runs = Path("runs" if "://" in job.storage else job.storage).absolute()
    with ExitStack() as stack:

        def start(name: str, port: int, command: list[str], health: str, **variables: str) -> Page:
            url = f"http://{HOST}:{port}"
            try:
                ports.try_port(HOST, port)
            except OSError:
                return Page(name, url, "was up already")
            stack.enter_context(_running(name, command, f"{url}{health}", runs / "dashboards", variables))
            return Page(name, url)

        yield [_ray(), _mlflow(job, mlflow, start), _prometheus(prometheus, runs, start),
               _grafana(grafana, prometheus, runs, start)]  # fmt: skip


def _ray() -> Page:
    url = os.environ.get("RAY_API_SERVER_ADDRESS", f"http://{HOST}:8265")
    with suppress(requests.RequestException):
        requests.get(f"{url}/api/version", timeout=5)  # 401 is an answer too
        return Page("Ray", url)
    return Page("Ray", note=f"no cluster answers at {url}: a job prints its own (RAY_API_SERVER_ADDRESS names another)")


def _mlflow(job: config.Job, port: int, start: Start) -> Page:
    uri = job.tracking_uri
    if uri.startswith(("http://", "https://")):
        return Page("MLflow", uri)
    track.connect(uri)  # makes a fresh store, which servers side by side would not
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--host", HOST, "--workers", "1"]
    no_jobs = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # seven processes, for what nobody here asks for
    return start("MLflow", port, [*command, "--port", str(port)], "/health", **no_jobs)


def _prometheus(port: int, runs: Path, start: Start) -> Page:
    program = shutil.which("prometheus")
    if not program:
        return Page("Prometheus", note="not installed: apt-get install prometheus")
    command = [program, f"--config.file={DEPLOY}/prometheus/prometheus.yml"]
    command += [f"--storage.tsdb.path={runs}/prometheus", f"--web.listen-address={HOST}:{port}"]
    return start("Prometheus", port, command, "/-/ready")


def _grafana(port: int, prometheus: int, runs: Path, start: Start) -> Page:
    program = shutil.which("grafana")
    if not program:
        note = "not installed: https://grafana.com/grafana/download, or docker compose -f deploy/compose.yaml up -d"
        return Page("Grafana", note=note)
    homes = [Path(program).resolve().parents[1], Path("/usr/share/grafana")]  # of the archive, of Debian's package
    home = next((each for each in homes if (each / "conf/defaults.ini").exists()), homes[-1])
    settings = {
        "GF_SERVER_HTTP_ADDR": HOST,
        "GF_SERVER_HTTP_PORT": str(port),
        "GF_AUTH_ANONYMOUS_ENABLED": "true",  # whoever is on this machine
        "GF_AUTH_ANONYMOUS_ORG_ROLE": "Admin",
        "GF_ANALYTICS_REPORTING_ENABLED": "false",
        "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
        "GF_PATHS_DATA": f"{runs}/grafana",
        "GF_PATHS_PROVISIONING": f"{DEPLOY}/grafana/provisioning",
        "SICOT_DASHBOARDS": f"{DEPLOY}/grafana",
        "SICOT_PROMETHEUS": f"http://{HOST}:{prometheus}",
    }
    return start("Grafana", port, [program, "server", "--homepath", str(home)], "/api/health", **settings)


@contextmanager
def _running(name: str, command: list[str], health: str, logs: Path, variables: dict[str, str]) -> Iterator[None]:
    """A program, from when it answers."""
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / f"{name.lower()}.log"
    with log.open("w") as out:  # a session of its own, so that Ctrl-C comes to us alone
        process = subprocess.Popen(
            command, stdout=out, stderr=out, env={**os.environ, **variables}, start_new_session=True
        )
    try:
        deadline = time.monotonic() + SECONDS
        while not answers(health):
            if process.poll() is not None or time.monotonic() > deadline:
                raise UserError(f"{name} does not start: see {log}")
            time.sleep(0.3)
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
