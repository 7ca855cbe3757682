"""Figures that can be trusted: their values, and how often their intervals hold the truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sicot.evaluate import metrics
from sicot.evaluate.metrics import UNKNOWN, Answers

GROUP = np.array(["head", "medium", "tail"])


def answers(target: list[int], first: list[int], probability: list[float] | None = None) -> Answers:
    """Answers of rank one; the other ranks are never right."""
    top = np.stack([np.array(first), *[np.full(len(first), 99)] * 4], 1) if first else np.zeros((0, 5), int)
    sure = np.array(probability or [1.0] * len(first), float)
    return Answers(np.array(target, int), top, np.stack([sure] * 5, 1) if first else np.zeros((0, 5)), sure < 0.5)


def coin_answers(random: np.random.Generator, target: np.ndarray, right: np.ndarray) -> Answers:
    """Right with the probability that its class has."""
    first = np.where(random.random(len(target)) < right[target], target, -2)
    return Answers(target, first[:, None], np.ones((len(target), 1)), np.zeros(len(target), bool))


def test_micro_macro_and_groups_by_hand() -> None:
    told = metrics.summary(answers([0, 0, 0, 0, 1, 1, 2], [0, 0, 0, 1, 1, 0, 0]), GROUP)
    assert told["top1"] == pytest.approx(4 / 7)
    assert told["macro"] == pytest.approx((3 / 4 + 1 / 2 + 0) / 3)
    assert (told["head"], told["medium"], told["tail"]) == (0.75, 0.5, 0.0)
    assert told["rows"] == 7
    for name in ("top1", "macro", "head", "medium", "tail"):
        low, high = told["ci95"][name]
        assert 0 <= low <= told[name] <= high <= 1


def test_top5_looks_at_five_answers_and_no_more() -> None:
    ranked = np.array([[9, 8, 7, 6, 0, 1], [9, 8, 7, 6, 1, 0]])
    told = metrics.summary(Answers(np.array([0, 0]), ranked, np.full((2, 6), 0.1), np.ones(2, bool)), GROUP)
    assert (told["top1"], told["top5"]) == (0.0, 0.5)


def test_a_label_the_model_does_not_know_is_wrong_and_told_apart() -> None:
    told = metrics.summary(answers([0, UNKNOWN, UNKNOWN, UNKNOWN], [0, 2, 0, UNKNOWN - 1]), GROUP)
    assert told["top1"] == 0.25
    assert told["macro"] == 1.0  # of the classes that it knows
    assert told["tail"] is None  # not the last class, which index -1 would name
    assert told["unknown_labels"] == 3


def test_no_rows_give_no_figures_rather_than_zeros() -> None:
    told = metrics.summary(answers([], []), GROUP)
    assert told["rows"] == 0
    assert all(told[name] is None for name in ("top1", "top5", "macro", "head", "medium", "tail", "ece"))


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_holds_the_share_and_stays_within_0_and_1(rows: tuple[int, int]) -> None:
    right, n = rows
    low, high = metrics.wilson(right / n, n)
    assert 0 <= low <= right / n <= high <= 1
    assert high > low
    mirrored = metrics.wilson(1 - right / n, n)
    assert mirrored == pytest.approx([1 - high, 1 - low])


def test_wilson_interval_of_a_known_case() -> None:
    assert metrics.wilson(0.5, 100) == pytest.approx([0.4038, 0.5962], abs=1e-4)


@pytest.mark.parametrize("rows", [[1], [1, 2], [1, 2, 5, 10], [5], [1, 50]], ids=str)
def test_the_macro_interval_holds_the_truth_95_times_of_100(rows: list[int]) -> None:
    # Classes with a single row are the rule on real test splits; a bootstrap within classes holds it 0 to 60 times.
    random = np.random.default_rng(0)
    right = random.beta(2, 1, 60)
    target = np.repeat(np.arange(60), random.choice(rows, 60))
    held = 0
    for _ in range(400):
        low, high = metrics.macro(coin_answers(random, target, right))[1] or (1.0, 0.0)
        held += low <= right.mean() <= high
    assert held / 400 >= 0.93


@given(st.lists(st.integers(0, 6), min_size=1))
def test_row_weights_sum_to_one_and_treat_classes_alike(target: list[int]) -> None:
    weight = metrics.row_weight(np.array(target))
    assert weight.sum() == pytest.approx(1)
    sums = [weight[np.array(target) == c].sum() for c in set(target)]
    assert sums == pytest.approx([1 / len(sums)] * len(sums))


def test_calibration_error_of_a_model_that_is_as_sure_as_right_is_small() -> None:
    random = np.random.default_rng(0)
    sure = random.uniform(0.2, 1, 20_000)
    right = random.random(20_000) < sure
    honest = Answers(np.zeros(20_000, int), np.where(right, 0, 1)[:, None], sure[:, None], sure < 0.5)
    boaster = Answers(honest.target, honest.top, np.full((20_000, 1), 0.99), honest.refused)
    assert (metrics.calibration_error(honest) or 0) < 0.015
    assert metrics.calibration_error(boaster) == pytest.approx(0.99 - right.mean(), abs=1e-6)


def test_reliability_bins_hold_every_row_also_those_at_certainty() -> None:
    bins = metrics.reliability(answers([0, 0, 0], [0, 0, 1], [1.0, 0.0, 0.5]), 10)
    assert sum(b["rows"] for b in bins) == 3
    assert all(b["low"] <= b["confidence"] <= b["high"] for b in bins)


def test_risk_and_coverage_by_hand() -> None:
    told = answers([0, 0, 0, 0], [0, 1, 0, 1], [0.9, 0.8, 0.6, 0.3])  # right, wrong, right, wrong and refused
    assert metrics.risk(told) == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])
    figures = metrics.summary(told, GROUP)
    assert figures["aurc"] == pytest.approx((1 / 2 + 1 / 3 + 1 / 2) / 4)
    assert (figures["coverage"], figures["kept"]) == (0.75, pytest.approx(2 / 3))
    assert metrics.risk_coverage(told, 2) == [{"coverage": 0.25, "risk": 0.0}, {"coverage": 1.0, "risk": 0.5}]


pairs = st.lists(st.tuples(st.booleans(), st.sampled_from([0.1, 0.2, 0.5, 0.7, 1.0])), min_size=1)


@given(pairs, st.randoms())
def test_the_risk_ends_at_the_error_and_does_not_depend_on_the_order_of_rows(pairs: list, random: Any) -> None:
    def risk(pairs: list) -> np.ndarray:
        return metrics.risk(answers([0] * len(pairs), [int(not right) for right, _ in pairs], [p for _, p in pairs]))

    mixed = random.sample(pairs, len(pairs))
    assert risk(pairs) == pytest.approx(risk(mixed))
    assert risk(pairs)[-1] == pytest.approx(np.mean([not right for right, _ in pairs]))


@given(pairs)
def test_auroc_counts_the_pairs_in_which_the_known_row_is_surer(pairs: list) -> None:
    told = answers([0 if known else UNKNOWN for known, _ in pairs], [0] * len(pairs), [p for _, p in pairs])
    known, unknown = ([p for is_known, p in pairs if is_known is kind] for kind in (True, False))
    won = [(a > b) + (a == b) / 2 for a in known for b in unknown]
    assert metrics.auroc(told) == (pytest.approx(np.mean(won)) if won else None)


def test_unknown_rows_are_refused_or_not_and_leave_the_coverage_of_known_ones_alone() -> None:
    told = metrics.summary(
        answers([0, 0, UNKNOWN, UNKNOWN, UNKNOWN], [0, 0, 1, 1, 1], [0.9, 0.2, 0.8, 0.1, 0.1]), GROUP
    )
    assert told["refused"] == pytest.approx(2 / 3)
    assert (told["coverage"], told["kept"], told["aurc"]) == (0.5, 1.0, 0.0)
    low, high = told["ci95"]["refused"]
    assert low < 2 / 3 < high
    assert metrics.summary(answers([0], [0]), GROUP)["refused"] is None


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=20), st.integers(0, 1000))
def test_frequency_bins_hold_every_row_once_in_the_right_bin(count: list[int], seed: int) -> None:
    target = np.random.default_rng(seed).integers(0, len(count), 50)
    bins = metrics.by_frequency(answers(target.tolist(), target.tolist()), np.array(count))
    assert sum(b["rows"] for b in bins) == 50
    for b in bins:
        there = [c for c in set(target.tolist()) if b["low"] <= count[c] <= b["high"]]
        assert b["classes"] == len(there)
        assert b["rows"] == sum(int((target == c).sum()) for c in there)


def test_confusions_name_the_tail_classes_that_are_mistaken_most_often() -> None:
    told = metrics.confusions(answers([2, 2, 2, 2, 0, UNKNOWN], [0, 0, 1, 2, 1, 0]), GROUP)
    assert told[0] == {"true": 2, "given": 0, "rows": 2, "of": 4}
    assert told[1] == {"true": 2, "given": 1, "rows": 1, "of": 4}
    assert len(told) == 2


def test_a_paired_difference_is_sharper_than_two_intervals() -> None:
    random = np.random.default_rng(0)
    baseline = random.random(500) < 0.6
    model = baseline | (random.random(500) < 0.1)  # better here and there, never worse
    told = metrics.difference(model, baseline)
    assert told["difference"] == pytest.approx(model.mean() - baseline.mean())
    assert told["ci95"][0] > 0
    apart = [metrics.wilson(float(each.mean()), 500) for each in (model, baseline)]
    assert apart[0][0] < apart[1][1]  # the two intervals alone would not tell


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1))
def test_a_difference_turned_around_is_its_negative(pairs: list[tuple[bool, bool]]) -> None:
    a, b = np.array(pairs).T
    there, back = metrics.difference(a, b), metrics.difference(b, a)
    assert there["difference"] == pytest.approx(-back["difference"])
    assert there["ci95"] == pytest.approx([-back["ci95"][1], -back["ci95"][0]])


def test_seeds_that_disagree_widen_the_interval() -> None:
    baseline = np.zeros((3, 100), bool)
    same, apart = np.zeros((3, 100), bool), np.zeros((3, 100), bool)
    same[:, :20] = True
    apart[0, :50], apart[1, :10] = True, True
    width = [np.ptp(metrics.difference(model, baseline)["ci95"]) for model in (same, apart)]
    assert width[1] > 1.5 * width[0]


def test_rows_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="same rows"):
        metrics.difference(np.zeros(3, bool), np.zeros(4, bool))
