"""Shares, their intervals and their differences, against published values and against what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2_contingency

from sicot.feedback.shares import Share, Sums, difference


def share(x: np.ndarray, n: np.ndarray) -> Share:
    """Of visitors with so many answers, of which so many were so."""
    return Share.of_sums(Sums(len(n), *(float(each.sum()) for each in (x, n, x * x, x * n, n * n))))


def independent(count: int, of: int) -> Share:
    """Of visitors with one answer each."""
    return share(np.repeat([1, 0], [count, of - count]), np.ones(of, int))


@pytest.mark.parametrize(
    ("count", "of", "low", "high"),  # Newcombe 1998, "Two-sided confidence intervals for the single proportion"
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_an_interval_is_wilsons_where_answers_are_independent(count: int, of: int, low: float, high: float) -> None:
    found = independent(count, of)
    assert (found.count, found.of, found.effective) == (count, of, pytest.approx(of))
    assert found.ci95 == pytest.approx([low, high], abs=5e-5)


@pytest.mark.parametrize(
    ("new", "old", "low", "high"),  # Newcombe 1998, "Interval estimation for the difference", method 10
    [((56, 70), (48, 80), 0.0524, 0.3339), ((9, 10), (3, 10), 0.1705, 0.8090), ((10, 10), (0, 20), 0.6791, 1.0)],
)
def test_a_difference_has_newcombes_interval(
    new: tuple[int, int], old: tuple[int, int], low: float, high: float
) -> None:
    found = difference(independent(*new), independent(*old))
    assert found["difference"] == pytest.approx(new[0] / new[1] - old[0] / old[1])
    assert found["ci95"] == pytest.approx([low, high], abs=5e-5)


def test_p_is_that_of_the_chi_square_test() -> None:
    found = difference(independent(56, 70), independent(48, 80))
    assert found["p"] == pytest.approx(chi2_contingency([[56, 14], [48, 32]], correction=False).pvalue)
    assert difference(independent(5, 5), independent(7, 7))["p"] == 1.0


def test_a_visitor_who_says_the_same_ten_times_counts_once() -> None:
    says = np.repeat([1, 0], [30, 70])
    once, ten_times = share(says, np.ones(100, int)), share(10 * says, np.full(100, 10))
    assert ten_times.share == once.share
    assert ten_times.of == 1000
    assert ten_times.ci95 == pytest.approx(once.ci95)


def test_nothing_to_count_is_no_share() -> None:
    nothing = share(np.zeros(3), np.zeros(3))
    assert (nothing.share, nothing.ci95, nothing.of) == (None, None, 0)
    assert difference(nothing, independent(1, 2))["p"] is None


def test_all_alike_is_as_sure_as_there_are_visitors() -> None:
    assert share(np.array([9, 1]), np.array([9, 1])).ci95 == independent(2, 2).ci95


def test_intervals_hold_what_they_promise_where_visitors_differ() -> None:
    random, inside, equal, times = np.random.default_rng(0), 0, 0, 1000
    for _ in range(times):
        arms = []
        for _ in range(2):
            n = random.geometric(0.3, 150)
            arms.append(share(random.binomial(n, random.beta(1.5, 3.5, 150)), n))
        inside += arms[0].ci95[0] <= 0.3 <= arms[0].ci95[1]
        equal += difference(*arms)["p"] < 0.05
    assert 0.93 < inside / times < 0.98
    assert 0.03 < equal / times < 0.075
