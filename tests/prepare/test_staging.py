"""The pass over the photos: what is wrong with a row, its key, and what a second pass leaves alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sicot.catalogue import schema
from sicot.config import Images, Prepare
from sicot.prepare import staging
from sicot.prepare.images import encode

CONFIG = Prepare(images=Images(size=16), rows_per_block=4)
PHOTO = encode(np.full((20, 20, 3), 120, np.uint8), 90)
NOTHING = np.zeros(0, np.int64)


def product(**changes: Any) -> dict[str, Any]:
    row = {"id": "1", "image": PHOTO, "image_uri": None, "image_name": None, "title": "Red bag", "tags": ["sale"]}
    return {**row, "label": "bag", "split": None, **changes}


def staged(
    folder: Path, rows: list[dict[str, Any]], config: Prepare = CONFIG, done: np.ndarray = NOTHING
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], np.ndarray]:
    """Good rows, bad rows and the keys of all, after staging."""
    table = pa.Table.from_pylist(rows, schema.ROW)
    keys = [key for part in staging.stage(table, str(folder), config, done) for key in part["key"].to_pylist()]
    good = staging.load(staging.files(f"{folder}/rows"), staging.ROW)
    bad = staging.load(staging.files(f"{folder}/bad"), staging.BAD)
    return good.to_pylist(), bad.to_pylist(), np.sort(keys)


def test_a_good_row(tmp_path: Path) -> None:
    good, bad, keys = staged(tmp_path, [product(label=" bag ", split="val")])
    assert not bad
    assert keys.tolist() == [good[0]["key"]]
    assert (good[0]["id"], good[0]["label"], good[0]["split"]) == ("1", "bag", "val")
    assert good[0]["tokens"] == ["red", "bag", "sale"]
    assert good[0]["image"].startswith(b"\xff\xd8")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"image": None}, "no_image"),
        ({"image": b""}, "no_image"),
        ({"image": None, "image_uri": "{folder}/missing.jpg"}, "no_image"),
        ({"image": None, "image_uri": "{folder}"}, "no_image"),
        ({"image": None, "image_uri": "gopher://nowhere/x.jpg"}, "no_image"),
        ({"image": None, "image_uri": "http://[bad/a.jpg"}, "no_image"),
        ({"image": None, "image_uri": "s3://[bad/a.jpg"}, "no_image"),
        ({"image": None, "image_uri": "/shop/a\0b.jpg"}, "no_image"),
        ({"image": None, "image_uri": "data:image/png;base64,/9j://" + "x" * 9999}, "no_image"),
        ({"image": None, "image_uri": "reference::file:///x.json/a"}, "no_image"),
        ({"image": None, "image_name": "/etc/passwd"}, "image_place"),
        ({"image": PHOTO[:200]}, "image_unreadable"),
        ({"image": b"<svg/>"}, "image_type"),
        ({"image": PHOTO + b"\0" * 3000}, "image_too_large"),
        ({"id": None}, "id_missing"),
        ({"id": ""}, "id_missing"),
        ({"label": None}, "label_missing"),
        ({"label": " "}, "label_missing"),
        ({"split": "holdout"}, "split_unknown"),
    ],
)
def test_why_a_row_is_bad(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    if changes.get("image_uri"):
        changes = {**changes, "image_uri": changes["image_uri"].format(folder=tmp_path)}
    config = CONFIG.model_copy(update={"images": Images(size=16, max_bytes=3000)})
    good, bad, keys = staged(tmp_path / "out", [product(**changes), product(id="2")], config)
    assert [row["id"] for row in good] == ["2"]
    assert [row["reason"] for row in bad] == [reason]
    assert 0 < len(bad[0]["detail"]) < 300
    assert len(keys) == 2


@pytest.mark.parametrize("field", ["id", "title", "label", "split"])
def test_text_that_is_no_text(tmp_path: Path, field: str) -> None:
    table = pa.Table.from_pylist([product(split="train")], schema.ROW)
    wrong = pa.array([b"\xff\xfe\x80"]).view(pa.string())
    table = table.set_column(schema.ROW.get_field_index(field), field, wrong)
    list(staging.stage(table, str(tmp_path), CONFIG, NOTHING))
    [row] = staging.load(staging.files(f"{tmp_path}/bad"), staging.BAD).to_pylist()
    assert (row["reason"], row["detail"]) == ("type_wrong", f"{field} is not UTF-8 text")


def test_a_title_without_a_word_is_no_reason_to_drop_a_row(tmp_path: Path) -> None:
    good, bad, _ = staged(tmp_path, [product(title=None, tags=None), product(id="2", title="<b></b>", tags=[None])])
    assert not bad
    assert [row["tokens"] for row in good] == [[], []]
    assert [row["text"] for row in good] == [None, None]


def test_photos_are_opened_where_there_are_no_bytes(tmp_path: Path) -> None:
    (tmp_path / "a b.jpg").write_bytes(PHOTO)
    by_path, by_uri, inline = (
        staged(tmp_path / str(n), [product(**where)])[0][0]["image"]
        for n, where in enumerate(
            [
                {"image": None, "image_uri": f"{tmp_path}/a b.jpg"},
                {"image": None, "image_uri": f"{tmp_path.as_uri()}/a b.jpg"},
                {},
            ]
        )
    )
    assert by_path == by_uri == inline


def test_equal_photos_and_titles_have_equal_hashes(tmp_path: Path) -> None:
    other = encode(np.full((20, 20, 3), 20, np.uint8), 90)
    rows = [product(), product(id="2", title="<i>RED</i>  bag"), product(id="3", image=other, title="blue bag")]
    first, second, third = sorted(staged(tmp_path, rows)[0], key=lambda row: row["id"])
    assert first["photo"] == second["photo"] != third["photo"]
    assert first["text"] == second["text"] != third["text"]


def test_a_key_hangs_on_all_that_is_said_and_on_the_seed(tmp_path: Path) -> None:
    changes = [
        {},
        {"id": "2"},
        {"title": "x"},
        {"tags": ["sal", "e"]},
        {"tags": None},
        {"label": "x"},
        {"split": "val"},
        {"image": None, "image_name": "1.jpg"},
    ]
    _, _, keys = staged(tmp_path / "a", [product(**change) for change in changes])
    assert len(set(keys)) == len(changes)
    _, _, reseeded = staged(tmp_path / "b", [product()], CONFIG.model_copy(update={"seed": 1}))
    assert reseeded[0] not in keys


def test_a_key_does_not_hang_on_the_folder_of_the_photos(tmp_path: Path) -> None:
    keys = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        (folder / "1.jpg").write_bytes(PHOTO)
        row = product(image=None, image_uri=f"{folder}/1.jpg", image_name="1.jpg")
        keys += [row["key"] for row in staged(folder / "out", [row])[0]]
    assert keys[0] == keys[1]


def test_blocks_are_of_no_effect(tmp_path: Path) -> None:
    rows = [product(id=str(n), image=PHOTO if n % 3 else None) for n in range(11)]
    whole = staged(tmp_path / "whole", rows)
    staged(tmp_path / "parts", rows[7:], CONFIG.model_copy(update={"rows_per_block": 2}))
    parts = staged(tmp_path / "parts", rows[:7])
    assert whole[:2] == parts[:2]
    assert (whole[2][:, None] == parts[2]).any(axis=0).all()


def test_what_is_staged_is_not_worked_on_again(tmp_path: Path) -> None:
    rows = [product(id=str(n)) for n in range(6)]
    _, _, keys = staged(tmp_path, rows[:4])
    before = staging.files(f"{tmp_path}/rows")
    good, _, seen = staged(tmp_path, rows, done=keys)
    assert len(good) == len(seen) == 6
    new = set(staging.files(f"{tmp_path}/rows")) - set(before)
    assert sum(staging.load([name], staging.ROW).num_rows for name in new) == 2


def test_a_task_that_runs_twice_leaves_no_row_twice(tmp_path: Path) -> None:
    rows = [product(id=str(n), image=PHOTO if n % 2 else b"") for n in range(4)]
    first = staged(tmp_path, rows)[:2]
    assert staged(tmp_path, rows)[:2] == first
    assert [len(part) for part in first] == [2, 2]
    assert len(staging.files(f"{tmp_path}/rows")) == len(staging.files(f"{tmp_path}/bad")) == 1


def test_a_row_that_is_staged_twice_is_taken_once(tmp_path: Path) -> None:
    staged(tmp_path, [product(id=str(n)) for n in range(4)])
    good, _, _ = staged(tmp_path, [product(id=str(n)) for n in range(2, 6)])
    files, keys = staging.files(f"{tmp_path}/rows"), pa.chunked_array([[row["key"] for row in good]])
    assert len(files) == 2
    assert staging.take(files, keys, ["id"])["id"].to_pylist() == [row["id"] for row in good]
    assert staging.take(files, keys[2:4], ["id"])["id"].to_pylist() == [row["id"] for row in good[2:4]]


@pytest.mark.parametrize(("rows", "groups"), [(1, 1), (33, 2), (2500, 64)])
def test_a_file_is_read_in_pieces_however_large_it_is(tmp_path: Path, rows: int, groups: int) -> None:
    row = {"id": "1", "split": None, "label": "bag", "text": None, "image": PHOTO, "tokens": ["bag"]}
    staging._write(str(tmp_path), [{"key": n, "photo": n, **row} for n in range(rows)], staging.ROW)
    [name] = staging.files(str(tmp_path))
    assert abs(pq.ParquetFile(name).metadata.num_row_groups - groups) <= 2
    keys = pa.chunked_array([pa.array(range(rows // 2, rows), pa.int64())])
    assert staging.take([name], keys, ["photo"])["photo"].to_pylist() == list(range(rows // 2, rows))


def test_half_written_files_are_not_read(tmp_path: Path) -> None:
    staged(tmp_path, [product()])
    (tmp_path / "rows" / "x.parquet.0123abcd.part").write_bytes(b"half")
    assert len(staging.files(f"{tmp_path}/rows")) == 1
    assert staging.files(f"{tmp_path}/nothing") == []
