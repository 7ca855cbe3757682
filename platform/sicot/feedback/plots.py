"""The picture of an experiment."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

COLOURS = {"champion": "#3b6fb6", "challenger": "#d9662b"}


def measures(figures: dict[str, Any]) -> Figure:
    """Each measure by group, with 95 % intervals; one colour an arm, the older a version the paler."""
    versions = figures["versions"]
    names = list(versions[0]["measures"])
    groups = list(dict.fromkeys(group for each in versions for group in each["measures"][names[0]]))
    figure = Figure(figsize=(9.5, 1.6 + 0.22 * len(groups) * max(2, len(versions))), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), sharey=True), names, strict=True):
        for place, each in enumerate(versions):
            shares = each["measures"][name]
            rows = [n for n, group in enumerate(groups) if group in shares and shares[group]["share"] is not None]
            x = np.array([100 * shares[groups[n]]["share"] for n in rows])
            low, high = (np.array([100 * shares[groups[n]]["ci95"][side] for n in rows]) for side in (0, 1))
            y = np.array(rows) + 0.7 * ((place + 0.5) / len(versions) - 0.5)
            axes.errorbar(
                x, y, xerr=[x - low, high - x], fmt="o", markersize=5, capsize=2.5, color=COLOURS[each["arm"]],
                alpha=_age(versions, place), label=f"{each['arm']} {each['version']}",
            )  # fmt: skip
        axes.set(xlabel=f"{name}, %", yticks=range(len(groups)), yticklabels=groups, ylim=(len(groups) - 0.5, -0.5))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", color="#ddd", linewidth=0.6)
        axes.set_axisbelow(True)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=4, frameon=False, fontsize=9)
    return figure


def _age(versions: list[dict[str, Any]], place: int) -> float:
    """Opaque for the newest version of an arm."""
    later = sum(each["arm"] == versions[place]["arm"] for each in versions[place + 1 :])
    return max(0.3, 1 - 0.35 * later)
