"""Training on Ray: a lost worker, a second start, settings that changed."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from ray.train import Checkpoint
from torch import Tensor

from sicot import index, origin, storage
from sicot.bundle import Bundle
from sicot.config import Index
from sicot.errors import UserError
from sicot.prepare.prepared import PreparedSet
from sicot.search.space import apply
from sicot.train import compare, trainer, worker
from tests.builders import experiment, prepared_set


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    return prepared_set(tmp_path_factory.mktemp("set"), rows_per_class=60)


def train_workers() -> list[psutil.Process]:
    """Those of this test's own cluster: somebody may be training on the machine."""
    ours = psutil.Process().children(recursive=True)
    return [process for process in ours if "RayTrainWorker" in " ".join(process.cmdline())]


def kill_one_after_the_first_checkpoint(folder: Path, killed: list[int]) -> None:
    """SIGKILL a training worker once there is something to resume from."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not list(folder.glob("train/checkpoint_*")):
        time.sleep(0.05)
    for process in train_workers()[:1]:
        os.kill(process.pid, signal.SIGKILL)
        killed.append(process.pid)


def test_a_killed_worker_is_replaced_and_the_result_is_that_of_an_undisturbed_run(
    ray_cluster: None, data: PreparedSet, tmp_path: Path
) -> None:
    settings = experiment(tmp_path, epochs=12, workers=2, batch_size=8, checkpoint_steps=5)
    killed: list[int] = []
    killer = threading.Thread(target=kill_one_after_the_first_checkpoint, args=(Path(settings.folder), killed))
    killer.start()
    bundle = Bundle.load(trainer.fit(settings, data, None, settings.folder))
    killer.join()
    assert killed
    assert bundle.info.training["epochs"] == 12
    assert bundle.info.training["commit"] == origin.commit()
    disturbed = worker.validate(bundle.model, data, 64, split="test")
    undisturbed = worker.validate(
        worker.fit(compare.with_seed(settings, 0), data, lambda metrics, save: None), data, 64, split="test"
    )
    assert disturbed["image_text/top1"] > 0.6
    assert abs(disturbed["image_text/top1"] - undisturbed["image_text/top1"]) < 0.25  # 36 rows: one is 0.03

    # the same command again finds its work done; other settings under the same name are refused
    assert trainer.fit(settings, data, None, settings.folder) == bundle.folder
    system, path = storage.open_uri(f"{settings.folder}/bundle")
    system.delete_dir(path)
    changed = settings.model_copy(update={"train": settings.train.model_copy(update={"epochs": 3})})
    with pytest.raises(UserError, match="holds a training with other settings or data: choose another --name"):
        trainer.fit(changed, data, None, settings.folder)


def test_settings_that_cannot_be_trained_claim_nothing(ray_cluster: None, data: PreparedSet, tmp_path: Path) -> None:
    settings = experiment(tmp_path)
    wrong = apply(settings, {"model.visual.weights": "missing.pt"})
    with pytest.raises(UserError, match=r"no file at missing\.pt"):
        trainer.fit(wrong, data, None, settings.folder)
    assert not storage.exists(f"{settings.folder}/training.json")


def test_a_relative_path_means_to_a_worker_what_it_means_here(
    ray_cluster: None, data: PreparedSet, tmp_path: Path
) -> None:
    settings = experiment(tmp_path, epochs=1)
    torch.save(worker.build(settings, data).visual.trunk.state_dict(), tmp_path / "trunk.pt")
    settings = apply(settings, {"model.visual.weights": os.path.relpath(tmp_path / "trunk.pt")})
    assert Bundle.load(trainer.fit(settings, data, None, settings.folder)).info.training["epochs"] == 1


def test_more_workers_than_places_are_refused_at_once(ray_cluster: None, data: PreparedSet, tmp_path: Path) -> None:
    settings = experiment(tmp_path, workers=64)
    with pytest.raises(UserError, match="training with 64 workers needs 64 CPUs, the cluster has 6"):
        trainer.fit(settings, data, None, settings.folder)


@pytest.mark.parametrize("rows_to_ask_by", [True, False])
def test_many_classes_are_looked_up_in_an_index_chosen_by_validation(
    rows_to_ask_by: bool, data: PreparedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = experiment(tmp_path, epochs=1).model_copy(update={"index": Index(above=5)})
    reports: list[dict[str, Any]] = []

    def report(metrics: dict[str, Any], save: worker.Save) -> None:
        reports.append(metrics)
        save(tmp_path)

    worker.fit(settings, data, report)
    asked: list[int] = []
    build = index.build

    def noted(rows: index.Rows, x_ND: Tensor | None, *rest: Any) -> index.Index:
        asked.append(0 if x_ND is None else len(x_ND))
        return build(rows, x_ND, *rest)

    monkeypatch.setattr(index, "build", noted)
    if not rows_to_ask_by:
        monkeypatch.setattr(trainer, "ask", lambda *given: {})
    last = SimpleNamespace(checkpoint=Checkpoint(str(tmp_path)), metrics=reports[-1])
    made = Bundle.load(trainer._bundle(settings, data, last, f"{tmp_path}/bundle", "0" * 64, None))
    assert made.info.index is not None
    assert made.info.index["recall"] == 1
    worded = sum(any(row) for file in data.parquet("val") for row in file.read(["words"])["words"].to_pylist())
    assert asked == [24 + 2 * worded if rows_to_ask_by else 0]  # every way of asking


def test_the_comparison_pairs_seeds_and_keeps_what_is_done(
    ray_cluster: None, data: PreparedSet, tmp_path: Path
) -> None:
    settings, note = experiment(tmp_path, epochs=1), f"{tmp_path}/comparison.json"
    pairs = compare.further_seeds(settings, data, [1, 2], note)
    assert [pair["seed"] for pair in pairs] == [1, 2]
    assert "image_text/top1" in pairs[0]["sicot"]
    assert "image_text/top1" not in pairs[0]["visual"]
    begun = time.monotonic()
    assert compare.further_seeds(settings, data, [1, 2], note) == pairs
    assert time.monotonic() - begun < 0.5


def test_a_paired_difference_has_an_interval_only_over_several_seeds() -> None:
    several = compare.paired_difference([0.10, 0.12, 0.08])
    assert several["mean"] == pytest.approx(0.1)
    assert several["ci95"] == pytest.approx(4.303 * 0.02 / 3**0.5, rel=1e-3)
    assert compare.paired_difference([0.1]) == {"mean": pytest.approx(0.1), "ci95": None, "seeds": 1}
