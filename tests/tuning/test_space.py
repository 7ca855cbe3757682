"""What is searched: every sample is an experiment that can be trained, and where it stands is a sample too."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from sicot import config
from sicot.config import Attention, Experiment, Loss, Model
from sicot.search.space import Choice, Range, apply, describe, distributions, standing
from tuning.space import SPACE

weights = st.just(0.0) | st.floats(0.001, 50)


@st.composite
def experiments(draw: st.DrawFn) -> Experiment:
    """Any experiment a user may write down, ranges of the space or not."""
    loss = Loss(visual=draw(weights), mixed=draw(weights), text=draw(weights), distill=draw(weights),
                contrast=draw(weights), tau=draw(weights))  # fmt: skip
    if loss.visual + loss.mixed + loss.text == 0:
        loss = loss.model_copy(update={"visual": 1.0})
    if not loss.mixed:  # it has no teacher then
        loss = loss.model_copy(update={"distill": 0.0})
    attention = Attention(
        kind=draw(st.sampled_from(["bilinear", "linear", "mean"])),
        rank=draw(st.integers(0, 300)),
        null_word=draw(st.booleans()),
        temperature=draw(st.floats(0.001, 100)),
    )
    model = Model(
        attention=attention,
        fusion=draw(st.sampled_from(["sum", "mlp", "gate"])),
        classifier=draw(st.sampled_from(["cosine", "linear"])),
        scale=draw(st.floats(0.001, 100)),
        visual=config.Visual(dropout=draw(st.floats(0, 1))),
        word_dropout=draw(st.floats(0, 1)),
        loss=loss,
    )
    rates = {"learning_rate": draw(st.floats(1e-6, 1)), "weight_decay": draw(weights), "word_rate": draw(weights)}
    return Experiment(model=model, train=config.Train(**rates))


def values(each: BaseDistribution) -> st.SearchStrategy[object]:
    """Any value of the range, its ends more often than chance would."""
    if isinstance(each, CategoricalDistribution):
        return st.sampled_from(each.choices)
    assert isinstance(each, FloatDistribution)
    return st.floats(each.low, each.high) | st.sampled_from([each.low, each.high])


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_sample_is_a_valid_experiment_that_differs_in_what_was_sampled_alone(data: st.DataObject) -> None:
    experiment = data.draw(experiments())
    ranges = distributions(SPACE, experiment)
    point = {name: data.draw(values(each)) for name, each in ranges.items()}
    made = apply(experiment, point)
    assert standing(ranges, made) == point
    assert apply(made, standing(ranges, experiment)) == experiment


@settings(max_examples=150, deadline=None)
@given(experiments())
def test_where_an_experiment_stands_is_within_every_range(experiment: Experiment) -> None:
    ranges = distributions(SPACE, experiment)
    for name, value in standing(ranges, experiment).items():
        assert ranges[name]._contains(ranges[name].to_internal_repr(value)), name


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_what_is_switched_off_stays_off(data: st.DataObject) -> None:
    experiment = data.draw(experiments())
    ranges = distributions(SPACE, experiment)
    loss = apply(experiment, {name: data.draw(values(each)) for name, each in ranges.items()}).model.loss
    for part in ("visual", "mixed", "text"):
        assert (getattr(loss, part) > 0) == (getattr(experiment.model.loss, part) > 0)


def test_the_defaults_search_what_the_method_lists() -> None:
    assert {name.rsplit(".", 1)[-1] for name in distributions(SPACE, Experiment())} == {
        "temperature", "rank", "null_word", "word_dropout", "text_swap", "fusion",
        "visual", "mixed", "text", "distill", "contrast", "tau", "word_rate",
        "scale", "dropout", "learning_rate", "weight_decay",
    }  # fmt: skip


def test_settings_that_nothing_reads_are_not_searched() -> None:
    def names(**attention: object) -> set[str]:
        return set(distributions(SPACE, Experiment(model=Model(attention=Attention(**attention)))))  # type: ignore[arg-type]

    assert names(kind="bilinear") - names(kind="linear") == {"model.attention.rank"}
    assert not [name for name in names(kind="mean") if name.startswith("model.attention.")]
    always = {"model.loss.tau", "model.visual.dropout", "train.learning_rate", "train.weight_decay"}
    alone = Model().visual_only()
    assert set(distributions(SPACE, Experiment(model=alone))) == always | {"model.scale"}
    linear = alone.model_copy(update={"classifier": "linear"})
    assert set(distributions(SPACE, Experiment(model=linear))) == always


def test_the_space_is_told_a_line_a_setting_with_range_scale_value_and_why() -> None:
    head, *lines = describe(SPACE, Experiment()).splitlines()
    assert head.split() == ["setting", "range", "scale", "now", "why"]
    assert len(lines) == len(SPACE)
    for line, each in zip(lines, SPACE, strict=True):
        assert line.startswith(each.name)
        assert line.endswith(each.why)
    tau = next(line for line in lines if "tau" in line)
    assert re.search(r"0 to 1\.5 +linear +1 ", tau)
    *_, last = describe(SPACE, Experiment(model=Model().visual_only())).splitlines()
    assert last.startswith("not searched, as the model makes nothing of it: model.attention.temperature, ")


def test_a_setting_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="taau"):
        apply(Experiment(), {"model.loss.taau": 1.0})


@pytest.mark.parametrize("own", [0.5, 1.0, 7.0])
def test_a_range_is_widened_to_the_experiments_own_value(own: float) -> None:
    wide = Range(name="x", why="", low=1.0, high=3.0).distribution(own)
    assert isinstance(wide, FloatDistribution)
    assert (wide.low, wide.high) == (min(1.0, own), max(3.0, own))
    chosen = Choice(name="x", why="", values=(1.0, 3.0)).distribution(own)
    assert isinstance(chosen, CategoricalDistribution)
    assert set(chosen.choices) == {1.0, 3.0, own}
