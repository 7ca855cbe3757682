"""How far scores have moved from those of validation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sicot.drift import EMPTY, ENOUGH, Scores, Window, psi

COUNTS = st.lists(st.integers(0, 1000), min_size=2, max_size=10).filter(any)


def test_the_index_is_what_its_formula_says() -> None:
    by_hand = (0.5 - 0.25) * math.log(0.5 / 0.25) + (0.5 - 0.75) * math.log(0.5 / 0.75)
    assert psi([0.5, 0.5], [0.25, 0.75]) == pytest.approx(by_hand)
    assert psi([30, 30], [10, 30]) == pytest.approx(by_hand)  # counts are as good as shares
    assert by_hand == pytest.approx(0.27465, abs=1e-5)


def test_a_bin_that_emptied_is_much_drift_but_no_infinite_one() -> None:
    assert psi([0, 10], [1, 9]) == pytest.approx((0.1 - EMPTY) * math.log(0.1 / EMPTY) + 0.1 * math.log(1 / 0.9))


@given(COUNTS, st.integers(1, 50))
def test_equal_distributions_have_not_drifted(counts: list[int], times: int) -> None:
    assert psi([times * count for count in counts], counts) == pytest.approx(0, abs=1e-9)


@given(st.data(), COUNTS)
def test_drift_is_never_negative_and_the_same_both_ways(data: st.DataObject, now: list[int]) -> None:
    then = data.draw(st.lists(st.integers(0, 1000), min_size=len(now), max_size=len(now)).filter(any))
    assert psi(now, then) >= 0
    assert psi(now, then) == pytest.approx(psi(then, now))


@given(st.lists(st.floats(0, 1, width=32), min_size=ENOUGH, max_size=2 * ENOUGH))
def test_validation_has_not_drifted_from_itself(scores: list[float]) -> None:
    reference = Scores.of(np.array(scores))
    assert sum(reference.shares) == pytest.approx(1)
    assert reference.edges == sorted(set(reference.edges))
    window = Window(Scores.model_validate_json(reference.model_dump_json()), 60)
    for score in scores:
        window.add(score, 0)
    assert window.psi(0) == pytest.approx(0, abs=1e-9)


def test_bins_are_fine_where_scores_are_dense() -> None:
    dense = Scores.of(np.r_[np.linspace(0.99, 1, 900, endpoint=False), np.linspace(0, 0.9, 100)])
    assert len(dense.edges) == 9
    assert sum(edge > 0.99 for edge in dense.edges) >= 8
    np.testing.assert_allclose(dense.shares, 0.1, atol=0.01)


def filled(window: Window, scores: np.ndarray, now: float) -> None:
    for score in scores:
        window.add(float(score), now)


def test_answers_that_move_are_seen_and_forgotten_after_a_while() -> None:
    validation = np.linspace(0.5, 1, 1000)
    window = Window(Scores.of(validation), 120)
    filled(window, validation[::2], 1000)
    assert window.psi(1000) == pytest.approx(0, abs=0.01)
    filled(window, validation[::2] - 0.3, 1060)
    assert (window.psi(1060) or 0) > 0.25
    alone = Window(Scores.of(validation), 120)
    filled(alone, validation[::2] - 0.3, 1060)
    assert window.psi(1150) == alone.psi(1150)  # what came first is out of the window
    assert window.psi(1300) is None


@pytest.mark.parametrize(
    ("rows", "answers", "told"), [(ENOUGH, ENOUGH, True), (ENOUGH - 1, 9999, False), (9999, ENOUGH - 1, False)]
)
def test_too_few_rows_or_answers_tell_nothing(rows: int, answers: int, told: bool) -> None:
    window = Window(Scores.of(np.linspace(0, 1, rows)), 60)
    filled(window, np.linspace(0, 1, answers), 5)
    assert (window.psi(5) is not None) == told
