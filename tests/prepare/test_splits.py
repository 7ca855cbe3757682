"""Rows are dealt by class, duplicates stay on one side, every class is trained, and order is of no effect."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sicot.config import Split
from sicot.prepare.splits import TEST, TO_BE_MADE, TRAIN, VAL, deal, units

NONE = np.full(0, -1)


def keys(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).choice(2**62, rows, replace=False) - 2**61


def made(labels: np.ndarray, *alike: np.ndarray, config: Split | None = None, seed: int = 0) -> np.ndarray:
    given = np.full(len(labels), TO_BE_MADE, np.int8)
    return deal(keys(len(labels), seed), labels, list(alike), given, config or Split())


ROWS = st.integers(1, 60).flatmap(
    lambda rows: st.tuples(
        hnp.arrays(np.int64, rows, elements=st.integers(0, 5)),
        hnp.arrays(np.int64, rows, elements=st.integers(-1, 12)),
        hnp.arrays(np.int64, rows, elements=st.integers(-1, 40)),
        hnp.arrays(np.int8, rows, elements=st.sampled_from([-1, -1, -1, 0, 1, 2])),
    )
)


@given(ROWS, st.integers(0, 5))
def test_duplicates_stay_together_and_every_class_is_trained(rows: tuple[np.ndarray, ...], seed: int) -> None:
    labels, photos, titles, _ = rows
    split = made(labels, photos, titles, config=Split(val=0.3, test=0.3, seed=seed))
    for values in (photos, titles):
        for value in np.unique(values[values >= 0]):
            assert len(set(split[values == value])) == 1
    assert set(labels[split == TRAIN]) == set(labels)


@given(ROWS, st.randoms(use_true_random=False))
def test_the_order_of_rows_is_of_no_effect(rows: tuple[np.ndarray, ...], random: st.Random) -> None:
    labels, photos, titles, given = rows
    names = keys(len(labels))
    order = np.array(random.sample(range(len(labels)), len(labels)))
    config = Split(val=0.3, test=0.3)
    split = deal(names, labels, [photos, titles], given, config)
    other = deal(names[order], labels[order], [photos[order], titles[order]], given[order], config)
    assert (split[order] == other).all()


@given(ROWS)
def test_what_the_catalogue_says_is_kept_and_look_alikes_follow(rows: tuple[np.ndarray, ...]) -> None:
    labels, photos, titles, given = rows
    split = deal(keys(len(labels)), labels, [photos, titles], given, Split())
    said = given != TO_BE_MADE
    assert (split[said] == given[said]).all()
    unit = units(len(labels), [photos, titles])
    for free in np.flatnonzero(~said):
        pinned = given[said & (unit == unit[free])]
        if len(pinned):
            assert split[free] == pinned.min()  # training before val before test: nothing leaks out of training


@given(hnp.arrays(np.int64, st.integers(1, 30), elements=st.integers(-1, 8)), st.integers(1, 5))
def test_units_are_joined_by_chains(values: np.ndarray, shift: int) -> None:
    other = np.roll(values, shift)
    unit = units(len(values), [values, other])
    reached = np.arange(len(values))  # the slow way: spread the smallest row number until nothing changes
    for _ in values:
        for column in (values, other):
            for value in set(column[column >= 0]):
                reached[column == value] = reached[column == value].min()
    assert [list(unit).index(number) for number in unit] == [list(reached).index(number) for number in reached]


def test_shares_hold_for_each_class_up_to_a_row() -> None:
    labels = np.repeat(np.arange(4), [1000, 200, 30, 10])
    split = made(labels)
    for label, rows in enumerate([1000, 200, 30, 10]):
        for code in (VAL, TEST):
            assert abs((split[labels == label] == code).sum() - rows / 10) < 1


def test_rare_classes_are_tested_in_fair_numbers() -> None:
    """Rounding down would leave classes of three rows untested; rounding by chance tests a tenth of their rows."""
    labels = np.repeat(np.arange(2000), 3)
    split = made(labels)
    assert (split == TEST).mean() == pytest.approx(0.1, abs=0.01)
    assert (split == VAL).mean() == pytest.approx(0.1, abs=0.015)


def test_rows_are_chosen_by_chance_and_the_seed() -> None:
    labels = np.zeros(1000, np.int64)
    first, again, other = (made(labels, config=Split(seed=seed)) for seed in (0, 0, 1))
    assert (first == again).all()
    assert 0.1 < (first != other).mean() < 0.6
    held_out = np.flatnonzero(np.sort(keys(1000))[:, None] == keys(1000)[first != TRAIN])
    assert 300 < np.median(held_out // 200) < 700  # from everywhere in the order of keys


def test_a_group_of_several_classes_is_trained_where_a_class_has_nothing_else() -> None:
    labels = np.array([0] * 50 + [1])
    photos = np.where(np.arange(51) >= 49, 0, -1)  # the only row of class 1 shares its photo with a row of class 0
    for seed in range(40):
        split = made(labels, photos, config=Split(val=0.4, test=0.4), seed=seed)
        assert split[50] == TRAIN == split[49]


def test_no_rows() -> None:
    assert len(made(np.zeros(0, np.int64), np.zeros(0, np.int64))) == 0
