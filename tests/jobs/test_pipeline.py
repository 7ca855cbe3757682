"""The whole way on a small catalogue: every step real, the summary whole, a second start quick."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from serve_apps import recognizer
from sicot import config, pipeline
from sicot.config import Experiment
from sicot.endpoint import server
from sicot.errors import UserError

SUMMARY = {
    "rows", "quarantined", "test", "baseline", "sicot_minus_visual", "training", "served", "mlflow", "seconds", "name",
}  # fmt: skip


def small(storage: Path, **more: object) -> Experiment:
    """Six classes, 32-pixel photos, one epoch."""
    flags = {
        "name": "small", "storage": storage, "catalogue.synthetic.rows": 180, "catalogue.synthetic.classes": 6,
        "catalogue.synthetic.imbalance": 4, "catalogue.synthetic.image_size": 32, "prepare.images.size": 32,
        "prepare.word2vec.dimension": 8, "prepare.groups.head_above": 30, "prepare.groups.tail_below": 20,
        "model.visual.trunk": "squeezenet1_1", "model.dimension": 16, "train.epochs": 2, "train.batch_size": 16,
        "evaluate.seeds": 1, "serve.port": 0, **more,
    }  # fmt: skip
    return config.load(Experiment, [part for name, value in flags.items() for part in (f"--{name}", str(value))])


def test_the_whole_way(ray_cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = small(tmp_path)
    summary = pipeline.run(experiment, recognizer.start, server.stop, "http://dashboard")
    written = json.loads((tmp_path / "small/summary.json").read_text())
    assert set(written) == SUMMARY
    assert written["rows"] + written["quarantined"] == 180
    for model, regimes in (("test", ("image", "image_text", "text")), ("baseline", ("image",))):
        for regime in regimes:
            assert {"top1", "macro", "head", "medium", "tail"} <= set(written[model][regime])
    assert set(written["baseline"]) == {"image"}  # it has never seen a word
    assert written["sicot_minus_visual"]["image_text_tail"]["seeds"] == 2
    assert written["served"]["requests"] > 0
    assert written["served"]["agree"] == 1.0
    assert {"prepare", "train", "evaluate", "register", "serve", "total"} <= set(written["seconds"])
    screen = capsys.readouterr().out
    for part in ("1/6 prepare", "6/6 serve", "photo + words", "where to look next"):
        assert part in screen

    client = MlflowClient(experiment.tracking_uri)
    run = client.get_run(summary["mlflow"]["run_id"])
    assert run.info.status == "FINISHED"
    assert {"val/macro", "loss/loss", "images_per_s"} <= set(run.data.metrics)
    assert len(client.get_metric_history(run.info.run_id, "val/macro")) == 2
    assert str(client.get_model_version_by_alias("sicot", "champion").version) == "1"
    card = tmp_path / "small/report/MODEL_CARD.md"
    assert "our reading" in card.read_text()

    again = pipeline.run(experiment, recognizer.start, server.stop, "")
    assert again["test"]["image"]["top1"] == summary["test"]["image"]["top1"]
    assert again["mlflow"]["model_uri"] == summary["mlflow"]["model_uri"]  # the same model is not registered twice
    screen = capsys.readouterr().out
    assert "already prepared" in screen
    assert screen.count("already trained") == 2  # the model and its visual-only baseline


def test_training_before_preparing_says_what_to_run(ray_cluster: None, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"run `python -m jobs\.prepare` first"):
        pipeline.train(small(tmp_path))


def test_differences_are_paired_by_seed() -> None:
    test = {"image": {"tail": 0.5}, "image_text": {"tail": 0.7}}
    further = [{"sicot": {"image/tail": 0.4, "image_text/tail": 0.6}, "visual": {"image/tail": 0.3}}]
    found = pipeline.tail_differences(test, {"image": {"tail": 0.4}}, further)
    assert found["image_tail"]["mean"] == pytest.approx(0.1)
    assert found["image_text_tail"]["mean"] == pytest.approx(0.3)
    assert found["image_tail"]["seeds"] == 2
