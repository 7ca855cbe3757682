"""The embedded catalogue: the same bytes for the same seed, exact counts, words that help and do not tell."""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from sicot.catalogue import render, shapes, synthetic, words
from sicot.catalogue.schema import ROW
from sicot.config import Experiment, Synthetic, load

DEMO = Synthetic(rows=2400, classes=40, imbalance=40, image_size=32)


@pytest.fixture(scope="module")
def demo() -> pa.Table:
    return synthetic.rows(DEMO, range(DEMO.rows))


# ---------------------------------------------------------------- rows


def test_a_row_depends_on_seed_and_index_alone(demo: pa.Table) -> None:
    assert demo.schema == ROW
    some = [2399, 7, 1200]
    assert synthetic.rows(DEMO, some).to_pylist() == demo.take(some).to_pylist()
    other = synthetic.rows(DEMO.model_copy(update={"seed": 1}), some)
    assert not set(other["image"].to_pylist()) & set(demo["image"].to_pylist())


def test_photos_are_squares_of_the_size_asked_for() -> None:
    for size in (16, 100, 513):
        table = synthetic.rows(Synthetic(rows=60, classes=6, image_size=size), range(4))
        for photo in table["image"].to_pylist():
            image = Image.open(io.BytesIO(photo))
            assert (image.format, image.size) == ("JPEG", (size, size))


def test_no_photo_or_id_comes_twice(demo: pa.Table) -> None:
    assert len(set(demo["image"].to_pylist())) == len(set(demo["id"].to_pylist())) == DEMO.rows


@pytest.mark.usefixtures("ray_cluster")
def test_the_dataset_is_the_rows_in_many_blocks() -> None:
    config = Synthetic(rows=1300, classes=6, image_size=16)
    streamed = pa.concat_tables(synthetic.dataset(config).iter_batches(batch_size=None, batch_format="pyarrow"))
    assert streamed.schema.equals(ROW)
    assert streamed.sort_by("id").equals(synthetic.rows(config, range(1300)).sort_by("id"))


# ---------------------------------------------------------------- counts and splits


@given(
    classes=st.integers(2, 300), per_class=st.integers(1, 200), imbalance=st.floats(1, 500), extra=st.integers(0, 299)
)
@settings(max_examples=200, deadline=None)
def test_counts_follow_zipf_and_sum_up(classes: int, per_class: int, imbalance: float, extra: int) -> None:
    total = classes * per_class + extra
    count = synthetic.counts(total, classes, imbalance)
    assert count.sum() == total
    assert count.min() >= (synthetic.SMALLEST if total >= synthetic.SMALLEST * classes else 1)
    assert np.all(count[:-1] >= count[1:] - 1)
    train, val, test = synthetic.deal(count, np.arange(classes))
    assert np.all(train + val + test == count)
    assert train.min() >= 1
    assert test[count >= synthetic.SMALLEST].min(initial=1) >= 1
    assert test.min() >= 0
    assert val.min() >= 0
    assert np.all(np.abs(test[count >= 50] / count[count >= 50] - 0.2) <= 0.02)
    assert np.all(np.abs(val[count >= 50] / count[count >= 50] - 0.1) <= 0.02)
    if count.min() >= 20:
        assert train.max() / train.min() == pytest.approx(imbalance, rel=0.15)


def test_rare_classes_give_the_test_a_few_rows() -> None:
    count = np.array([3, 6, 9, 12, 14])
    train, _, test = synthetic.deal(count, np.arange(5))
    assert test.tolist() == [1, 2, 3, 3, 3]
    assert train.tolist() == [2, 3, 5, 8, 10]


def test_of_classes_with_two_rows_a_quarter_is_tested_and_of_one_row_none() -> None:
    train, val, test = synthetic.deal(np.repeat([2, 1], 400), np.arange(800))
    assert (train.min(), val.sum()) == (1, 0)
    assert (test[:400].sum(), test[400:].sum()) == (100, 0)


def test_a_shop_of_a_million_classes_has_a_head_and_a_thin_tail() -> None:
    shop = load(Experiment, ["--preset", "million"])
    catalogue, groups = shop.catalogue.synthetic, shop.prepare.groups
    count = synthetic.counts(catalogue.rows, catalogue.classes, catalogue.imbalance)
    train, val, test = synthetic.deal(count, np.arange(catalogue.classes))
    assert (count.sum(), count.min()) == (2_000_000, 1)
    assert 0.1 < test.sum() / catalogue.rows < 0.15
    assert 0.01 < val.sum() / catalogue.rows < 0.04
    assert (train > groups.head_above).sum() > 1000
    assert 10_000 < (train >= groups.tail_below).sum() < 50_000


def test_rows_have_the_counts_and_splits_that_were_dealt(demo: pa.Table) -> None:
    count = synthetic.counts(DEMO.rows, DEMO.classes, DEMO.imbalance)
    dealt = np.stack(synthetic.deal(count, np.arange(DEMO.classes)))
    names = ["-".join(parts.values()) for parts in synthetic.class_parts(DEMO, np.arange(DEMO.classes))]
    have = Counter(zip(demo["label"].to_pylist(), demo["split"].to_pylist(), strict=True))
    for place, split in enumerate(("train", "val", "test")):
        assert [have[name, split] for name in names] == dealt[place].tolist()


@given(size=st.integers(1, 5000), seed=st.integers(-(2**40), 2**70))
@settings(max_examples=50, deadline=None)
def test_the_order_of_rows_is_a_permutation(size: int, seed: int) -> None:
    assert np.array_equal(np.sort(synthetic._shuffled(np.arange(size), size, seed)), np.arange(size))


def test_too_few_rows_are_refused() -> None:
    assert Synthetic(rows=40, classes=40)
    with pytest.raises(ValidationError, match="rows must be at least as many as classes"):
        Synthetic(rows=39, classes=40)


@pytest.mark.parametrize("rows", [40, 60, 119])
def test_every_class_trains_however_few_rows_there_are(rows: int) -> None:
    config = Synthetic(rows=rows, classes=40, image_size=16)
    table = synthetic.rows(config, range(rows))
    trained = table.filter(pc.equal(table["split"], "train"))
    assert len(set(trained["label"].to_pylist())) == 40


# ---------------------------------------------------------------- classes


@pytest.mark.parametrize("classes", [2, 40, 5000, 100_000])
def test_every_class_has_a_label_of_its_own(classes: int) -> None:
    config = Synthetic(rows=3 * classes, classes=classes)
    looks = synthetic.class_parts(config, np.arange(classes))
    assert len({"-".join(parts.values()) for parts in looks}) == classes


def test_a_million_classes_are_made_one_row_at_a_time() -> None:
    config = Synthetic(rows=2_000_000, classes=1_000_000, image_size=32)
    table = synthetic.rows(config, [0, 1_234_567, 1_999_999])
    assert len(set(table["label"].to_pylist())) == 3
    some = synthetic.class_parts(config, np.random.default_rng(0).integers(0, config.classes, 50_000))
    ranks = np.random.default_rng(0).integers(0, config.classes, 50_000)
    assert len({tuple(parts.values()) for parts in some}) == len(set(ranks.tolist()))


def test_most_classes_have_a_neighbour_that_differs_in_one_part() -> None:
    looks = [tuple(parts.values()) for parts in synthetic.class_parts(DEMO, np.arange(DEMO.classes))]
    near = [any(sum(a != b for a, b in zip(one, two, strict=True)) == 1 for two in looks) for one in looks]
    assert np.mean(near) > 0.9


@pytest.mark.parametrize("part", synthetic.PARTS)
def test_every_value_of_a_part_shows_in_the_photo_and_has_its_own_words(part: str) -> None:
    values = synthetic.PARTS[part]
    plain = {"silhouette": "bag", "pattern": "striped", "palette": "red", "emblem": "star"}
    looks = [render.Look(**(plain | {part: value})) for value in values]
    # the same poses and lights for all; more than one, for some show the product from behind
    assert len({tuple(render.photo(look, 64, np.random.default_rng(n)) for n in range(4)) for look in looks}) == len(
        looks
    )
    assert set(words.SYNONYMS[part]) == set(values)
    assert len(set(words.SYNONYMS[part].values())) == len(values)


def test_the_colours_named_are_there() -> None:
    assert {colour for palette in shapes.PALETTES.values() for colour in palette} <= set(shapes.COLOURS)
    assert set(synthetic.PARTS["ink"]) | set(synthetic.PARTS["trim"]) - {"matching"} <= set(shapes.COLOURS)
    own = {trim for _, _, trim in shapes.PALETTES.values()}
    assert not own & set(synthetic.PARTS["trim"])  # or two classes would look the same


# ---------------------------------------------------------------- words


def bag_of_words_accuracy(table: pa.Table) -> tuple[float, float]:
    """Test accuracy of naive Bayes on Chinese character pairs and Latin words, and of the most frequent class."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.naive_bayes import MultinomialNB

    text = [f"{row['title'] or ''} {' '.join(row['tags'] or [])}" for row in table.to_pylist()]
    split, label = np.array(table["split"].to_pylist()), np.array(table["label"].to_pylist())
    features = CountVectorizer(analyzer=_tokens).fit_transform(text)
    model = MultinomialNB(alpha=0.1).fit(features[split == "train"], label[split == "train"])
    test = label[split == "test"]
    frequent = Counter(label[split == "train"]).most_common(1)[0][0]
    return float((model.predict(features[split == "test"]) == test).mean()), float((test == frequent).mean())


def _tokens(text: str) -> list[str]:
    latin = "".join(c if c.isascii() and c.isalpha() else " " for c in text.lower()).split()
    return latin + [a + b for a, b in pairwise(text) if min(a, b) >= "\u4e00"]


def test_words_help_and_do_not_give_the_class_away(demo: pa.Table) -> None:
    accuracy, chance = bag_of_words_accuracy(demo)
    assert chance + 0.15 < accuracy < 0.75


def test_no_text_spells_the_label(demo: pa.Table) -> None:
    for row in demo.to_pylist():
        assert row["label"] not in (row["title"] or "").lower()
        assert row["label"] not in (row["tags"] or [])


def test_texts_are_chinese_english_mixed_or_missing(demo: pa.Table) -> None:
    kinds: dict[str, int] = defaultdict(int)
    for title in demo["title"].to_pylist():
        chinese = any("\u4e00" <= c <= "\u9fff" for c in title or "")
        english = any(c.isascii() and c.isalpha() for c in title or "")
        kinds["none" if title is None else f"{chinese:d}{english:d}"] += 1
    assert min(kinds["10"], kinds["01"], kinds["11"]) > 0.1 * DEMO.rows
    neither = sum(row["title"] is None and row["tags"] is None for row in demo.to_pylist())
    assert neither / DEMO.rows == pytest.approx(DEMO.no_text, abs=0.02)


def test_noise_and_missing_text_are_as_configured() -> None:
    silent = DEMO.model_copy(update={"no_text": 1.0})
    table = synthetic.rows(silent, range(50))
    assert table["title"].null_count == table["tags"].null_count == 50

    def wrong_share(noise: float) -> float:
        config = DEMO.model_copy(update={"word_noise": noise, "image_size": 16})
        told = wrong = 0
        for row in synthetic.rows(config, range(300)).to_pylist():
            for part, value in zip(synthetic.PARTS, row["label"].split("-"), strict=False):
                for tag in row["tags"] or []:
                    namesakes = [v for v, pair in words.SYNONYMS[part].items() if tag in "|".join(pair).split("|")]
                    told += bool(namesakes)
                    wrong += bool(namesakes) and value not in namesakes
        return wrong / told

    assert wrong_share(0.9) > wrong_share(0.25) + 0.05
