"""A real Prometheus that watches a training and a search: every panel shows something, and nothing stays behind."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from ray.dashboard.modules.reporter import reporter_agent
from ray.job_submission import JobSubmissionClient

from sicot import cluster
from sicot.config import Tune
from sicot.search import gauges, tuner
from sicot.train import trainer
from tests.builders import experiment, prepared_set
from tests.waiting import until
from tests.watching import ALERTS, CONFIG, answer, queries
from tuning.space import SPACE

GPU = {"GPU utilisation", "GPU memory"}
pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]


def promtool(*arguments: str | Path) -> str:
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_prometheus_takes_our_files() -> None:
    assert "SUCCESS" in promtool("check", "config", CONFIG)
    assert "SUCCESS" in promtool("check", "rules", ALERTS)


def test_each_alert_fires_when_it_should_and_not_before() -> None:
    cases = Path(__file__).with_name("alerts.yaml")
    promtool("test", "rules", cases)
    for group in yaml.safe_load(ALERTS.read_text())["groups"]:
        for rule in group["rules"]:
            assert cases.read_text().count(f"alertname: {rule['alert']}") >= 2, (
                f"{rule['alert']} is not tested both ways"
            )


def shown_while(work: Callable[[], Any], dashboard: str, prometheus: httpx.Client) -> dict[tuple[str, str], list[Any]]:
    """The last series that each panel has shown, while the work goes on and until they are gone."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  told by the test
            failed.append(error)

    thread, shown = threading.Thread(target=run, daemon=True), {}
    thread.start()
    while thread.is_alive():
        for name, expression in queries(dashboard).items():
            if series := answer(prometheus, expression):
                shown[name] = series
        time.sleep(0.5)
    assert not failed, failed
    return shown


def test_a_training_is_shown_while_it_runs(prometheus: httpx.Client, tmp_path: Path) -> None:
    settings = experiment(tmp_path, epochs=60, loader_threads=0)
    data = prepared_set(Path(settings.folder) / "prepared", rows_per_class=40)
    shown = shown_while(lambda: trainer.fit(settings, data, None, settings.folder), "training", prometheus)
    missing = {title for title, _ in queries("training").keys() - shown.keys()}
    assert missing - GPU == set()
    (epochs,) = shown["Epochs", "B"]
    assert (epochs["metric"]["run"], float(epochs["value"][1])) == ("test", 60)
    assert {each["metric"]["part"] for each in shown["Loss", "A"]} >= {"loss", "visual", "mixed"}
    assert {each["metric"]["asked"] for each in shown["Validation, all rows", "A"]} == {"image", "image_text"}
    assert 0 < float(shown["Photos", "A"][0]["value"][1]) < 100_000
    assert 0 <= float(shown["Waiting for data", "A"][0]["value"][1]) < 1
    until(lambda: not answer(prometheus, "ray_sicot_train_epochs"), "gauges of a training that is over stay")

    said = JobSubmissionClient(cluster.dashboard_url())._do_request("GET", "/api/train/v2/runs/v1")  # with the token
    assert said.status_code == 200, said.text
    newest = said.json()["train_runs"][0]
    assert (newest["name"], newest["status"]) == ("train", "FINISHED")


def test_a_search_is_shown_while_it_runs(prometheus: httpx.Client, tmp_path: Path) -> None:
    settings = experiment(tmp_path).model_copy(update={"tune": Tune(trials=4, epochs=30, grace=30, concurrent=2)})
    prepared_set(Path(settings.folder) / "prepared", rows_per_class=20)
    shown = shown_while(lambda: tuner.search(settings, SPACE), "tuning", prometheus)
    missing = {title for title, _ in queries("tuning").keys() - shown.keys()}
    assert missing - GPU == set()
    assert {each["metric"]["state"] for each in shown["Trials", "A"]} == {*gauges.STATES, "left"}
    assert sum(float(each["value"][1]) for each in shown["Trials", "A"]) == 4
    assert float(shown["Objective", "A"][0]["value"][1]) >= float(shown["Objective", "B"][0]["value"][1]) > 0
    until(lambda: not answer(prometheus, "ray_sicot_search_trials"), "gauges of a search that is over stay")


def test_no_alert_is_broken_by_what_is_there(prometheus: httpx.Client) -> None:
    until(lambda: answer(prometheus, "up"), "nothing is scraped")
    groups = prometheus.get("/api/v1/rules").json()["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) == 15
    assert all(rule["health"] == "ok" for rule in rules), rules
    for rule in rules:
        answer(prometheus, rule["query"])


@pytest.mark.parametrize("dashboard", ["training", "tuning"])
def test_what_is_asked_of_gpus_is_what_ray_exports(dashboard: str) -> None:
    """Where there is none, nothing can be shown: the names at least are Ray's."""
    gauges = {f"ray_{gauge.name}" for gauge in reporter_agent.METRICS_GAUGES.values()}
    asked = " ".join(expression for (title, _), expression in queries(dashboard).items() if title in GPU)
    names = {"ray_node_gpus_utilization", "ray_node_gram_used", "ray_node_gram_available"}
    assert all(name in asked for name in names)
    assert names <= gauges
