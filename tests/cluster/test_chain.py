"""The whole way on three nodes, every step submitted from outside, everything on s3:// and in one MLflow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient

from sicot import config, ports, registry, storage
from sicot.bundle import Bundle
from sicot.endpoint import keys
from sicot.prepare.prepared import PreparedSet
from sicot.sandbox import services
from sicot.sandbox.cluster import Sandbox
from sicot.train import compare, worker
from tests.cluster.conftest import CATALOGUE, RAY, ROOT, SMALL, places, start, submit

pytestmark = [pytest.mark.system, pytest.mark.cluster, pytest.mark.timeout(600)]

NAME = "chain"

# Where the code of a job comes from, in its driver and on each node.
WHENCE = """
import json, ray, sicot, sys
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On
ray.init()
where = ray.remote(lambda: __import__("sicot").__file__)
nodes = {node["NodeName"]: On(node["NodeID"], soft=False) for node in ray.nodes()}
found = {name: ray.get(where.options(scheduling_strategy=on).remote()) for name, on in nodes.items()}
json.dump({"driver": sicot.__file__, **found}, open(sys.argv[1], "w"))
"""


def test_all_of_it_listens_on_this_machine_alone(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    living = sandbox.processes.living()
    listening = [
        connection.laddr.ip.removeprefix("::ffff:")
        for process in living
        for connection in process.net_connections("tcp")  # of those in this process's own namespace
        if connection.status == psutil.CONN_LISTEN
    ]
    assert set(listening) <= {"127.0.0.1", "::1"}
    if sandbox.network.name:  # three nodes, and the services
        here = os.stat("/proc/self/ns/net").st_ino
        assert len({os.stat(f"/proc/{process.pid}/ns/net").st_ino for process in living} - {here}) == 4
    else:
        assert len(listening) > 20
    assert sandbox.token.stat().st_mode & 0o077 == 0
    assert httpx.get(f"{sandbox.environment['RAY_API_SERVER_ADDRESS']}/api/version").status_code == 401
    sandbox.up()
    assert capsys.readouterr().out.count("is up already") == len(sandbox.parts) == 7


def test_nodes_run_the_code_that_was_submitted(sandbox: Sandbox, tmp_path: Path) -> None:
    submit(sandbox, "python", "-c", WHENCE, str(tmp_path / "out.json"))
    found = json.loads((tmp_path / "out.json").read_text())
    assert found.keys() == {"driver", "head", "worker-1", "worker-2"}
    for name, file in found.items():
        assert Path(file).is_relative_to(sandbox.scratch / ("head" if name == "driver" else name)), found


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> config.Experiment:
    """The same experiment, prepared on this machine by a Ray of its own."""
    folder = tmp_path_factory.mktemp("local")
    given = ["--name", NAME, *SMALL, "--storage", str(folder)]
    subprocess.run([sys.executable, "-m", "jobs.prepare", *given], cwd=ROOT, check=True, capture_output=True)
    return config.load(config.Experiment, given)


@pytest.fixture(scope="module")
def trained(sandbox: Sandbox) -> str:
    """URI of the run's folder, once it is prepared and trained on all nodes."""
    given = ["--name", NAME, *SMALL, *places(sandbox)]
    submit(sandbox, "python", "-m", "jobs.prepare", *given)
    submit(sandbox, "python", "-m", "jobs.train", *given, "--train.workers", "4")
    return f"{sandbox.environment['SICOT_STORAGE']}/{NAME}"


def test_the_data_is_what_this_machine_alone_prepares(trained: str, local: config.Experiment) -> None:
    there, here = PreparedSet.open(f"{trained}/prepared"), PreparedSet.open(f"{local.folder}/prepared")
    assert there.manifest.digest == here.manifest.digest
    assert not storage.exists(f"{trained}/prepared.part")


def test_the_model_is_as_good_as_one_that_a_single_process_trains(
    sandbox: Sandbox, trained: str, local: config.Experiment
) -> None:
    data = PreparedSet.open(f"{local.folder}/prepared")
    four = local.model_copy(update={"train": local.train.model_copy(update={"workers": 4})})
    alone = worker.fit(compare.with_seed(four, 0), data, lambda metrics, save: None)
    made = Bundle.load(registry.fetch(f"{trained}/bundle", sandbox.environment["MLFLOW_TRACKING_URI"]))
    ours, theirs = (worker.validate(model, data, 64, split="test") for model in (made.model, alone))
    assert theirs["image_text/top1"] > 0.4  # one of six
    for regime in ("image", "image_text"):
        assert abs(ours[f"{regime}/top1"] - theirs[f"{regime}/top1"]) < 0.25  # some 100 rows, other batches


def test_everything_else_works_on_what_is_there(sandbox: Sandbox, trained: str, mlflow: MlflowClient) -> None:
    few = ["--tune.trials", "2", "--tune.epochs", "2", "--tune.grace", "1"]
    submit(sandbox, "python", "-m", "tuning.search", "--name", NAME, *SMALL, *places(sandbox), *few)
    assert b"attention" in storage.read_bytes(f"{trained}/best.yaml")
    submit(sandbox, "python", "-m", "jobs.register", "--name", NAME, "--promote", *places(sandbox))
    asked = ["--catalogue.path", f"{trained}/prepared", *places(sandbox)]
    submit(sandbox, "python", "-m", "jobs.evaluate", *asked, "--out", f"{trained}/report")
    assert storage.read_json(f"{trained}/report/report.json")["metrics"]["image_text"]["top1"] > 0.2
    submit(sandbox, "python", "-m", "jobs.predict", *asked, "--out", f"{trained}/labels")
    assert storage.read_json(f"{trained}/labels/summary.json")["answered"] == CATALOGUE["rows"]
    system, path = storage.open_uri(f"{trained}/labels/predictions")
    assert pq.read_table(path, filesystem=system).num_rows == CATALOGUE["rows"]
    version = mlflow.get_model_version_by_alias("sicot", "champion")
    assert version.version == "1"
    runs = mlflow.search_runs([mlflow.get_experiment_by_name("sicot").experiment_id])
    by_kind = {run.data.tags["sicot.kind"] for run in runs}
    assert by_kind == {"prepare", "train", "search", "trial", "register", "evaluate", "predict"}
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert any(file.path == "report" for run in runs for file in mlflow.list_artifacts(run.info.run_id))


def test_the_champion_is_served(sandbox: Sandbox, trained: str) -> None:
    (port,) = ports.free()
    host = "0.0.0.0" if sandbox.network.name else "127.0.0.1"
    given = ["--serve.host", host, "--serve.port", str(port), "--serve.replicas", "1", *places(sandbox)]
    start(
        sandbox, "python", "-m", "jobs.serve", *given,
        options=("--no-wait", "--submission-id", "serving"),
        variables={keys.VARIABLE: f"shop sha256:{keys.digest('the-key')}"},
    ).wait(60)  # fmt: skip
    url = f"http://{sandbox.network.addresses['head']}:{port}"
    shop = httpx.Client(headers={"Authorization": "Bearer the-key"})
    deadline = time.monotonic() + 120
    while True:
        try:
            if httpx.get(f"{url}/readyz").status_code == 200:
                break
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, "the endpoint does not answer"
        time.sleep(0.5)
    assert httpx.get(f"{url}/v1/model").status_code == 401
    asked = shop.post(f"{url}/v1/recognize", data={"title": "red teapot 红色 茶壶"})
    assert asked.status_code in (200, 400), asked.text  # 400: no word that so small a catalogue uses
    assert shop.get(f"{url}/v1/model").json()["version"] == "1"
    environment = services.clean() | sandbox.environment
    subprocess.run([RAY, "job", "stop", "serving"], env=environment, check=True, capture_output=True)


def test_prometheus_watches_all_nodes(sandbox: Sandbox) -> None:
    question = {"query": "count(count by (instance) (ray_node_cpu_utilization))"}
    deadline = time.monotonic() + 90
    while True:
        found = httpx.get(f"{sandbox.part('prometheus').address}/api/v1/query", params=question).json()["data"][
            "result"
        ]
        if found and found[0]["value"][1] == "3":
            break
        assert time.monotonic() < deadline, found
        time.sleep(1)
