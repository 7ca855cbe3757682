"""A real Prometheus that watches the running endpoint: what we ship for it is understood, and shows something."""

from __future__ import annotations

import itertools
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import ray
import yaml

from sicot import ports
from sicot.drift import ENOUGH
from tests.builders import photo

ROOT = Path(__file__).parents[2]
CONFIG, ALERTS = ROOT / "deploy/prometheus/prometheus.yml", ROOT / "deploy/prometheus/alerts.yml"
PANELS = json.loads((ROOT / "deploy/grafana/serving.json").read_text())["panels"]
QUERIES = {(each["title"], target["refId"]): target["expr"] for each in PANELS for target in each["targets"]}
pytestmark = pytest.mark.system


def promtool(*arguments: str | Path) -> str:
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_prometheus_takes_our_files() -> None:
    assert "SUCCESS" in promtool("check", "config", CONFIG)
    assert "SUCCESS" in promtool("check", "rules", ALERTS)


def test_each_alert_fires_when_it_should_and_not_before() -> None:
    promtool("test", "rules", Path(__file__).with_name("alerts.yaml"))
    tested = Path(__file__).with_name("alerts.yaml").read_text()
    for rule in yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]:
        assert tested.count(f"alertname: {rule['alert']}") >= 2, f"{rule['alert']} is not tested both ways"


@pytest.fixture(scope="module")
def prometheus(endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """One by our configuration, but quicker, and at the nodes of this very session."""
    folder = tmp_path_factory.mktemp("prometheus")
    settings = yaml.safe_load(CONFIG.read_text())
    session = Path(ray._private.worker._global_node.get_session_dir_path())
    (found,) = settings["scrape_configs"][0]["file_sd_configs"]
    found["files"] = [str(session / Path(found["files"][0]).name)]
    settings["global"].update(scrape_interval="1s", evaluation_interval="1s")
    settings["rule_files"] = [str(ALERTS)]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(settings))
    address = f"127.0.0.1:{ports.free()[0]}"
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address={address}",
            ],
            stderr=log,
        )
        try:
            with httpx.Client(base_url=f"http://{address}", timeout=20) as client:
                until(lambda: process.poll() is None and ready(client), "Prometheus does not start")
                yield client
        finally:
            process.terminate()
            process.wait(20)


def until(holds: Callable[[], Any], otherwise: str, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.5)


def ready(client: httpx.Client) -> bool:
    try:
        return client.get("/-/ready").status_code == 200
    except httpx.TransportError:
        return False


def answer(client: httpx.Client, expression: str) -> list[Any]:
    """The series that an expression gives now, none of them without a number."""
    said = client.get("/api/v1/query", params={"query": expression.replace("$__rate_interval", "1m")}).json()
    assert said["status"] == "success", f"{expression}: {said}"
    assert not said.get("warnings"), f"{expression}: {said}"
    return [each for each in said["data"]["result"] if each["value"][1] != "NaN"]


def test_every_panel_shows_something_and_every_alert_is_watched(endpoint: str, prometheus: httpx.Client) -> None:
    seeds = itertools.count()
    with httpx.Client(base_url=endpoint, timeout=30) as client:

        def ask() -> None:
            fresh = photo("red-bag", next(seeds))  # what is kept goes through no stage
            client.post("/v1/recognize", files={"image": fresh}, data={"title": "red bag"})
            client.post("/v1/recognize", content=fresh, headers={"content-type": "image/jpeg"})
            for _ in range(ENOUGH // 10):
                client.post("/v1/recognize", data={"title": "red bag"})
            client.post("/v1/recognize", content=b"no photo", headers={"content-type": "image/jpeg"})

        def empty() -> list[Any]:
            ask()
            return [name for name, expression in QUERIES.items() if not answer(prometheus, expression)]

        until(lambda: not empty(), f"no series for {empty()}")
    shown = {name: answer(prometheus, expression) for name, expression in QUERIES.items()}
    (model,) = shown["Models", "A"]
    served = httpx.get(f"{endpoint}/v1/model").json()
    assert (model["metric"]["digest"], model["value"][1]) == (served["digest"][:12], "1")
    assert {each["metric"]["stage"] for each in shown["Stages, p99", "A"]} == {
        "read", "decode", "queue", "model", "search",
    }  # fmt: skip
    assert {each["metric"]["code"] for each in shown["Refused and failing", "A"]} >= {"image_type"}
    unknown = {each["metric"]["asked"]: float(each["value"][1]) for each in shown["Unknown products", "A"]}
    assert unknown == {"image": 1, "image_text": 0, "text": 0}  # as the tiny bundle's thresholds have it
    assert sum(float(each["value"][1]) for each in shown["First answers by group", "A"]) == pytest.approx(1)
    drift = {each["metric"]["asked"]: float(each["value"][1]) for each in shown["Drift of scores (PSI)", "A"]}
    assert drift["text"] > 0.25  # the same question over and over
    rules = prometheus.get("/api/v1/rules").json()["data"]["groups"][0]["rules"]
    assert {rule["name"] for rule in rules} >= {"SicotDown", "SicotReplicaDown", "SicotErrors", "SicotDrift"}
    assert all(rule["health"] == "ok" for rule in rules), rules
    quiet = {rule["name"] for rule in rules if rule["state"] == "inactive"}
    assert quiet >= {"SicotDown", "SicotReplicaDown", "SicotErrors", "SicotFull", "SicotVersionsDiffer"}
    for rule in rules:
        answer(prometheus, rule["query"])
