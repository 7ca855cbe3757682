"""The pictures of a search."""

from __future__ import annotations

from typing import Any

import numpy as np
import optuna
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from sicot.search.book import Trial

ENOUGH = 10  # trials below which importances are noise
COLOURS = {"finished": "#3b6fb6", "stopped": "#b9c4d4"}


def draw(trials: list[Trial], ranges: dict[str, BaseDistribution]) -> dict[str, Figure]:
    """Figures by file name, of the trials that have a result."""
    ended = [trial for trial in trials if trial.ended]
    figures = {"best_so_far.png": best_so_far(ended), "settings.png": settings(ended, ranges)}
    if len(ended) >= ENOUGH:
        figures["importance.png"] = importance(ended, ranges)
    return figures


def best_so_far(trials: list[Trial]) -> Figure:
    """Objective of each trial, and the best of those trained to the end so far."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for state, label in (("finished", "trained to the end"), ("stopped", "stopped by ASHA")):
        some = [trial for trial in trials if trial.state == state]
        axes.scatter([t.number for t in some], [_percent(t) for t in some], 30, COLOURS[state], label=label, zorder=3)
    whole = [_percent(trial) if trial.state == "finished" else -np.inf for trial in trials]
    best = np.maximum.accumulate(whole)
    axes.step([t.number for t in trials], best, where="post", color="#d9662b", linewidth=1.6, label="best so far")
    axes.axhline(_percent(trials[0]), color="#999", linewidth=1, linestyle="--", label="as it stands")
    axes.set(xlabel="trial", ylabel="objective on validation, %")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize=8)
    _plain(axes)
    return figure


def settings(trials: list[Trial], ranges: dict[str, BaseDistribution]) -> Figure:
    """Parallel coordinates: one line a trial through its settings, the brighter the better; dashed as it stands."""
    figure = Figure(figsize=(max(6, 1.05 * len(ranges)), 4.2), layout="constrained")
    axes = figure.subplots()
    values = np.array([_percent(trial) for trial in trials])
    norm = (values - values.min()) / max(float(np.ptp(values)), 1e-9)
    for place in np.argsort(values):  # the best on top
        trial = trials[place]
        heights = [_height(each, trial.point[name]) for name, each in ranges.items()]
        axes.plot(heights, color=colormaps["viridis_r"](norm[place]), linewidth=0.8 + 1.6 * norm[place],
                  linestyle="--" if trial.number == 1 else "-")  # fmt: skip
    for x, each in enumerate(ranges.values()):
        axes.axvline(x, color="#ccc", linewidth=0.8, zorder=0)
        for height, text in _marks(each):
            axes.annotate(text, (x, height), (3, 0), textcoords="offset points", fontsize=7, color="#333", va="center",
                          bbox={"color": "white", "alpha": 0.8, "pad": 0.8})  # fmt: skip
    axes.set_xticks(range(len(ranges)), [_short(name) for name in ranges], fontsize=7.5)
    axes.set(yticks=[], ylim=(-0.06, 1.06))
    axes.set_title("Settings of the trials: the darker, the better the objective; dashed: as it stands", fontsize=10,
                   loc="left")  # fmt: skip
    axes.spines[:].set_visible(False)
    return figure


def importance(trials: list[Trial], ranges: dict[str, BaseDistribution]) -> Figure:
    """How much of the objective's variation each setting accounts for (PED-ANOVA)."""
    study = optuna.create_study(direction="maximize")
    for trial in trials:
        study.add_trial(optuna.create_trial(params=trial.point, distributions=ranges, value=trial.objective))
    shares = optuna.importance.get_param_importances(study)
    figure = Figure(figsize=(6, 0.6 + 0.3 * len(shares)), layout="constrained")
    axes = figure.subplots()
    axes.barh(list(shares), [100 * share for share in shares.values()], color=COLOURS["finished"], height=0.7)
    axes.invert_yaxis()
    axes.set(xlabel="share of the importance, %")
    axes.tick_params(labelsize=8)
    _plain(axes, "x")
    return figure


def _height(each: BaseDistribution, value: Any) -> float:
    """Where a value stands between 0 and 1 on its axis."""
    if isinstance(each, CategoricalDistribution):
        return each.choices.index(value) / max(1, len(each.choices) - 1)
    assert isinstance(each, FloatDistribution)
    scale = np.log if each.log else float
    return float((scale(value) - scale(each.low)) / (scale(each.high) - scale(each.low)))


def _marks(each: BaseDistribution) -> list[tuple[float, str]]:
    values = each.choices if isinstance(each, CategoricalDistribution) else (each.low, each.high)  # type: ignore[attr-defined]
    return [(_height(each, value), f"{value:.3g}" if isinstance(value, float) else str(value)) for value in values]


def _short(name: str) -> str:
    *_, section, setting = name.split(".")
    return f"{section}\n{setting}"


def _percent(trial: Trial) -> float:
    return 100 * (trial.objective or 0.0)


def _plain(axes: Axes, grid: str = "y") -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color="#ddd", linewidth=0.6)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
