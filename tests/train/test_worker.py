"""Training as a whole, in one process: it learns, it resumes exactly, it stops when it should."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sicot.errors import UserError
from sicot.prepare.prepared import PreparedSet
from sicot.train import weights, worker
from tests.builders import experiment, prepared_set


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    return prepared_set(tmp_path_factory.mktemp("set"))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_training_learns_photos_and_words_help(data: PreparedSet, tmp_path: Path) -> None:
    reports: list[dict[str, Any]] = []
    settings = experiment(tmp_path, epochs=16)
    model = worker.fit(settings, data, lambda metrics, save: reports.append(metrics))
    scores = worker.validate(model, data, 64, split="test")
    assert scores["image/top1"] > 0.5  # chance is 1/6
    assert scores["image_text/top1"] > scores["image/top1"]
    assert reports[-2]["loss/loss"] < reports[0]["loss/loss"] / 2
    assert reports[-1]["final"]
    calibration = reports[-1]["calibration"]
    assert all(0.1 <= calibration["temperature"][regime] <= 10 for regime in ("image", "image_text", "text"))
    assert all(0 < calibration["threshold"][regime] <= 1 for regime in ("image", "image_text", "text"))
    assert {regime: len(scores["shares"]) > 1 for regime, scores in calibration["scores"].items()} == dict.fromkeys(
        ("image", "image_text", "text"), True
    )
    assert calibration["scores"]["image"]["rows"] == data.manifest.rows["val"]
    assert {"images_per_s", "data_wait", "learning_rate", "val/macro"} <= set(reports[0])


@pytest.mark.parametrize(("stop_at", "accumulate"), [(1, 1), (2, 1), (5, 1), (1, 2), (3, 2)])
def test_a_killed_training_resumes_to_the_very_same_weights(
    data: PreparedSet, tmp_path: Path, stop_at: int, accumulate: int
) -> None:
    settings = experiment(tmp_path, epochs=2, checkpoint_steps=3, accumulate=accumulate)

    class Killed(Exception):
        pass

    count = 0

    def report(metrics: dict[str, Any], save: worker.Save) -> None:
        nonlocal count
        count += 1
        if count == stop_at:
            save(tmp_path)
            raise Killed

    whole = worker.fit(settings, data, lambda metrics, save: None)
    with pytest.raises(Killed):
        worker.fit(settings, data, report)
    resumed = worker.fit(settings, data, lambda metrics, save: None, checkpoint=tmp_path)
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, msg=name, rtol=1e-4, atol=1e-5)


def test_early_stopping_keeps_the_best_epoch(
    data: PreparedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    macro = iter([0.2, 0.6, 0.5, 0.4, 0.9])
    kept: list[torch.Tensor] = []

    def scripted(model: Any, *_: Any, **__: Any) -> dict[str, float]:
        kept.append(model.classifier.weight.detach().clone())
        return {"macro": next(macro), "image/top1": 0.0}

    monkeypatch.setattr(worker, "validate", scripted)
    reports: list[dict[str, Any]] = []
    model = worker.fit(experiment(tmp_path, epochs=5, patience=2), data, lambda metrics, save: reports.append(metrics))
    assert [report["epoch"] for report in reports if "val/macro" in report] == [1, 2, 3, 4]
    assert torch.equal(model.classifier.weight, kept[1])


def test_the_last_report_carries_the_weights_to_keep(data: PreparedSet, tmp_path: Path) -> None:
    def report(metrics: dict[str, Any], save: worker.Save) -> None:
        if metrics.get("final"):
            save(tmp_path)

    model = worker.fit(experiment(tmp_path, epochs=1), data, report)
    state = load_file(tmp_path / "weights.safetensors")
    means_2CD = state.pop("means_2CD")
    assert all(torch.equal(state[name], model.state_dict()[name]) for name in state)
    assert means_2CD.shape == (2, 6, 16)
    torch.testing.assert_close(means_2CD.norm(dim=2), torch.ones(2, 6))


def test_trunk_weights_come_from_a_file_and_a_wrong_one_is_named(data: PreparedSet, tmp_path: Path) -> None:
    settings = experiment(tmp_path)
    trunk = worker.build(settings, data).visual.trunk.state_dict()
    halves = {name: torch.full_like(value, 0.5).half() for name, value in trunk.items()}
    torch.save(halves, tmp_path / "trunk.pt")
    save_file(halves, tmp_path / "trunk.safetensors")
    visual = settings.model.visual

    def build(weights_file: str) -> worker.SICoT:
        changed = settings.model.model_copy(update={"visual": visual.model_copy(update={"weights": weights_file})})
        return worker.build(settings.model_copy(update={"model": changed}), data)

    for name in ("trunk.pt", "trunk.safetensors"):
        assert all((p == 0.5).all() for p in build(str(tmp_path / name)).visual.trunk.parameters())
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "other.pt")
    (tmp_path / "broken.pt").write_bytes(b"not a state dict")
    for given, message in {
        "other.pt": "not squeezenet1_1's",
        "broken.pt": "not a state dict",
        "missing.pt": "no file at",
    }.items():
        with pytest.raises(UserError, match=message):
            build(str(tmp_path / given))
    with pytest.raises(UserError, match="no weights 'BEST' in torchvision; it has IMAGENET1K_V1"):
        build("BEST")


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, data: PreparedSet) -> None:
    import pickle

    class Harm:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "harm",))

    (tmp_path / "harm.pt").write_bytes(pickle.dumps(Harm()))
    with pytest.raises(UserError, match="not a state dict"):
        weights._read("resnet18", str(tmp_path / "harm.pt"))
    assert not (tmp_path / "harm").exists()


def test_without_validation_rows_patience_is_ignored_and_training_goes_to_the_end(tmp_path: Path) -> None:
    whole = prepared_set(tmp_path / "set")
    manifest = whole.manifest.model_copy(
        update={"rows": {**whole.manifest.rows, "val": 0}, "files": {**whole.manifest.files, "val": []}}
    )
    reports: list[dict[str, Any]] = []
    settings = experiment(tmp_path, epochs=4, patience=1)
    model = worker.fit(settings, PreparedSet(whole.root, manifest), lambda metrics, save: reports.append(metrics))
    plain = worker.fit(experiment(tmp_path, epochs=4), PreparedSet(whole.root, manifest), lambda metrics, save: None)
    assert reports[-1]["epoch"] == 4
    assert reports[-1]["calibration"]["temperature"] == {"image": 1.0, "image_text": 1.0, "text": 1.0}
    assert reports[-1]["calibration"]["threshold"] == {"image": 0.0, "image_text": 0.0, "text": 0.0}
    assert reports[-1]["calibration"]["scores"] == {}
    torch.testing.assert_close(model.classifier.weight, plain.classifier.weight)


def test_averaged_weights_of_a_short_training_are_trained_ones(data: PreparedSet, tmp_path: Path) -> None:
    settings = experiment(tmp_path, epochs=12, ema=0.999)
    averaged = worker.fit(settings, data, lambda metrics, save: None)
    assert worker.validate(averaged, data, 64, split="test")["image_text/top1"] > 0.6


def test_a_full_disk_is_named_when_a_checkpoint_does_not_fit(data: PreparedSet, tmp_path: Path) -> None:
    (tmp_path / "state.pt").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device"):
        worker.fit(experiment(tmp_path, epochs=1), data, lambda metrics, save: save(tmp_path))
