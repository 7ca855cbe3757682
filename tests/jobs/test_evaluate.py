"""The doors that use a model: register, evaluate, predict, from the command line to files."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient

from tests import builders

pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_from_a_bundle_to_a_champion_its_figures_and_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    builders.bundle_folder(tmp_path / "runs" / "shoes")
    prepared = str(tmp_path / "runs" / "shoes" / "prepared")

    def run(job: str, *flags: str) -> str:
        monkeypatch.setattr(sys, "argv", [job, *flags, "--storage", str(tmp_path / "runs")])
        capsys.readouterr()
        importlib.import_module(f"jobs.{job}").main()
        return capsys.readouterr().out

    said = run("register", "--name", "shoes", "--promote")
    assert "version 1 is the first champion" in said
    assert "challenger, champion" in said
    assert "version 1 is the champion already" in run("register", "--name", "shoes", "--promote")

    said = run("evaluate", "--catalogue.path", prepared, "--out", str(tmp_path / "report"))
    told = json.loads((tmp_path / "report" / "report.json").read_text())
    assert f"{told['metrics']['image']['top1'] * 100:.1f}" in said
    client = MlflowClient(f"sqlite:///{tmp_path}/runs/mlflow.db")
    (it,) = client.search_runs(["1"], "tags.`sicot.kind` = 'evaluate'")
    assert it.info.status == "FINISHED"
    assert it.data.metrics["image/top1"] == told["metrics"]["image"]["top1"]
    assert it.data.tags["sicot.model_version"] == "1"
    assert {file.path for file in client.list_artifacts(it.info.run_id, "report")} >= {"report/MODEL_CARD.md"}

    said = run("predict", "--catalogue.path", prepared, "--out", str(tmp_path / "every"))
    assert "186 of 186 rows answered" in said  # all splits
    said = run("predict", "--catalogue.path", prepared, "--split", "test", "--out", str(tmp_path / "test"))
    assert "36 of 36 rows answered" in said
    said = run("predict", "--catalogue.path", f"{prepared}/val", "--out", str(tmp_path / "labels"), "--top", "2")
    assert "24 of 24 rows answered" in said
    assert {len(row["ranked"]) for row in pq.read_table(tmp_path / "labels" / "predictions").to_pylist()} == {2}
