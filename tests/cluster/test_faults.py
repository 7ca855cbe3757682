"""What breaks while four workers train: the work ends right, or stops with one line and the same command goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pyarrow.fs as pafs
import pytest
from mlflow import MlflowClient

from sicot import pipeline, storage
from sicot.bundle import Bundle
from sicot.sandbox import nodes, services
from sicot.sandbox.cluster import Sandbox
from tests.cluster.conftest import SMALL, places, start, submit
from tests.forwarder import Forwarder

pytestmark = [pytest.mark.system, pytest.mark.cluster, pytest.mark.timeout(600)]

NAME, EPOCHS = "faults", 40
MLFLOW_AWAY, S3_AWAY = 60.0, 30.0
"""Seconds that a server is away; MLflow is asked again every 30 and waited for up to 120, S3 up to 60."""


@pytest.fixture(scope="module")
def folder(sandbox: Sandbox) -> str:
    """URI of a run that is prepared."""
    submit(sandbox, "python", "-m", "jobs.prepare", "--name", NAME, *SMALL, *places(sandbox))
    return f"{sandbox.environment['SICOT_STORAGE']}/{NAME}"


def train(sandbox: Sandbox, *options: str, variables: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """A training on four workers that takes a while, submitted."""
    given = ["--name", NAME, *SMALL, *places(sandbox), "--train.workers", "4", "--train.epochs", str(EPOCHS)]
    return start(sandbox, "python", "-m", "jobs.train", *given, *options, variables=variables)


@pytest.fixture
def training(sandbox: Sandbox, folder: str) -> Iterator[subprocess.Popen[str]]:
    """One that has begun anew and has a checkpoint."""
    pipeline.forget(folder)
    process = train(sandbox)
    until(lambda: checkpoints(folder), process)
    yield process
    process.kill()


def until(holds: Callable[[], object], process: subprocess.Popen[str], seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert process.poll() is None, process.communicate()[0][-6000:]
        assert time.monotonic() < deadline
        time.sleep(0.2)


def checkpoints(folder: str) -> set[str]:
    """Names of the checkpoints that are there."""
    system, path = storage.open_uri(f"{folder}/train")
    found = system.get_file_info(pafs.FileSelector(path, allow_not_found=True))
    return {file.base_name for file in found if file.base_name.startswith("checkpoint_")}


def ends_right(process: subprocess.Popen[str], folder: str) -> str:
    """The job succeeds, and its bundle is whole and of all epochs; gives what it printed."""
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed[-6000:]
    assert storage.read_json(f"{folder}/bundle/bundle.json")["training"]["epochs"] == EPOCHS
    return printed


def trainers(sandbox: Sandbox, node: str) -> list[psutil.Process]:
    """The training workers on a node."""
    process = sandbox.processes.find(node)
    children = process.children(recursive=True) if process else []
    return [each for each in children if "RayTrainWorker" in " ".join(each.cmdline())]


def busiest(sandbox: Sandbox) -> str:
    """The worker node that trains."""
    return max(nodes.WORKERS, key=lambda name: len(trainers(sandbox, name)))


def test_a_training_worker_is_killed(
    sandbox: Sandbox, folder: str, training: subprocess.Popen[str], tmp_path: Path
) -> None:
    killed = trainers(sandbox, busiest(sandbox))[0]
    killed.send_signal(signal.SIGKILL)
    ends_right(training, folder)
    Bundle.load(storage.local_folder(f"{folder}/bundle", f"{tmp_path}/bundle"))


def test_a_whole_node_is_killed(sandbox: Sandbox, folder: str, training: subprocess.Popen[str]) -> None:
    node = busiest(sandbox)
    assert trainers(sandbox, node)
    sandbox.processes.kill(node)
    ends_right(training, folder)
    sandbox.restart(node)
    assert set(nodes.alive(sandbox.environment["RAY_API_SERVER_ADDRESS"], sandbox.token)) == set(nodes.CPUS)


def test_mlflow_is_killed_and_comes_back(
    sandbox: Sandbox, folder: str, training: subprocess.Popen[str], mlflow: MlflowClient
) -> None:
    sandbox.processes.kill("mlflow")
    gone, before = time.monotonic(), checkpoints(folder)
    until(lambda: len(checkpoints(folder) - before) > 1, training)  # it goes on meanwhile
    time.sleep(max(0.0, gone + MLFLOW_AWAY - time.monotonic()))
    sandbox.restart("mlflow")
    ends_right(training, folder)
    (run, *_) = mlflow.search_runs(
        [mlflow.get_experiment_by_name("sicot").experiment_id], "tags.`sicot.kind` = 'train'"
    )
    assert run.info.status == "FINISHED"
    steps = [metric.step for metric in mlflow.get_metric_history(run.info.run_id, "val/macro")]
    assert sorted(set(steps)) == list(range(1, EPOCHS + 1))


def test_s3_refuses_for_a_while(sandbox: Sandbox, folder: str) -> None:
    pipeline.forget(folder)
    forwarder = Forwarder(sandbox.ports["s3"], sandbox.network.addresses[services.PLACE], sandbox.network.host)
    process = train(sandbox, variables={"AWS_ENDPOINT_URL": f"http://{sandbox.network.host}:{forwarder.port}"})
    try:
        until(lambda: checkpoints(folder), process)
        with forwarder.shut(S3_AWAY):
            assert process.poll() is None
        ends_right(process, folder)
    finally:
        process.kill()
        forwarder.close()
    assert forwarder.refused >= S3_AWAY


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a small disk")
def test_the_disk_of_a_node_is_full(sandbox: Sandbox, folder: str, training: subprocess.Popen[str]) -> None:
    node = busiest(sandbox)
    disk, process = sandbox.scratch / node / "tmp", sandbox.processes.find(node)
    assert process
    there = ["nsenter", f"--target={process.pid}", "--mount"]  # as the node sees the machine's disks
    subprocess.run([*there, "mount", "-t", "tmpfs", "-o", "size=256k", "full", disk], check=True)
    try:
        printed, _ = training.communicate(timeout=300)
    finally:
        subprocess.run([*there, "umount", "--lazy", disk], check=True)
    if training.returncode:  # else it went on elsewhere
        (line,) = [line for line in printed.splitlines() if line.startswith("error: ")]
        assert "No space left on device" in line
        assert "run the same command again" in line
        assert "Traceback" not in printed
    again = train(sandbox)
    assert "already trained" in ends_right(again, folder) or training.returncode
