"""Training with the classifier dealt to the workers: it learns, resumes on any number of them, and answers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from sicot.config import Evaluate, Experiment
from sicot.errors import UserError
from sicot.model.sharded import ShardedClassifier, bounds, initial_rows
from sicot.prepare.prepared import PreparedSet
from sicot.train import shards, worker
from tests.builders import experiment, prepared_set
from tests.model.ranks import Ranks


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    return prepared_set(tmp_path_factory.mktemp("set"))


@pytest.fixture(scope="module")
def ranks() -> Iterator[Ranks]:
    pool = Ranks(3)
    yield pool
    pool.stop()


def settings(folder: Path, sampled: int = 0, **train: Any) -> Experiment:
    made = experiment(folder, **train)
    made.train.sharding.above, made.train.sharding.sampled = 1, sampled
    return made


class Stopped(Exception):
    """Raised where a training is cut off."""


def train(rank: int, world: int, config: Experiment, root: str, out: str, stop: int, start: str | None) -> Any:
    """Train on one rank; the checkpoint of report number ``stop`` (0: the last) goes to ``out``."""
    torch.set_num_threads(1)
    reports: list[dict[str, Any]] = []

    def report(metrics: dict[str, Any], save: worker.Save) -> None:
        reports.append(metrics)
        if len(reports) == stop or (not stop and "final" in metrics):
            Path(out).mkdir(exist_ok=True)
            save(Path(out))
        if len(reports) == stop:
            raise Stopped

    checkpoint = Path(start) if start else None
    with contextlib.suppress(Stopped):
        worker.fit(config, PreparedSet.open(root), report, rank=rank, world=world, checkpoint=checkpoint)
    return reports


def test_it_learns_and_its_files_hold_every_row_once(data: PreparedSet, tmp_path: Path) -> None:
    reports = train(0, 1, settings(tmp_path, sampled=4, epochs=16), data.root, str(tmp_path / "end"), 0, None)
    assert reports[-2]["val/image/top1"] > 0.5  # chance is 1/6
    assert reports[-2]["val/image_text/top1"] >= reports[-2]["val/image/top1"]
    assert reports[-2]["loss/loss"] < reports[0]["loss/loss"]
    assert {"visual", "mixed", "text"} <= {name.removeprefix("loss/") for name in reports[0]}
    assert all(0.1 <= value <= 10 for value in reports[-1]["calibration"]["temperature"].values())
    assert shards.all_rows(tmp_path / "end", 6, 16).isfinite().all()


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_the_rows_rate_follows_its_schedule(
    data: PreparedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, schedule: str
) -> None:
    rates, step = [], ShardedClassifier.step

    def noted(head: ShardedClassifier, learning_rate: float, batches: int = 1) -> None:
        rates.append(learning_rate)
        step(head, learning_rate, batches)

    monkeypatch.setattr(ShardedClassifier, "step", noted)
    config = settings(tmp_path, epochs=20, warmup=0.2)
    config.train.sharding.schedule = schedule
    train(0, 1, config, data.root, str(tmp_path / "end"), 0, None)
    peak = config.train.sharding.learning_rate
    if schedule == "constant":
        assert set(rates) == {peak}
        return
    top = rates.index(max(rates))
    assert rates[top] == pytest.approx(peak)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[0] < 0.3 * peak
    assert rates[-1] < 0.1 * peak


def test_two_workers_learn_what_one_does(data: PreparedSet, ranks: Ranks, tmp_path: Path) -> None:
    reports = ranks.run(2, train, settings(tmp_path, epochs=10), data.root, str(tmp_path / "end"), 0, None)
    assert reports[0][-2]["val/image_text/top1"] > 0.5
    assert reports[0][-2]["val/image/top1"] == reports[1][-2]["val/image/top1"]
    assert sorted(path.name for path in (tmp_path / "end").glob("rows-*")) == [
        "rows-0000000000-0000000003.safetensors",
        "rows-0000000003-0000000006.safetensors",
    ]


@pytest.mark.parametrize("world", [1, 2])
def test_a_training_of_three_workers_goes_on_with_fewer(
    data: PreparedSet, ranks: Ranks, tmp_path: Path, world: int
) -> None:
    config, half, end = settings(tmp_path, epochs=4, checkpoint_steps=2), tmp_path / "half", tmp_path / "end"
    ranks.run(3, train, config, data.root, str(half), 3, None)
    assert len(list(half.glob("rows-*"))) == 3
    reports = ranks.run(world, train, config, data.root, str(end), 0, str(half))
    assert reports[0][-1]["final"]
    assert reports[0][-1]["epoch"] == 4
    assert len(list(end.glob("rows-*"))) == world
    assert shards.all_rows(end, 6, 16).isfinite().all()


def test_a_checkpoint_read_by_others_holds_the_same_rows(tmp_path: Path) -> None:
    rows_CD, squares_C = torch.randn(11, 3), torch.rand(11)
    for rank in range(4):
        first, end = bounds(11, rank, 4)
        shards.write(tmp_path, first, {"rows": rows_CD[first:end], "squares": squares_C[first:end]})
    for world in (1, 2, 3, 4, 12):
        for rank in range(world):
            first, end = bounds(11, rank, world)
            rows_RD, squares_R = torch.empty(end - first, 3), torch.empty(end - first)
            shards.read(tmp_path, "rows", first, end, rows_RD)
            shards.read(tmp_path, "squares", first, end, squares_R)
            assert torch.equal(rows_RD, rows_CD[first:end])
            assert torch.equal(squares_R, squares_C[first:end])


def test_a_checkpoint_that_lacks_classes_says_so(tmp_path: Path) -> None:
    shards.write(tmp_path, 0, {"rows": torch.zeros(5, 2)})
    with pytest.raises(UserError, match="5 of classes 0 to 8: files of the checkpoint are missing"):
        shards.read(tmp_path, "rows", 0, 8, torch.empty(8, 2))


@pytest.mark.parametrize("copy", [{"ema": 0.9}, {"patience": 2}])
def test_settings_that_copy_the_classifier_are_refused(data: PreparedSet, tmp_path: Path, copy: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=rf"train.{next(iter(copy))} keeps a second copy"):
        worker.fit(settings(tmp_path, **copy), data, lambda metrics, save: None)


def test_a_comparison_that_could_not_be_made_is_refused_before_training(data: PreparedSet, tmp_path: Path) -> None:
    compared = settings(tmp_path).model_copy(update={"evaluate": Evaluate(seeds=2)})
    with pytest.raises(UserError, match=r"evaluate.seeds trains in one process"):
        worker.fit(compared, data, lambda metrics, save: None)


def test_rows_begin_at_the_words_of_their_class(data: PreparedSet, tmp_path: Path) -> None:
    config = settings(tmp_path)
    head = shards.head_of(config, worker.build(config, data), data, 0, 1, torch.device("cpu"), None)
    assert head is not None
    moved_RD = head.rows_RD - initial_rows(len(data.classes), config.model.dimension, 0, 1, config.train.seed)
    assert moved_RD.norm(dim=1)[5] > moved_RD.norm(dim=1)[:5].max()  # the rare class most
    blue_mug, green_bag, _, red_bag, white_mug, _ = functional.normalize(moved_RD, dim=1)
    assert green_bag @ red_bag > green_bag @ blue_mug
    assert blue_mug @ white_mug > blue_mug @ green_bag


def test_training_does_not_go_on_from_half_a_checkpoint(data: PreparedSet, tmp_path: Path) -> None:
    train(0, 1, settings(tmp_path, epochs=1), data.root, str(tmp_path / "end"), 1, None)
    for path in (tmp_path / "end").glob("rows-*"):
        path.unlink()
    with pytest.raises(UserError, match="files of the checkpoint are missing"):
        train(0, 1, settings(tmp_path, epochs=1), data.root, str(tmp_path / "gone"), 0, str(tmp_path / "end"))
