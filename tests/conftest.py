"""Fixtures of the whole run: one Ray cluster, real data where there is some, a small bundle."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two processes with two threads each are far slower than with one
os.environ.setdefault("RAY_metrics_report_interval_ms", "1000")  # by itself 10 s, so long that little is seen

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import settings

import sicot  # noqa: F401  sets Ray's environment before anything imports Ray

CPUS = 6
settings.register_profile("any machine", deadline=None)  # a busy one takes its time
settings.load_profile("any machine")


@pytest.fixture(scope="session")
def ray_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A local Ray with `CPUS` logical CPUs, up once for all tests."""
    from sicot import cluster

    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))  # of Ray's processes, too
    with cluster.session(CPUS):
        yield


@pytest.fixture(scope="module")
def prometheus(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A Prometheus that watches the cluster."""
    from tests.watching import watching

    with watching(tmp_path_factory.mktemp("prometheus")) as client:
        yield client


@pytest.fixture(scope="session")
def s3_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Port of an S3 server on this machine."""
    from sicot import ports
    from sicot.sandbox import services

    (port,) = ports.free()
    part = services.store(f"127.0.0.1:{port}", tmp_path_factory.mktemp("s3"))
    quiet = subprocess.DEVNULL
    with subprocess.Popen(part.command.line, env=part.command.environment, stdout=quiet, stderr=quiet) as server:
        deadline = time.monotonic() + 60
        while not part.ready():
            assert server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield port
        server.kill()


@pytest.fixture
def bucket(s3_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """URI of an empty folder there, which this process finds as nodes of a cluster do: by its environment."""
    from sicot.sandbox import services

    for name, value in services.s3_environment(f"127.0.0.1:{s3_port}").items():
        monkeypatch.setenv(name, value)
    return f"s3://{services.BUCKET}/{tmp_path.name}"


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Folder of real product data, named by SICOT_DATA."""
    folder = os.environ.get("SICOT_DATA")
    if not folder:
        pytest.skip("SICOT_DATA names no folder of product data")
    return Path(folder).absolute()


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of an untrained bundle: six classes, 32-pixel photos, Chinese and English words."""
    from tests.builders import bundle_folder

    return bundle_folder(tmp_path_factory.mktemp("tiny"))
