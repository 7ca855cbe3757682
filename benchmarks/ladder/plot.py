"""Accuracy against class frequency, the rungs that matter in one picture."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

SHOWN: dict[str, dict[str, Any]] = {
    "0 visual, CE: image": {"color": "#999999", "linestyle": ":", "label": "visual, cross-entropy"},
    "1 visual, logit-adjusted: image": {"color": "#3b6fb6", "linestyle": "--", "label": "visual, logit-adjusted"},
    "default: image": {"color": "#3b6fb6", "marker": "o", "label": "shipped, photo alone"},
    "default: image_title_nolabel": {
        "color": "#4c9a57",
        "marker": "^",
        "label": "shipped, photo + title without label",
    },
    "default: image_text": {"color": "#d9662b", "marker": "s", "label": "shipped, photo + title"},
}


def draw(curves: dict[str, dict[float, float]], title: str) -> Figure:
    """The figure; ``curves`` hold top-1 by training rows of the class, under "rung: regime"."""
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axes = figure.subplots()
    for name, look in SHOWN.items():
        if name in curves:
            axes.plot(list(curves[name]), [100 * value for value in curves[name].values()], linewidth=1.6, **look)
    axes.set(xscale="log", ylim=(0, 103), title=title, xlabel="training rows of the class", ylabel="top-1, %")
    axes.grid(alpha=0.25)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
    return figure
