"""What earlier searches have found is known to a new one: which of it, and how it is told apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from sicot import track
from sicot.config import Experiment, Track, Tune
from sicot.errors import UserError
from sicot.search import warm
from sicot.search.space import Point, distributions, standing
from tuning.space import SPACE

MEASURE = "0.5 overall + 0.5 tail after 3 epochs on abc"


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    return Experiment(storage=str(tmp_path), name="shop", track=Track(experiment="shop"))


def searched(experiment: Experiment, points: list[Point], measure: str = MEASURE, whole: bool = True) -> str:
    """A search in MLflow as one leaves it, a trial for each point, each better than the one before."""
    with track.run(experiment, "search", experiment.name, tags={"sicot.measure": measure}) as parent:
        for number, point in enumerate(points, 1):
            with track.run(experiment, "trial", f"trial {number}", parent=parent, params=point) as run:
                scores = {"objective": number / 10, "overall": number / 10, "tail": number / 10}
                run.metrics(scores if whole else {"objective": 0.1}, step=3)
    return parent.id


def asking(experiment: Experiment, what: str) -> Experiment:
    return experiment.model_copy(update={"tune": Tune(warm_start=what)})


def test_the_same_search_again_knows_every_trial(experiment: Experiment, capsys: pytest.CaptureFixture[str]) -> None:
    ranges = distributions(SPACE, experiment)
    first = standing(ranges, experiment)
    points = [first, {**first, "model.fusion": "gate", "model.loss.tau": 0.25, "model.attention.null_word": False}]
    own = searched(experiment, points)
    searched(experiment, points[:1], measure="of other data")
    known, tips = warm.start(asking(experiment, "same"), ranges, MEASURE, own="")
    assert [each.point for each in known] == points or [each.point for each in known] == points[::-1]
    assert {each.scores["objective"] for each in known} == {0.1, 0.2}
    assert tips == []
    assert "warm start: 2 trials of 1 earlier searches are known" in capsys.readouterr().out
    assert warm.start(asking(experiment, "same"), ranges, MEASURE, own=own) == ([], [])


def test_of_other_data_the_best_points_are_tried_first(experiment: Experiment) -> None:
    ranges = distributions(SPACE, experiment)
    first = standing(ranges, experiment)
    points = [{**first, "model.loss.tau": tau} for tau in (0.1, 0.2, 0.3, 0.4, 0.5)]
    run_id = searched(experiment, points, measure="of other data")
    known, tips = warm.start(asking(experiment, run_id), ranges, MEASURE, own="")
    assert known == []
    assert tips == points[:1:-1]  # the best three, the best first


def test_points_outside_todays_ranges_and_halves_are_left_out(
    experiment: Experiment, capsys: pytest.CaptureFixture[str]
) -> None:
    ranges = distributions(SPACE, experiment)
    first = standing(ranges, experiment)
    outside = [{**first, "model.loss.tau": 7.0}, {**first, "model.attention.rank": 33}]
    run_id = searched(experiment, [first, *outside])
    known, _ = warm.start(asking(experiment, run_id), ranges, MEASURE, own="")
    assert [each.point for each in known] == [first]
    assert "2 lie outside today's ranges" in capsys.readouterr().out
    halves = searched(experiment, [first], whole=False)
    assert warm.start(asking(experiment, halves), ranges, MEASURE, own="") == ([], [])


def test_a_setting_that_was_not_searched_then_has_the_value_it_had(experiment: Experiment) -> None:
    ranges = distributions(SPACE, experiment)
    first = standing(ranges, experiment)
    run_id = searched(experiment, [{"model.loss.tau": 0.5}])
    known, _ = warm.start(asking(experiment, run_id), ranges, MEASURE, own="")
    assert [each.point for each in known] == [{**first, "model.loss.tau": 0.5}]


def test_a_run_that_is_no_search_is_refused_in_a_line(experiment: Experiment) -> None:
    ranges = distributions(SPACE, experiment)
    with track.run(experiment, "train", "shop") as run:
        pass
    for wrong in (run.id, "0" * 32, "nonsense"):
        with pytest.raises(UserError, match=rf"tune\.warm_start: there is no search with the run id '{wrong}'"):
            warm.start(asking(experiment, wrong), ranges, MEASURE, own="")


def test_nothing_is_known_where_nothing_was_asked_for(experiment: Experiment) -> None:
    assert warm.start(experiment, {}, MEASURE, own="") == ([], [])
