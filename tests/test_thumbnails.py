"""Thumbnails: every trained class has one, small and typical, and a bundle without them is as good."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from sicot import config, enrol, storage, thumbnails
from sicot.bundle import Bundle, Query
from sicot.errors import UserError
from sicot.prepare import images, prepared
from sicot.prepare.prepared import PreparedSet
from tests.builders import COLOURS, LABELS, bundle_folder, photo, prepared_set


def colour(jpeg: bytes) -> np.ndarray:
    """Of the middle, [3]."""
    return np.asarray(Image.open(io.BytesIO(jpeg)))[45:51, 45:51].mean(axis=(0, 1))


def given_photos(root: Path, photos: list[bytes]) -> PreparedSet:
    """A prepared set whose first class has these training photos."""
    made = prepared_set(root)
    rows = [{"id": str(n), "image": each, "label": 0, "tokens": [], "words": []} for n, each in enumerate(photos)]
    storage.write_table(f"{root}/train/00000.parquet", pa.Table.from_pylist(rows, prepared.ROW))
    return made


def test_a_bundle_shows_each_class_it_was_trained_on(tiny_bundle: str) -> None:
    loaded = Bundle.load(tiny_bundle)
    for label in LABELS:
        shown = loaded.thumbnail(label)
        assert shown is not None
        assert Image.open(io.BytesIO(shown)).size == (thumbnails.SIDE, thumbnails.SIDE)
        assert np.abs(colour(shown) - COLOURS[label.partition("-")[0]]).max() < 45
    assert loaded.thumbnail("teapot") is None


def test_of_three_photos_the_odd_one_is_not_chosen(tmp_path: Path) -> None:
    odd, like, alike = photo("blue-mug", 1), photo("red-bag", 2), photo("red-bag", 3)
    (row,) = thumbnails.make(given_photos(tmp_path, [odd, like, alike])).to_pylist()
    assert row["label"] == 0
    assert colour(row["image"])[0] > 150  # red


def test_the_only_photo_of_a_class_is_its_thumbnail(tmp_path: Path) -> None:
    (row,) = thumbnails.make(given_photos(tmp_path, [photo("red-bag", 2)])).to_pylist()
    assert colour(row["image"])[0] > 150


def test_a_thumbnail_is_small_whatever_the_photo(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 500, 3)).astype(np.uint8)
    assert len(thumbnails.small(images.encode(noise, 95), config.Images())) <= thumbnails.MOST_BYTES


def test_all_of_a_photo_is_in_its_thumbnail_undistorted() -> None:
    wide = np.zeros((100, 300, 3), np.uint8)
    shown = np.asarray(Image.open(io.BytesIO(thumbnails.small(images.encode(wide, 95), config.Images()))))
    assert shown[10].min() > 240  # white above
    assert shown[48].max() < 15


def test_an_enrolled_product_is_shown_by_the_photo_that_was_given(tiny_bundle: str, tmp_path: Path) -> None:
    products = {"green-mug": [Query(title="green mug"), Query(photo("green-mug", 1))], "told": [Query(title="red bag")]}
    enrol.save(enrol.enrol(Bundle.load(tiny_bundle), products), str(tmp_path / "new"))
    knowing = Bundle.load(tmp_path / "new")
    assert knowing.thumbnail("green-mug") == thumbnails.small(photo("green-mug", 1), knowing.info.images)
    assert knowing.thumbnail("told") is None
    assert knowing.thumbnail("red-bag") == Bundle.load(tiny_bundle).thumbnail("red-bag")


def test_a_bundle_of_before_has_no_thumbnails_and_loads(tiny_bundle: str, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, folder)
    (folder / thumbnails.FILE).unlink()
    with pytest.raises(UserError, match=f"{thumbnails.FILE} is missing"):  # it is pinned while bundle.json names it
        Bundle.load(folder)
    note = json.loads((folder / "bundle.json").read_text())
    del note["files"][thumbnails.FILE]
    (folder / "bundle.json").write_text(json.dumps(note))
    assert Bundle.load(folder).thumbnail("red-bag") is None
    enrol.save(enrol.enrol(Bundle.load(folder), {"new": [Query(photo("green-mug", 1))]}), str(tmp_path / "new"))
    assert Bundle.load(tmp_path / "new").thumbnail("new")


def test_a_file_that_holds_something_else_is_told(tmp_path: Path) -> None:
    storage.write_table(str(tmp_path / thumbnails.FILE), pa.table({"label": ["x"]}))
    with pytest.raises(UserError, match="holds no thumbnails"):
        thumbnails.Thumbnails.read(tmp_path)


def test_very_many_classes_are_bundled_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thumbnails, "MOST", len(LABELS) - 1)
    folder = bundle_folder(tmp_path)
    assert not Path(folder, thumbnails.FILE).exists()
    assert Bundle.load(folder).thumbnail("red-bag") is None
