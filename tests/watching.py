"""A real Prometheus on what the tests' cluster exports, by our configuration, and what tests ask it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import ray
import yaml

from sicot import ports
from tests.waiting import until

ROOT = Path(__file__).parents[1]
CONFIG, ALERTS = ROOT / "deploy/prometheus/prometheus.yml", ROOT / "deploy/prometheus/alerts.yml"
VARIABLES = {"$__rate_interval": "1m", "$__range": "5m", "$run": ".*", "$search": ".*"}
"""What Grafana puts in for its names."""


def queries(dashboard: str) -> dict[tuple[str, str], str]:
    """The expressions of a dashboard in deploy/grafana, by title of the panel and letter."""
    panels = json.loads((ROOT / f"deploy/grafana/{dashboard}.json").read_text())["panels"]
    return {(each["title"], target["refId"]): target["expr"] for each in panels for target in each["targets"]}


@contextmanager
def watching(folder: Path) -> Iterator[httpx.Client]:
    """A Prometheus by our configuration, but quicker, and at the nodes of this very session."""
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
                until(lambda: process.poll() is None and _ready(client), "Prometheus does not start")
                yield client
        finally:
            process.terminate()
            process.wait(20)


def answer(client: httpx.Client, expression: str) -> list[Any]:
    """The series that an expression gives now, none of them without a number."""
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    said = client.get("/api/v1/query", params={"query": expression}).json()
    assert said["status"] == "success", f"{expression}: {said}"
    assert not said.get("warnings"), f"{expression}: {said}"
    return [each for each in said["data"]["result"] if each["value"][1] != "NaN"]


def _ready(client: httpx.Client) -> bool:
    try:
        return client.get("/-/ready").status_code == 200
    except httpx.TransportError:
        return False
