"""What is tried next: points given first, then what the sampler makes of what is known."""

from __future__ import annotations

import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import TPESampler
from optuna.trial import TrialState

from sicot.config import Tune
from sicot.search.proposals import AIMS, Known, proposing, tpe
from sicot.search.space import Point

RANGES: dict[str, BaseDistribution] = {
    "x": FloatDistribution(0.0, 1.0),
    "kind": CategoricalDistribution(["sum", "mlp"]),
}


def known(x: float, overall: float, tail: float) -> Known:
    scores = {"objective": (overall + tail) / 2, "overall": overall, "tail": tail}
    return Known({"x": x, "kind": "sum"}, scores, [0.1, scores["objective"]])


@pytest.mark.parametrize("aim", AIMS)
def test_given_points_come_first_and_what_is_known_is_told(aim: str) -> None:
    first: list[Point] = [{"x": 0.25, "kind": "mlp"}, {"x": 0.75, "kind": "sum"}]
    search = proposing(AIMS[aim], RANGES, [known(0.1, 0.4, 0.2), known(0.9, 0.8, 0.6)], first, tpe(Tune(), 0))
    assert [search.suggest("a"), search.suggest("b")] == first
    study = search._ot_study
    told = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    values = [pytest.approx(trial.values) for trial in told]
    assert values == ([[0.3], [0.7]] if aim == "weighted" else [[0.4, 0.2], [0.8, 0.6]])
    search.on_trial_complete("a", {"objective": 0.5, "overall": 0.6, "tail": 0.4})
    assert study.trials[2].values == ([0.5] if aim == "weighted" else [0.6, 0.4])


@pytest.mark.parametrize("aim", AIMS)
def test_proposals_go_where_it_was_good(aim: str) -> None:
    """Outcomes rise with x in both accuracies: so does what is proposed."""
    points = [known(i / 20, i / 20, i / 20) for i in range(20)]
    search = proposing(AIMS[aim], RANGES, points, [], tpe(Tune(trials=40), 20))
    drawn = [search.suggest(str(number))["x"] for number in range(12)]
    assert sum(drawn) / len(drawn) > 0.65
    assert len(set(drawn)) == len(drawn)


def test_the_sampler_looks_at_all_settings_at_once_and_at_trials_under_way() -> None:
    sampler = tpe(Tune(trials=6), 0)
    assert isinstance(sampler, TPESampler)
    assert (sampler._multivariate, sampler._constant_liar, sampler._n_startup_trials) == (True, True, 3)


def test_another_start_does_not_propose_the_same_again() -> None:
    drawn = [proposing(["objective"], RANGES, [], [], tpe(Tune(), begun)).suggest("a") for begun in (0, 5)]
    assert drawn[0] != drawn[1]
