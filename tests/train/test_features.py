"""Cached features: what the trunk says of each photo, computed once, whatever the words beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sicot import config
from sicot.errors import UserError
from sicot.model.visual import Visual
from sicot.prepare.prepared import PreparedSet
from sicot.train import features
from sicot.train.loader import Rows, decode
from tests.builders import prepared_set

TRUNK = config.Visual(trunk="squeezenet1_1", freeze=1)
CHANGES = config.Augment()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    return prepared_set(tmp_path_factory.mktemp("set"))


@pytest.fixture
def weights(tmp_path: Path) -> config.Visual:
    """A trunk whose weights are the same each time: those of a file."""
    torch.manual_seed(0)
    torch.save(Visual(TRUNK, 32, 2).trunk.state_dict(), tmp_path / "trunk.pt")
    return TRUNK.model_copy(update={"weights": str(tmp_path / "trunk.pt")})


def load(data: PreparedSet, trunk: config.Visual, folder: Path, views: int = 2) -> dict[str, features.Rows]:
    return features.load(data, trunk, CHANGES, views, str(folder), ("train", "val"))


def test_the_first_view_is_what_the_trunk_says_and_the_others_differ(
    data: PreparedSet, weights: config.Visual, tmp_path: Path
) -> None:
    rows = load(data, weights, tmp_path / "cache")["val"]
    visual = Visual(weights, 32, 2).eval()
    visual.trunk.load_state_dict(torch.load(str(weights.weights), weights_only=True))
    raw = Rows(data, "val")
    table = raw.read([(group, 0, int(size)) for group, size in enumerate(raw.sizes)])
    with torch.inference_mode():
        expected = visual.features(decode(table["image"]))
    torch.testing.assert_close(rows.features_NWF[:, 0].float(), expected, atol=0.05, rtol=0.05)  # bf16
    assert rows.labels_N.tolist() == table["label"].to_pylist()
    assert rows.features_NWF.shape[1] == 2
    assert not torch.equal(rows.features_NWF[:, 0], rows.features_NWF[:, 1])


def test_nothing_is_computed_twice_and_what_is_missing_is_computed_again(
    data: PreparedSet, weights: config.Visual, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "PART", 16)
    first = load(data, weights, tmp_path / "cache")
    files = sorted((tmp_path / "cache").rglob("*.safetensors"))
    assert len(files) > 2
    times = [path.stat().st_mtime_ns for path in files]
    files[1].unlink()
    again = load(data, weights, tmp_path / "cache")
    kept = [path.stat().st_mtime_ns for number, path in enumerate(files) if number != 1]
    assert kept == [time for number, time in enumerate(times) if number != 1]
    for split in first:
        assert torch.equal(first[split].features_NWF, again[split].features_NWF)  # the changed views too


def test_other_weights_or_views_are_never_mistaken_for_these(
    data: PreparedSet, weights: config.Visual, tmp_path: Path
) -> None:
    first = load(data, weights, tmp_path / "cache")["val"].features_NWF
    torch.manual_seed(1)
    torch.save(Visual(TRUNK, 32, 2).trunk.state_dict(), str(weights.weights))
    other = load(data, weights, tmp_path / "cache")["val"].features_NWF
    assert not torch.allclose(first, other)
    assert load(data, weights, tmp_path / "cache", views=3)["val"].features_NWF.shape[1] == 3


def test_weights_that_are_not_there_are_a_clear_error(data: PreparedSet, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.visual\.weights"):
        load(data, TRUNK.model_copy(update={"weights": str(tmp_path / "none.pt")}), tmp_path / "cache")
