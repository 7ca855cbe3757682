"""Questions by the batch: the same answers as one at a time, and no row lost."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray.data
import torch
from PIL import Image

from sicot.bundle import Bundle, Item, Query
from sicot.catalogue.schema import ROW
from sicot.errors import UserError
from sicot.evaluate.ask import Question, Unanswerable, ask, read, tops
from sicot.evaluate.predict import PREDICTION, predict
from tests import builders

ALL = ["image", "image_text", "text"]


def row(key: str, **of: Any) -> dict[str, Any]:
    return {"id": key, "label": "red-bag", "tags": [], **of}


def catalogue(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), ROW)


@pytest.fixture(scope="module")
def bundle(tiny_bundle: str) -> Bundle:
    return Bundle.load(tiny_bundle)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """Good rows and every kind of bad ones."""
    place = tmp_path_factory.mktemp("photos") / "a.jpg"
    place.write_bytes(builders.photo("blue-mug", 2))
    return catalogue(
        row("both", image=builders.photo("red-bag", 1), title="red bag", tags=["new", "红色"]),
        row("photo", image=builders.photo("red-bag", 1)),
        row("unknown words", image=builders.photo("red-bag", 1), title="zzz qqq"),
        row("by path", image_uri=str(place), title="blue mug"),
        row("words", title="red bag"),
        row("broken", image=builders.photo("red-bag", 1)[:200], title="red bag"),
        row("no photo file", image_uri=str(place) + "x", title="red bag"),
        row("no picture", image=b"<html>", title="red bag"),
        row("odd cell", image_uri="http://[bad/a.jpg", title="red bag"),
        row("forbidden place", image_name="/etc/passwd", title="red bag"),
        row("nothing"),
        row("empty photo", image=b""),
    )


REASONS = {
    "words": "no_image",
    "broken": "image_unreadable",
    "no photo file": "no_image",
    "no picture": "image_type",
    "odd cell": "no_image",
    "forbidden place": "image_place",
    "nothing": "no_image",
    "empty photo": "no_image",
}


class TestABatch:
    def test_says_what_the_bundle_says_one_at_a_time(self, bundle: Bundle, rows: pa.Table) -> None:
        told = {r["id"]: r for r in Question(ALL, 3)(bundle, rows).to_pylist()}
        photo = builders.photo("red-bag", 1)
        words: dict[str, Any] = {"title": "red bag", "tags": ("new", "红色")}
        for regime, query in (
            ("image", Query(image=photo)),
            ("image_text", Query(image=photo, **words)),
            ("text", Query(**words)),
        ):
            alone = bundle.predict([query], 3)[0].ranked
            assert [bundle.classes.labels[c] for c in told["both"][regime]] == [ranked.label for ranked in alone]
            assert told["both"][f"{regime}_refused"] == bundle.predict([query], 3)[0].unknown
            assert told["both"][f"{regime}_probability"] == pytest.approx([r.probability for r in alone], abs=1e-5)

    def test_the_best_classes_are_the_bundles_own(self, bundle: Bundle, rows: pa.Table) -> None:
        items = [item for item in read(bundle, rows.slice(0, 4)) if isinstance(item, Item)]
        images = torch.from_numpy(np.stack([item.image_HW3 for item in items if item.image_HW3 is not None]))
        words = bundle.pad([item.words for item in items])
        own = {"image": bundle.logits(images, None)[0], "image_text": bundle.logits(images, words)[0]}
        for regime, places, top in tops(bundle, items, ["image", "image_text"], 3):
            assert places == [0, 1, 2, 3]
            best = own[regime].softmax(1).topk(3)
            torch.testing.assert_close((top.p_BK, top.classes_BK), tuple(best))

    def test_without_known_words_the_answer_is_exactly_the_photos(self, bundle: Bundle, rows: pa.Table) -> None:
        told = {r["id"]: r for r in Question(ALL, 3)(bundle, rows).to_pylist()}
        for key in ("photo", "unknown words"):
            assert told[key]["image_text"] == told[key]["image"]
            assert told[key]["image_text_probability"] == told[key]["image_probability"]
            assert told[key]["image_text_refused"] == told[key]["image_refused"]
            assert told[key]["text"] is None

    def test_bad_rows_keep_their_place_and_say_why(self, bundle: Bundle, rows: pa.Table) -> None:
        told = Question(ALL, 3)(bundle, rows).to_pylist()
        assert [r["id"] for r in told] == rows["id"].to_pylist()
        assert {r["id"]: r["reason"] for r in told if r["reason"]} == REASONS
        assert all(r["image"] is None and r["image_text"] is None for r in told if r["reason"])
        assert {r["id"] for r in told if r["text"]} == {"both", "by path", "words"}

    def test_text_that_is_no_utf_8_is_no_reason_to_stop(self, bundle: Bundle) -> None:
        broken = pa.array([b"\xff\xfe red bag"], pa.binary()).view(pa.string())
        table = catalogue(row("a", image=builders.photo("red-bag", 1)))
        table = table.set_column(table.schema.get_field_index("title"), "title", broken)
        (item,) = read(bundle, table)
        assert not isinstance(item, Unanswerable)
        assert [token for token, known in zip(item.tokens, item.words, strict=True) if known] == ["red", "bag"]

    def test_prepared_rows_are_read_through_the_bundles_own_vocabulary(self, bundle: Bundle) -> None:
        table = pa.table({"id": ["a"], "image": [builders.photo("red-bag", 1)], "tokens": [["bag", "zzz", "红色"] * 9]})
        (item,) = read(bundle, table)
        assert not isinstance(item, Unanswerable)
        assert item.tokens == ["bag", "zzz", "红色"] * 2 + ["bag", "zzz"]  # its own length, too
        assert item.words == bundle.vocabulary.ids(item.tokens)

    def test_a_photo_of_another_size_and_format_is_welcome(self, bundle: Bundle) -> None:
        file = io.BytesIO()
        Image.new("RGBA", (77, 200), (200, 30, 30, 128)).save(file, "PNG")
        (item,) = read(bundle, catalogue(row("a", image=file.getvalue())))
        assert not isinstance(item, Unanswerable)
        assert item.image_HW3 is not None
        assert item.image_HW3.shape == (32, 32, 3)


@pytest.mark.usefixtures("ray_cluster")
class TestManyBatches:
    def test_every_row_is_answered_once_whatever_the_blocks(self, tiny_bundle: str, rows: pa.Table) -> None:
        whole = Question(ALL, 3)(Bundle.load(tiny_bundle), rows).sort_by("id").to_pylist()
        blocks = [rows.slice(0, 1), rows.slice(1, 6), rows.slice(7)]
        told = ask(tiny_bundle, ray.data.from_arrow(blocks), k=3, batch_size=4)
        for mine, theirs in zip(told.to_pylist(), whole, strict=True):
            assert (mine["id"], mine["reason"], mine["text"]) == (theirs["id"], theirs["reason"], theirs["text"])
            assert mine["image_probability"] == pytest.approx(theirs["image_probability"], abs=1e-5)

    def test_labelling_writes_answers_apart_from_bad_rows(
        self, tiny_bundle: str, rows: pa.Table, tmp_path: Path
    ) -> None:
        out = tmp_path / "labels"
        summary = predict(tiny_bundle, ray.data.from_arrow([rows]), str(out), k=2, batch_size=3)
        assert summary["rows"] == 12
        assert summary["answered"] == 5
        assert summary["unknown"] == 2  # photos alone are below the tiny bundle's threshold
        assert summary["quarantined"] == {"image_place": 1, "image_type": 1, "image_unreadable": 1, "no_image": 4}
        assert json.loads((out / "summary.json").read_text()) == summary
        answered = pq.read_table(out / "predictions")
        assert answered.schema.equals(PREDICTION)
        told = {r["id"]: r for r in answered.to_pylist()}
        bad = {r["id"]: r for r in pq.read_table(out / "quarantine").to_pylist()}
        assert told.keys() | bad.keys() == set(rows["id"].to_pylist())
        assert not told.keys() & bad.keys()
        query = Query(image=builders.photo("red-bag", 1), title="red bag", tags=("new", "红色"))
        expected = Bundle.load(tiny_bundle).predict([query], 2)[0]
        assert [r["label"] for r in told["both"]["ranked"]] == [r.label for r in expected.ranked]
        assert [w["token"] for w in told["both"]["words"]] == ["red", "bag", "new", "红色"]
        assert sum(w["weight"] for w in told["both"]["words"]) + told["both"]["no_word"] == pytest.approx(1, abs=1e-4)
        assert (told["both"]["score"], told["both"]["unknown"]) == (pytest.approx(expected.score), expected.unknown)
        assert [told[key]["unknown"] for key in ("both", "photo", "words")] == [False, True, False]
        assert told["words"]["by_photo"] is False
        assert "there is no photo" in bad["nothing"]["detail"]

    def test_labelling_replaces_only_what_it_may(self, tiny_bundle: str, rows: pa.Table, tmp_path: Path) -> None:
        (tmp_path / "mine.txt").write_text("precious")
        dataset = ray.data.from_arrow([rows.slice(0, 1)])
        with pytest.raises(UserError, match="--overwrite"):
            predict(tiny_bundle, dataset, str(tmp_path))
        assert (tmp_path / "mine.txt").exists()
        predict(tiny_bundle, dataset, str(tmp_path), overwrite=True)
        assert not (tmp_path / "mine.txt").exists()
        assert (tmp_path / "summary.json").exists()

    def test_labelling_that_fails_leaves_nothing_behind(self, tiny_bundle: str, tmp_path: Path) -> None:
        out = tmp_path / "labels"
        with pytest.raises(UserError, match="no rows"):
            predict(tiny_bundle, ray.data.from_arrow([catalogue()]), str(out))
        assert list(tmp_path.iterdir()) == []
