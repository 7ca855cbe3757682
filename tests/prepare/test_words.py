"""Vocabulary and word vectors come from the training rows alone, the same every time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sicot import storage
from sicot.config import Text, Word2Vec
from sicot.prepare import words

ROWS = st.lists(
    st.lists(st.sampled_from(["红", "蓝", "red", "bag", "shoe", "x"]), unique=True), min_size=1, max_size=30
)


def staged(folder: Path, rows: list[list[str]], first: int = 0) -> str:
    name = f"{folder}/{first}.parquet"
    columns = {"key": range(first, first + len(rows)), "tokens": pa.array(rows, pa.list_(pa.string()))}
    storage.write_table(name, pa.table(columns))
    return name


def test_only_training_rows_are_counted(tmp_path: Path) -> None:
    files = [staged(tmp_path, [["red", "bag"], ["red"]]), staged(tmp_path, [["bag", "x"], []], first=2)]
    [counts] = words.count(pa.table({"key": [0, 2, 3]}), files)
    assert dict(zip(*counts.to_pydict().values(), strict=True)) == {"red": 1, "bag": 2, "x": 1}
    [nothing] = words.count(pa.table({"key": [3]}), files)
    assert nothing.num_rows == 0


def test_a_row_that_is_staged_twice_is_counted_once(tmp_path: Path) -> None:
    files = [staged(tmp_path / name, [["red", "bag"], ["red"]]) for name in "ab"]
    [counts] = words.count(pa.table({"key": [0, 1]}), files)
    assert dict(zip(*counts.to_pydict().values(), strict=True)) == {"red": 2, "bag": 1}


@given(ROWS, st.integers(1, 4), st.integers(1, 6), st.integers(1, 5))
def test_vocabulary(rows: list[list[str]], parts: int, most: int, least: int) -> None:
    counts = [Counter(word for row in rows[part::parts] for word in row) for part in range(parts)]
    tables = [
        pa.table({"word": pa.array(list(c), pa.string()), "count": pa.array(c.values(), pa.int64())}) for c in counts
    ]
    made = words.vocabulary(tables, len(rows), Text(min_count=least, max_vocabulary=most)).to_pylist()
    total = sum(counts, Counter())
    expected = sorted(((word, n) for word, n in total.items() if n >= least), key=lambda each: (-each[1], each[0]))
    assert [(row["word"], row["count"]) for row in made] == expected[:most]
    for row in made:
        assert row["idf"] == pytest.approx(np.log((1 + len(rows)) / (1 + row["count"])), abs=1e-6)


def trained(files: list[str], vocabulary: pa.Table, rows: int, seed: int = 0) -> np.ndarray:
    return words.vectors(files, vocabulary, rows, Word2Vec(dimension=12, epochs=30, window=5), seed, lambda _: None)


def test_words_of_a_kind_are_neighbours_and_a_seed_gives_the_same_vectors(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    kinds = [["leather", "handbag", "strap", "zip"], ["running", "shoe", "sole", "lace"]]
    rows = [list(random.choice(kinds[n % 2], 3, replace=False)) for n in range(600)]
    files = [staged(tmp_path, rows[:300]), staged(tmp_path, rows[300:], first=300)]
    table = words.vocabulary(list(words.count(pa.table({"key": np.arange(600)}), files)), 600, Text())
    vectors = trained(files, table, 600)
    assert vectors.shape == (9, 12)
    assert vectors.dtype == np.float32
    assert not vectors[0].any()
    assert np.linalg.norm(vectors[1:], axis=1).mean() == pytest.approx(1, abs=1e-5)
    unit = vectors[1:] / np.linalg.norm(vectors[1:], axis=1, keepdims=True)
    bag = np.isin(table["word"].to_pylist(), kinds[0])
    alike = unit @ unit.T
    assert alike[bag][:, bag].mean() > alike[bag][:, ~bag].mean() + 0.2
    assert (trained(files, table, 600) == vectors).all()
    assert (trained(files, table, 600, seed=1) != vectors).any()


def test_every_row_is_read_once_an_epoch(tmp_path: Path) -> None:
    rows = [["red", "bag"]] * 700
    files = [staged(tmp_path, rows)]
    table = words.vocabulary(list(words.count(pa.table({"key": np.arange(700)}), files)), 700, Text())
    seen: list[int] = []
    words.vectors(files, table, 700, Word2Vec(dimension=4, epochs=3), 0, seen.append)
    assert sum(seen) == 2100


def test_without_words_there_is_only_the_zero_row(tmp_path: Path) -> None:
    table = words.vocabulary([], 10, Text())
    assert trained([staged(tmp_path, [[]])], table, 1).tolist() == [[0.0] * 12]
