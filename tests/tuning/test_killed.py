"""The driver of a search of 32 trials is killed, at a random moment, and the search goes on."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import ray
from mlflow import MlflowClient

from sicot.config import Tune
from sicot.search.book import key
from tests.builders import experiment, prepared_set

TRIALS, EPOCHS, KILLS = 32, 4, 2

pytestmark = pytest.mark.timeout(900)  # a minute and a half where the machine is idle


def start(config: Path, log: Path) -> subprocess.Popen[bytes]:
    """The command, on the cluster of these tests."""
    address = ray.get_runtime_context().gcs_address
    with log.open("ab") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "tuning.search", "--config", str(config)],
            env={**os.environ, "RAY_ADDRESS": address},
            stdout=out,
            stderr=out,
        )


def read(book: Path) -> list[dict[str, Any]]:
    return json.loads(book.read_text())["trials"] if book.exists() else []


def kept(trials: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [trial for trial in trials if trial["state"] in ("finished", "stopped")]


def test_no_trial_is_lost_or_run_again_when_the_driver_is_killed(tmp_path: Path, ray_cluster: None) -> None:
    prepared_set(tmp_path / "test" / "prepared", rows_per_class=12)
    tune = Tune(trials=TRIALS, epochs=EPOCHS, grace=2, concurrent=3)
    settings = experiment(tmp_path).model_copy(update={"tune": tune})
    config, book, log = tmp_path / "search.yaml", tmp_path / "test" / "search" / "trials.json", tmp_path / "log"
    config.write_bytes(settings.dump())
    before: list[dict[str, Any]] = []
    for _ in range(KILLS):
        process = start(config, log)
        more = len(kept(before)) + 1
        while len(kept(read(book))) < more:
            assert process.poll() is None, log.read_text()[-3000:]
            time.sleep(0.05)
        moment = random.uniform(0.0, 4.0)
        time.sleep(moment)
        process.send_signal(signal.SIGKILL)
        process.wait()
        now = read(book)
        print(f"killed {moment:.2f} s after trial {more} had ended: {Counter(trial['state'] for trial in now)}")
        assert all(trial in now for trial in kept(before))
        before = now
    assert len(kept(before)) < TRIALS
    assert [trial for trial in before if trial["state"] == "running"]

    process = start(config, log)
    assert process.wait() == 0, log.read_text()[-3000:]
    after = read(book)
    assert len(kept(after)) == len(after) == TRIALS
    assert all(trial in after for trial in kept(before))  # with every figure of it
    for was, now in zip(before, after, strict=False):
        assert (was["number"], was["point"]) == (now["number"], now["point"])
        assert was["run"] in ("", now["run"])
        assert now["epochs"][: len(was["epochs"])] == was["epochs"]  # went on, and did not train these again
    for trial in after:
        assert [epoch["epoch"] for epoch in trial["epochs"]] == list(range(1, len(trial["epochs"]) + 1))
    assert len({key(trial["point"]) for trial in after}) == TRIALS

    client = MlflowClient(settings.tracking_uri)
    runs = client.search_runs([each.experiment_id for each in client.search_experiments()], max_results=1000)
    states = {run.info.run_id: run.info.status for run in runs}
    assert "RUNNING" not in states.values()
    (parent,) = [run for run in runs if run.data.tags["sicot.kind"] == "search"]
    assert states[parent.info.run_id] == "FINISHED"
    for trial in after:
        assert states[trial["run"]] == "FINISHED"
        steps = Counter(point.step for point in client.get_metric_history(trial["run"], "objective"))
        assert set(steps.values()) == {1}, (trial["number"], steps)  # each epoch was logged once
