"""Fixtures of the whole run: one Ray cluster, real data where there is some, a small bundle."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two processes with two threads each are far slower than with one

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
