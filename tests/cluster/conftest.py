"""One sandbox for all tests of this folder, and what they do with it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient

from sicot.sandbox import services
from sicot.sandbox.cluster import Sandbox

ROOT = Path(__file__).parents[2]
RAY = str(Path(sys.executable).with_name("ray"))
CATALOGUE = {"rows": 480, "classes": 6, "image_size": 32, "imbalance": 4, "word_noise": 0.1}
SMALL = [
    *(word for name, value in CATALOGUE.items() for word in (f"--catalogue.synthetic.{name}", str(value))),
    *("--prepare.images.size", "32", "--prepare.word2vec.dimension", "8", "--prepare.rows_per_block", "64"),
    *("--model.visual.trunk", "squeezenet1_1", "--model.dimension", "16", "--model.attention.rank", "4"),
    *("--train.batch_size", "4", "--train.learning_rate", "3e-3", "--train.trunk_rate", "1"),
    *("--train.precision", "fp32", "--train.epochs", "12"),
]  # fmt: skip
"""Settings of a catalogue and a model that are made in seconds."""


@pytest.fixture(scope="package")  # later tests need the memory, and another S3
def sandbox() -> Iterator[Sandbox]:
    """Three Ray nodes, MLflow on PostgreSQL, S3 and Prometheus; this process finds the S3 server, too."""
    folder = Path(tempfile.mkdtemp(prefix="sicot-test-"))
    cluster = Sandbox(folder / "cluster", ROOT / "deploy/prometheus/prometheus.yml")
    before = dict(os.environ)
    try:
        cluster.up()
        os.environ.update(services.s3_environment(cluster.address("s3")))
        yield cluster
    finally:
        os.environ.clear()
        os.environ.update(before)
        cluster.down()
        assert not cluster.processes.living()
        shutil.rmtree(folder)


@pytest.fixture
def mlflow(sandbox: Sandbox) -> MlflowClient:
    """A client of the sandbox's MLflow."""
    return MlflowClient(sandbox.environment["MLFLOW_TRACKING_URI"])


def places(sandbox: Sandbox) -> list[str]:
    """Where a job keeps its files, and its runs."""
    environment = sandbox.environment
    return ["--storage", environment["SICOT_STORAGE"], "--track.uri", environment["MLFLOW_TRACKING_URI"]]


def start(
    sandbox: Sandbox, *command: str, variables: Mapping[str, str] | None = None, options: tuple[str, ...] = ()
) -> subprocess.Popen[str]:
    """The command that runtime_env.yaml and the README name, begun; ``variables`` are the job's own."""
    described = yaml.safe_load((ROOT / "runtime_env.yaml").read_text())
    described["env_vars"].update(variables or {})
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", delete=False, dir=sandbox.folder) as file:
        yaml.safe_dump(described, file)
    line = [RAY, "job", "submit", "--working-dir", ".", "--runtime-env", file.name, *options, "--", *command]
    environment = services.clean() | sandbox.environment
    return subprocess.Popen(
        line, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def submit(sandbox: Sandbox, *command: str, **how: Any) -> str:
    """The same, to its end; gives what it printed. The job must succeed."""
    process = start(sandbox, *command, **how)
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed[-6000:]
    return printed
