"""The pictures of a search."""

from __future__ import annotations

from collections.abc import Iterator
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
LABELS = {"finished": "trained to the end", "stopped": "stopped by ASHA"}
BEST = "#d9662b"


def draw(trials: list[Trial], front: list[Trial], ranges: dict[str, BaseDistribution]) -> Iterator[tuple[str, Figure]]:
    """File names and figures, each drawn when it is asked for.

    Args:
        trials: of the search; those under way have a curve, the others need at least one that has ended.
        front: those that none beats in both accuracies.
        ranges: of the settings.
    """
    yield "epochs.png", curves([trial for trial in trials if trial.epochs])
    ended = [trial for trial in trials if trial.ended]
    if not ended:
        return
    yield "best_so_far.png", best_so_far(ended)
    yield "front.png", overall_against_tail(ended, front)
    yield "settings.png", settings(ended, ranges)
    if len(ended) >= ENOUGH:
        yield "importance.png", importance(ended, ranges)


def curves(trials: list[Trial]) -> Figure:
    """Objective after each epoch, a line a trial; the best on top, trials under way dotted."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    whole = [trial for trial in trials if trial.state == "finished"]
    best = max(whole, key=_percent, default=None)
    for trial in trials:
        x, y = [epoch["epoch"] for epoch in trial.epochs], [100 * epoch["objective"] for epoch in trial.epochs]
        look: dict[str, Any]
        if trial is best:
            look = {"color": BEST, "linewidth": 1.8, "zorder": 4, "label": f"best, trial {trial.number}"}
        elif trial.number == 1:
            look = {"color": "#333", "linewidth": 1.2, "linestyle": "--", "zorder": 3, "label": "as it stands"}
        else:
            colour, style = COLOURS.get(trial.state, "#7a9"), "-" if trial.ended else ":"
            look = {"color": colour, "linewidth": 0.9, "linestyle": style, "alpha": 0.8}
        axes.plot(x, y, marker="." if len(x) == 1 else None, **look)
    axes.set(xlabel="epoch", ylabel="objective on validation, %")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8)
    _plain(axes)
    return figure


def overall_against_tail(trials: list[Trial], front: list[Trial]) -> Figure:
    """Overall against tail accuracy, and the line that no trial is beyond."""
    figure = Figure(figsize=(6, 4.4), layout="constrained")
    axes = figure.subplots()
    for state, label in LABELS.items():
        some = [trial for trial in trials if trial.state == state]
        points = 100 * np.array([trial.scores for trial in some]).reshape(-1, 2)
        axes.scatter(points[:, 0], points[:, 1], 26, COLOURS[state], label=label, zorder=2)
    if front:
        line = 100 * np.array([trial.scores for trial in front])
        axes.step(line[:, 0], line[:, 1], where="post", color=BEST, linewidth=1.5, marker="o", markersize=5,
                  label="front", zorder=3)  # fmt: skip
        for trial, (x, y) in zip(front, line, strict=True):
            axes.annotate(str(trial.number), (x, y), (4, 4), textcoords="offset points", fontsize=7)
    if trials[0].number == 1:
        x, y = (100 * score for score in trials[0].scores)
        axes.scatter([x], [y], 90, "none", edgecolors="#333", linewidths=1.2, label="as it stands", zorder=4)
    axes.set(xlabel="overall accuracy on validation, %", ylabel="tail accuracy on validation, %")
    axes.legend(frameon=False, fontsize=8)
    _plain(axes, "both")
    return figure


def best_so_far(trials: list[Trial]) -> Figure:
    """Objective of each trial, and the best of those trained to the end so far."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for state, label in LABELS.items():
        some = [trial for trial in trials if trial.state == state]
        axes.scatter([t.number for t in some], [_percent(t) for t in some], 30, COLOURS[state], label=label, zorder=3)
    whole = [_percent(trial) if trial.state == "finished" else -np.inf for trial in trials]
    best = np.maximum.accumulate(whole)
    axes.step([t.number for t in trials], best, where="post", color=BEST, linewidth=1.6, label="best so far")
    if trials[0].number == 1:
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
