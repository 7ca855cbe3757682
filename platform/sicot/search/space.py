"""What can be searched: settings by their dotted names, the range of each, and how a sample becomes an experiment."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import reduce
from operator import getitem
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from sicot.config import Experiment

Point = dict[str, Any]
"""One sample: a value by the dotted name of its setting, such as ``{"model.loss.tau": 0.8}``."""


@dataclass(frozen=True, kw_only=True)
class Dimension(ABC):
    """One setting that is searched."""

    name: str
    """Dotted name in the config."""
    why: str
    """What the setting decides, in a sentence."""
    when: Callable[[Experiment], bool] = lambda experiment: True
    """Whether searching it makes sense for an experiment."""

    @abstractmethod
    def distribution(self, own: Any) -> BaseDistribution:
        """Optuna's range; it always holds ``own``, the experiment's value, as that is what the first trial runs."""


@dataclass(frozen=True, kw_only=True)
class Range(Dimension):
    """Any number from `low` to `high`."""

    low: float
    high: float
    log: bool = False
    """Sample ratios alike (0.1 to 1 as often as 1 to 10)."""

    def distribution(self, own: float) -> BaseDistribution:
        return FloatDistribution(min(self.low, own), max(self.high, own), log=self.log)


@dataclass(frozen=True, kw_only=True)
class Choice(Dimension):
    """One of some values."""

    values: tuple[Any, ...]

    def distribution(self, own: Any) -> BaseDistribution:
        return CategoricalDistribution(self.values if own in self.values else (*self.values, own))


def distributions(space: Iterable[Dimension], experiment: Experiment) -> dict[str, BaseDistribution]:
    """Optuna's distribution of each setting that makes sense for the experiment, by dotted name."""
    return {each.name: each.distribution(_get(experiment, each.name)) for each in space if each.when(experiment)}


def standing(names: Iterable[str], experiment: Experiment) -> Point:
    """The point where the experiment stands."""
    return {name: _get(experiment, name) for name in names}


def apply(experiment: Experiment, point: Point) -> Experiment:
    """The experiment with the point's values, validated."""
    values = experiment.model_dump(mode="json")
    for name, each in point.items():
        *sections, setting = name.split(".")
        reduce(getitem, sections, values)[setting] = each
    return type(experiment)(**values)


def describe(space: Iterable[Dimension], experiment: Experiment) -> str:
    """A line for each setting that is searched: its range, scale and value, and why; then what is not searched."""
    lines, left = [], []
    for each in space:
        if not each.when(experiment):
            left.append(each.name)
            continue
        own = _get(experiment, each.name)
        range_, scale = _said(each.distribution(own))
        lines.append(f"{each.name:<28} {range_:<26} {scale:<8} {value(own):<10} {each.why}")
    head = f"{'setting':<28} {'range':<26} {'scale':<8} {'now':<10} why"
    tail = [f"not searched, as the model makes nothing of it: {', '.join(left)}"] if left else []
    return "\n".join([head, *lines, *tail])


def _said(each: BaseDistribution) -> tuple[str, str]:
    """Range and scale."""
    if isinstance(each, CategoricalDistribution):
        return ", ".join(map(value, each.choices)), "choice"
    assert isinstance(each, FloatDistribution)
    return f"{value(each.low)} to {value(each.high)}", "log" if each.log else "linear"


def value(of: Any) -> str:
    """A setting's value, short."""
    if isinstance(of, bool):
        return "on" if of else "off"
    return f"{of:.3g}" if isinstance(of, float) else str(of)


def _get(experiment: Experiment, name: str) -> Any:
    return reduce(getattr, name.split("."), experiment)
