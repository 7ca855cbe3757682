"""What is kept of a search: who is best, what the front is, what was spent, what is left."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sicot.config import Tune
from sicot.errors import UserError
from sicot.search.book import Book, Spent, State, Trial
from sicot.search.budget import Budget

scores = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=30)


def trial(number: int, overall: float, tail: float, state: State = "finished", weight: float = 0.5) -> Trial:
    objective = (1 - weight) * overall + weight * tail
    epoch = {"epoch": 1.0, "overall": overall, "tail": tail, "objective": objective}
    return Trial(number=number, point={"x": number}, state=state, epochs=[epoch])


def book(folder: Path, *trials: Trial) -> Book:
    made = Book(f"{folder}/trials.json", "these")
    made.trials = list(trials)
    return made


@given(scores, st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_the_front_is_what_no_trial_beats_and_the_best_is_on_it(points: list[tuple[int, int]], weight: float) -> None:
    trials = [trial(number, overall, tail, weight=weight) for number, (overall, tail) in enumerate(points, 1)]
    made = book(Path("/nowhere"), *trials)
    front = [each.scores for each in made.front]
    for overall, tail in points:
        beaten = any(a >= overall and b >= tail and (a, b) != (overall, tail) for a, b in points)
        assert ((overall, tail) in front) == (not beaten)
    assert len(set(front)) == len(front)
    assert made.best is not None
    assert made.best.objective == max(each.objective or 0.0 for each in trials)
    assert made.best.scores in front


def test_only_trials_trained_to_the_end_are_compared(tmp_path: Path) -> None:
    made = book(tmp_path, trial(1, 0.5, 0.5), trial(2, 0.9, 0.9, "stopped"), trial(3, 0.8, 0.8, "cut"))
    assert made.best is made.trials[0]
    assert [each.number for each in made.front] == [1]
    assert [each.number for each in made.ended] == [1, 2]
    assert [each.number for each in made.left] == [3]


def test_a_book_is_read_again_as_it_was_written(tmp_path: Path) -> None:
    made = book(tmp_path)
    first = made.start({"x": 1})
    made.epoch(first, {"epoch": 1, "overall": 0.1, "tail": 0.2, "objective": 0.15})
    made.epoch(first, {"epoch": 2, "overall": 0.3, "tail": 0.4, "objective": 0.35})
    made.epoch(first, {"epoch": 2, "overall": 0.3, "tail": 0.6, "objective": 0.45})  # said again
    made.spent.seconds = 7.5
    made.end(first, "finished")
    again = Book(made.file, "these")
    assert again.trials == made.trials
    assert (len(again.trials[0].epochs), again.trials[0].after, again.spent.seconds) == (2, 2, 7.5)
    with pytest.raises(UserError, match="other settings"):
        Book(made.file, "those")


def test_a_trial_that_was_cut_is_taken_up_under_its_number(tmp_path: Path) -> None:
    made = book(tmp_path, trial(1, 0.5, 0.5), trial(2, 0.6, 0.6, "cut"))
    assert made.start({"x": 2}).number == 2
    assert made.start({"x": 9}).number == 3


def test_time_and_gpu_hours_are_counted_on_what_was_spent_before() -> None:
    spent = Spent(seconds=59.9, gpu_seconds=10.0)
    budget = Budget(Tune(minutes=1), 0.25, spent)
    budget.running = 2
    assert not budget.over
    time.sleep(0.2)
    assert budget.stop_all()
    assert spent.seconds == pytest.approx(60.1, abs=0.1)
    assert spent.gpu_seconds == pytest.approx(10.1, abs=0.05)
    assert "of 1 minutes" in str(budget)


def test_the_first_budget_that_is_used_up_ends_the_search() -> None:
    spent = Spent(seconds=100.0, gpu_seconds=3601.0)
    assert Budget(Tune(minutes=60, gpu_hours=1), 1.0, spent).over
    assert not Budget(Tune(minutes=60, gpu_hours=2), 1.0, spent).over
    assert not Budget(Tune(trials=1), 1.0, Spent(seconds=1e9)).over
    assert Budget(Tune(minutes=3), 0.0, spent, share=0.5).over  # the other half is for training in full


def test_a_trial_ends_with_its_last_epoch() -> None:
    budget = Budget(Tune(epochs=3), 0.0, Spent())
    assert [budget("", {"epoch": epoch}) for epoch in (1, 2, 3)] == [False, False, True]
