"""The pictures of a report."""

from __future__ import annotations

import logging
from itertools import pairwise
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

matplotlib.rcParams["font.family"] = [
    "DejaVu Sans",
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "PingFang SC",
    "Microsoft YaHei",
]
logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # fonts that are not there

LOOK: dict[str, dict[str, Any]] = {
    "image": {"label": "photo alone", "color": "#3b6fb6", "marker": "o"},
    "image_text": {"label": "photo + words", "color": "#d9662b", "marker": "s"},
    "text": {"label": "words alone", "color": "#4c9a57", "marker": "^"},
}
BANDS = {"enrolled": "#eee6f2", "tail": "#f6e7dc", "medium": "#f4f2ea", "head": "#e6edf5"}


def draw(report: dict[str, Any]) -> dict[str, Figure]:
    """Figures by file name."""
    figures = {
        "accuracy_by_frequency.png": accuracy_by_frequency(report),
        "reliability.png": reliability(report),
        "risk_coverage.png": risk_coverage(report),
    }
    if any(report["tail_confusions"].values()):
        figures["tail_confusions.png"] = tail_confusions(report)
    return figures


def accuracy_by_frequency(report: dict[str, Any]) -> Figure:
    """Top-1 of the rows of classes with so many training rows; the bands are head, medium and tail."""
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axes = figure.subplots()
    regimes = [regime for regime in ("image", "image_text") if regime in report["by_frequency"]]
    for place, regime in enumerate(regimes):
        bins = report["by_frequency"][regime]
        x = np.array([np.sqrt(max(b["low"], 0.5) * max(b["high"], 0.5)) for b in bins])
        x *= 1.04 ** (2 * place - len(regimes) + 1)  # side by side
        y = np.array([b["top1"] for b in bins]) * 100
        low, high = (np.array([b["ci95"][side] for b in bins]) * 100 for side in (0, 1))
        axes.errorbar(x, y, [y - low, high - y], linewidth=1.6, elinewidth=1, capsize=2.5, markersize=5, **LOOK[regime])
    for b in report["by_frequency"][regimes[0]] if regimes else []:
        middle = np.sqrt(max(b["low"], 0.5) * max(b["high"], 0.5))
        axes.annotate(
            f"{b['rows']}", (middle, 0), (0, 3), textcoords="offset points", ha="center", fontsize=7, color="#777"
        )
    axes.set(xscale="log", ylim=(0, 107), ylabel="top-1, %", yticks=range(0, 101, 20))
    axes.set_xlabel("training rows of the class  (bars: 95 % intervals; small figures: rows asked)")
    axes.set_xticks(ticks := _ticks(axes), [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    _bands(axes, report["groups"])
    _head(figure, axes, "Accuracy against frequency")
    return figure


def reliability(report: dict[str, Any]) -> Figure:
    """How often the model is right when it is so sure; below, how often it is so sure."""
    figure = Figure(figsize=(5, 5.6), layout="constrained")
    axes, below = figure.subplots(2, 1, height_ratios=[3, 1], sharex=True)
    axes.plot([0, 100], [0, 100], color="#999", linewidth=1, linestyle="--", label="as sure as right")
    regimes = report["reliability"]
    for place, (regime, bins) in enumerate(regimes.items()):
        look, width = LOOK[regime], (bins[0]["high"] - bins[0]["low"]) * 100 / (len(regimes) + 0.5)
        share = np.array([b["rows"] for b in bins]) / sum(b["rows"] for b in bins) * 100
        below.bar([b["low"] * 100 + place * width for b in bins], share, width, align="edge", color=look["color"])
        told = [b for b, rows in zip(bins, share, strict=True) if rows >= 1]  # fewer rows only make noise
        label = f"{look['label']}, ECE {report['metrics'][regime]['ece'] * 100:.1f}"
        x, y = ([100 * b[name] for b in told] for name in ("confidence", "accuracy"))
        axes.plot(x, y, color=look["color"], marker=look["marker"], linewidth=1.4, markersize=5, label=label)
    axes.set(ylim=(0, 103), xlim=(0, 100), ylabel="right, %", yticks=range(0, 101, 20))
    below.set(xlabel="probability given to the first answer, %\n(above: bins with 1 % of the rows or more)")
    below.set(ylabel="rows, %")
    _plain(below)
    _head(figure, axes, "Do the probabilities mean what they say?")
    return figure


def risk_coverage(report: dict[str, Any]) -> Figure:
    """How often the answers that are kept are wrong when the less sure ones are refused; a ring at the threshold."""
    figure = Figure(figsize=(6, 4.6), layout="constrained")
    axes = figure.subplots()
    for regime, points in report["risk_coverage"].items():
        figures, look = report["metrics"][regime], LOOK[regime]
        if not points:
            continue
        x, y = ([100 * point[name] for point in points] for name in ("coverage", "risk"))
        axes.plot(x, y, color=look["color"], linewidth=1.6, label=f"{look['label']}, AURC {figures['aurc'] * 100:.1f}")
        if figures["kept"] is not None:
            at = (100 * figures["coverage"], 100 - 100 * figures["kept"])
            axes.plot(*at, "o", color=look["color"], markersize=8, markerfacecolor="none", markeredgewidth=1.6)
    axes.set(xlim=(0, 101), ylabel="wrong among them, %", xlabel="rows that are answered, %  (rings: at the threshold)")
    axes.set_ylim(bottom=0)
    _head(figure, axes, "What refusing the least sure answers saves")
    return figure


def tail_confusions(report: dict[str, Any], most: int = 12) -> Figure:
    """What tail classes are mistaken for most often, one panel per way of asking by photo."""
    panels = {r: pairs[:most] for r, pairs in report["tail_confusions"].items() if pairs and r != "text"}
    panels = panels or {r: pairs[:most] for r, pairs in report["tail_confusions"].items() if pairs}
    figure = Figure(figsize=(8, 1 + 0.27 * sum(map(len, panels.values())) + 0.8 * len(panels)), layout="constrained")
    all_axes = figure.subplots(
        len(panels), 1, sharex=True, squeeze=False, height_ratios=[len(p) for p in panels.values()]
    )
    for axes, (regime, pairs) in zip(all_axes[:, 0], panels.items(), strict=True):
        share = [100 * pair["rows"] / pair["of"] for pair in pairs]
        axes.barh(range(len(pairs)), share, color=LOOK[regime]["color"], height=0.7)
        axes.set_yticks(range(len(pairs)), [f"{_short(p['true'])} → {_short(p['given'])}" for p in pairs], fontsize=8)
        for row, (value, pair) in enumerate(zip(share, pairs, strict=True)):
            text = f"{pair['rows']} of {pair['of']}"
            axes.annotate(
                text, (value, row), (4, 0), textcoords="offset points", va="center", fontsize=7.5, color="#555"
            )
        axes.invert_yaxis()
        axes.set(xlim=(0, 112), xticks=range(0, 101, 20))
        axes.set_title(f"Tail classes mistaken for others: {LOOK[regime]['label']}", fontsize=10, loc="left")
        _plain(axes, "x")
    all_axes[-1, 0].set_xlabel("share of the true class's rows, %")
    return figure


def _bands(axes: Axes, groups: dict[str, Any]) -> None:
    """Shade head, medium and tail, halfway between their outermost classes."""
    there = [(name, groups[name]) for name in BANDS if name in groups and groups[name]["classes"]]
    edges = [axes.get_xlim()[0]]
    edges += [float(np.sqrt(max(a["high"], 0.5) * b["low"])) for (_, a), (_, b) in pairwise(there)]
    edges += [axes.get_xlim()[1]]
    for (name, _), low, high in zip(there, edges[:-1], edges[1:], strict=True):
        axes.axvspan(low, high, color=BANDS[name], zorder=0, linewidth=0)
        axes.text(np.sqrt(low * high), 106, name, ha="center", va="top", fontsize=9, color="#777")
    axes.set_xlim(edges[0], edges[-1])


def _head(figure: Figure, axes: Axes, title: str) -> None:
    """Title and legend above the axes, where they hide nothing."""
    handles, labels = axes.get_legend_handles_labels()
    legend = figure.legend(
        handles, labels, loc="outside upper left", ncols=2, frameon=False, title=title, alignment="left", fontsize=9
    )
    legend.get_title().set_fontsize(11)
    _plain(axes)


def _ticks(axes: Axes) -> list[float]:
    low, high = axes.get_xlim()
    return [tick for tick in (b * 10**e for e in range(-1, 8) for b in (1, 2, 5)) if low <= tick <= high and tick >= 1]


def _plain(axes: Axes, grid: str = "y") -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color="#ddd", linewidth=0.6)  # type: ignore[arg-type]
    axes.set_axisbelow(True)


def _short(text: str, most: int = 32) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
