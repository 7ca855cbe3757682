"""From small columns to a decision: classes, splits, and why a row is left out."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from sicot.config import Groups, Split
from sicot.errors import UserError
from sicot.prepare import plan, staging

SEEN = pa.schema([("key", pa.int64()), ("count", pa.int64())])
SMALL = pa.schema([staging.ROW.field(name) for name in staging.SMALL])


def rows(*entries: tuple[str, str, str | None]) -> pa.Table:
    """Staged rows (id, label, split), keys in order."""
    columns = ["id", "label", "split"]
    table = [
        {"key": key, "photo": key, "text": None, **dict(zip(columns, entry, strict=True))}
        for key, entry in enumerate(entries)
    ]
    return pa.Table.from_pylist(table, SMALL)


def bad(*keys: int) -> pa.Table:
    entries = [{"key": key, "id": f"bad{key}", "split": None, "reason": "no_image", "detail": "x"} for key in keys]
    return pa.Table.from_pylist(entries, staging.BAD)


def make(
    good: pa.Table, broken: pa.Table | None = None, seen: dict[int, int] | None = None, **groups: int
) -> plan.Plan:
    broken = bad() if broken is None else broken
    keys = good["key"].to_pylist() + broken["key"].to_pylist()
    counts = sorted((seen or dict.fromkeys(keys, 1)).items())
    table = pa.table(list(zip(*counts, strict=True)) or [[], []], schema=SEEN)
    return plan.make(good, broken, table, Split(), Groups(**groups))


def reasons(made: plan.Plan) -> list[tuple[str, str]]:
    return [(row["id"], row["reason"]) for row in made.quarantine.to_pylist()]


def test_classes_are_the_sorted_labels_of_training() -> None:
    good = rows(("1", "shoe", "train"), ("2", "bag", "train"), ("3", "shoe", "train"), ("4", "bag", "test"))
    made = make(good, head_above=1, tail_below=2)
    assert made.classes.to_pydict() == {
        "label": ["bag", "shoe"],
        "count": [1, 2],
        "prior": [2 / 5, 3 / 5],
        "group": ["tail", "head"],
    }
    assert made.label.tolist() == [1, 0, 1, 0]
    assert made.rows == {"train": 3, "val": 0, "test": 1}
    assert made.train.tolist() == [0, 1, 2]


def test_groups_go_by_training_rows() -> None:
    good = rows(*[(str(n), label, "train") for n, label in enumerate("aaaaabbbccd")])
    made = make(good, head_above=3, tail_below=2)
    assert made.classes["group"].to_pylist() == ["head", "medium", "medium", "tail"]
    assert np.isclose(sum(made.classes["prior"].to_pylist()), 1)


def test_a_label_that_training_has_not() -> None:
    made = make(rows(("1", "bag", "train"), ("2", "hat", "test"), ("3", "cap", "val")))
    assert reasons(made) == [("2", "label_unknown"), ("3", "label_unknown")]
    assert made.quarantine["detail"].to_pylist() == ["hat", "cap"]
    assert made.keys.tolist() == [0]


def test_of_rows_with_one_id_the_first_by_key_stays() -> None:
    made = make(rows(("1", "bag", "train"), ("1", "hat", "train"), ("2", "bag", "train"), ("1", "bag", "train")))
    assert reasons(made) == [("1", "id_duplicate")] * 2
    assert made.keys.tolist() == [0, 2]


def test_copies_of_a_row_are_counted() -> None:
    made = make(rows(("1", "bag", "train"), ("2", "bag", "train")), bad(7), seen={0: 3, 1: 1, 7: 2})
    assert sorted(reasons(made)) == [("1", "id_duplicate")] * 2 + [("bad7", "no_image")] * 2
    assert made.quarantined() == {"id_duplicate": 2, "no_image": 2}


def test_staged_rows_that_the_catalogue_no_longer_has_are_passed_over() -> None:
    made = make(rows(("1", "bag", "train"), ("2", "hat", "train")), bad(5), seen={0: 1})
    assert (made.keys.tolist(), reasons(made), made.classes.num_rows) == ([0], [], 1)


def test_splits_are_made_for_rows_without_one() -> None:
    made = make(rows(*[(str(n), "bag", None) for n in range(100)]))
    assert made.rows == {"train": 80, "val": 10, "test": 10}


def test_too_many_bad_rows_name_the_reasons_and_the_folder() -> None:
    made = make(rows(("1", "bag", "train"), ("1", "bag", "train")), bad(7, 8))
    plan.check(made, 0.75, "my.parquet", "there")
    with pytest.raises(UserError, match=r"3 of 4 rows are bad \(no_image 2, id_duplicate 1\).*see there") as error:
        plan.check(made, 0.7, "my.parquet", "there")
    assert "\n" not in str(error.value)


def test_nothing_left() -> None:
    with pytest.raises(UserError, match="no rows"):
        plan.check(make(rows()), 1.0, "my.parquet", "there")
    with pytest.raises(UserError, match=r"no row is left to train on \(no_image 1\); see there"):
        plan.check(make(rows(), bad(1)), 1.0, "my.parquet", "there")
    with pytest.raises(UserError, match=r"no row is left to train on \(label_unknown 1\)"):
        plan.check(make(rows(("1", "bag", "test"))), 1.0, "my.parquet", "there")
