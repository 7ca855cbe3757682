"""Products without training: found afterwards, and the old ones nearly as before."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
import torch

from sicot import enrol
from sicot.bundle import Bundle, Query
from sicot.catalogue.schema import ROW
from sicot.enrolled import FILES, MOST_BYTES
from sicot.errors import UserError
from sicot.prepare.prepared import Classes
from tests import builders
from tests.builders import LABELS, photo

NEW = ["green-mug", "red-shoe", "blue-bag"]  # colours and shapes that were seen, but not together


def given(label: str, seeds: range, words: bool = True) -> list[Query]:
    return [Query(photo(label, seed), label.replace("-", " ") if words else "") for seed in seeds]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle of a model that has learnt its six classes."""
    return Bundle.load(builders.trained_bundle(tmp_path_factory.mktemp("trained")))


@pytest.fixture(scope="module")
def knowing(trained: Bundle) -> Bundle:
    return enrol.enrol(trained, {label: given(label, range(5)) for label in NEW})


def accuracy(asked: Bundle, labels: list[str], words: bool = True) -> float:
    right = 0
    for label in labels:
        answers = asked.predict(given(label, range(100, 120), words))
        right += sum(answer.ranked[0].label == label for answer in answers)
    return right / (20 * len(labels))


def test_new_products_are_found_and_old_ones_nearly_as_before(trained: Bundle, knowing: Bundle) -> None:
    for words, found, kept in ((True, 0.8, 0.95), (False, 0.4, 0.75)):  # chance is 1/9
        before, after = accuracy(trained, LABELS, words), accuracy(knowing, LABELS, words)
        assert accuracy(trained, NEW, words) == 0
        assert accuracy(knowing, NEW, words) > found
        assert after >= kept * before


def test_among_old_products_the_answer_is_as_it_was(trained: Bundle, knowing: Bundle) -> None:
    for query in (Query(photo("red-bag", 1)), Query(photo("red-bag", 1), "red bag"), Query(None, "red bag")):
        items = [trained.encode(query)]
        (before,), (after,) = (b.answer(items, len(b.classes)) for b in (trained, knowing))
        p = {each.label: each.probability for each in after.ranked}
        assert sum(p.values()) == pytest.approx(1, abs=1e-5)
        old = 1 - sum(p[label] for label in NEW)
        assert {label: p[label] / old for label in LABELS} == pytest.approx(
            {each.label: each.probability for each in before.ranked}, abs=1e-4
        )


def test_words_nobody_knows_leave_the_photos_answer_exactly(knowing: Bundle) -> None:
    images_BHW3 = torch.from_numpy(knowing.decode(photo("green-mug", 4)))[None]
    plain_BC, _ = knowing.logits(images_BHW3, None)
    assert plain_BC.shape == (1, 9)
    assert torch.equal(plain_BC, knowing.logits(images_BHW3, knowing.pad([[0, 0]]))[0])


def test_photos_or_words_alone_are_enough_and_answer_what_they_can(trained: Bundle) -> None:
    photos = enrol.enrol(trained, {"green-mug": given("green-mug", range(5), words=False)})
    words = enrol.enrol(trained, {"green-mug": [Query(title="green mug"), Query(title="mug", tags=("green",))]})
    assert accuracy(photos, ["green-mug"], words=False) > 0.3
    assert words.predict([Query(title="green mug")])[0].ranked[0].label == "green-mug"

    def p(asked: Bundle, query: Query) -> float:
        return {r.label: r.probability for r in asked.predict([query], 7)[0].ranked}["green-mug"]

    assert p(photos, Query(title="green mug")) == p(words, Query(photo("green-mug", 1))) == 0
    both = Query(photo("green-mug", 100), "green mug")
    assert min(p(photos, both), p(words, both)) > 0.3  # of seven products


def test_a_saved_bundle_answers_the_same_and_is_checked(knowing: Bundle, tmp_path: Path) -> None:
    enrol.save(knowing, str(tmp_path / "new"))
    loaded = Bundle.load(tmp_path / "new")
    assert loaded.info == knowing.info
    assert loaded.classes.labels == [*LABELS, *NEW]
    assert loaded.classes.group.tolist()[6:] == ["enrolled"] * 3
    queries = [Query(photo(label, 7), title) for label in (*NEW, *LABELS) for title in ("", "red mug")]
    assert loaded.predict(queries) == knowing.predict(queries)
    assert {path.name for path in (tmp_path / "new").iterdir()} == {*knowing.info.made, *FILES, "bundle.json"}
    for name in FILES:
        content = (tmp_path / "new" / name).read_bytes()
        (tmp_path / "new" / name).write_bytes(content[:-1] + b"x")
        with pytest.raises(UserError, match=f"{name} is missing or not the file that was bundled"):
            Bundle.load(tmp_path / "new")
        (tmp_path / "new" / name).write_bytes(content)


def test_every_change_is_another_bundle_and_undone_it_is_the_first_again(trained: Bundle, knowing: Bundle) -> None:
    again = enrol.enrol(knowing, {"red-shoe": given("red-shoe", range(50, 53))})
    assert again.enrolled.labels == ["green-mug", "blue-bag", "red-shoe"]
    assert len(again.enrolled.of("red-shoe")) == 3
    assert len({trained.info.digest, knowing.info.digest, again.info.digest}) == 3
    for label in again.enrolled.labels:
        again = enrol.withdraw(again, label)
    assert again.info.digest == trained.info.digest
    assert again.classes.labels == LABELS
    assert knowing.enrolled.labels == NEW  # what others hold has not changed
    with pytest.raises(UserError, match="'red-shoe' is not an enrolled product"):
        enrol.withdraw(trained, "red-shoe")


@pytest.mark.parametrize(
    ("label", "queries", "says"),
    [
        ("", [Query(photo("green-mug", 1))], "the label is empty"),
        ("  ", [Query(photo("green-mug", 1))], "the label is empty"),
        ("red-bag", [Query(photo("red-bag", 1))], "the model was trained on it"),
        ("new", [], "give photos, words, or both"),
        ("new", [Query(b"not a photo")], "cannot enrol 'new': not one of"),
        ("new", [Query(b"")], "there is no photo"),
        ("new", [Query(photo("green-mug", 1)), Query(title="unheard of")], "nothing to go by"),
    ],
)
def test_what_cannot_be_enrolled_is_told_in_one_line(
    trained: Bundle, label: str, queries: list[Query], says: str
) -> None:
    with pytest.raises(UserError, match=says) as error:
        enrol.enrol(trained, {label: queries})
    assert "\n" not in str(error.value)


def test_a_large_photo_is_kept_small_and_says_the_same(trained: Bundle) -> None:
    large = photo("green-mug", 1, size=1000)
    assert len(large) > MOST_BYTES
    kept = enrol.enrol(trained, {"green-mug": [Query(large)]})
    (row,) = kept.enrolled.of("green-mug")
    assert len(row["image"]) < len(large) / 2
    v_1D = trained.see(torch.from_numpy(trained.decode(large))[None])
    assert float(v_1D @ kept.enrolled.rows_2ED[0, 0]) > 0.95


def test_text_that_is_no_utf_8_is_no_reason_to_stop(trained: Bundle) -> None:
    table = pa.Table.from_pylist([{"id": "a", "title": "", "tags": ["red"], "label": "x"}], ROW)
    broken = pa.array([b"\xff\xfe red bag"], pa.binary()).view(pa.string())
    for column in ("title", "label"):
        table = table.set_column(table.schema.get_field_index(column), column, broken)
    (row,) = enrol._rows(table)
    assert row["title"] == row["label"] == "\ufffd\ufffd red bag"
    assert enrol._query(trained, "x", row).tags == ("red",)


def test_the_next_model_knows_them_too_but_for_those_it_has_learnt(
    trained: Bundle, knowing: Bundle, tmp_path: Path
) -> None:
    following = Bundle.load(builders.bundle_folder(tmp_path, loss=trained.info.model.visual_only().loss))
    columns = following.trained.table.to_pylist()
    columns[0]["label"] = "green-mug"  # it was trained on this one
    following.trained = following.classes = Classes(pa.Table.from_pylist(columns, following.trained.table.schema))
    words_only = enrol.enrol(knowing, {"told": [Query(title="red bag")]})
    carried, left = enrol.carry(words_only, following)
    assert carried.enrolled.labels == ["red-shoe", "blue-bag"]
    assert carried.info.digest != following.info.digest
    assert left == {"told": "this model looks at photos only: send one"}
    assert enrol.carry(trained, following) == (following, {})
