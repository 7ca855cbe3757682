"""What was found against the defaults, and how many epochs it takes to find as good a point."""

from __future__ import annotations

from matplotlib.figure import Figure

from benchmarks.search.again import DEFAULTS, FOUND, SPLITS, Again, means, weights
from benchmarks.search.searches import ASHA, RANDOM, TPE, Races

COLOURS = {RANDOM: "#999999", ASHA: "#3b6fb6", TPE: "#d9662b"}


def draw(trained: list[Again], races: Races, title: str) -> Figure:
    """The figure: objective by seed on the left, best so far by epochs on the right."""
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2, 3))
    places = [(weight, split) for weight in weights(trained) for split in SPLITS]
    for place, (weight, split) in enumerate(places):
        for shift, what, label, colour in ((-0.15, None, DEFAULTS, "#999999"), (0.15, weight, FOUND, "#d9662b")):
            values = means(trained, what, split, lambda each, weight=weight: each.objective(weight))
            left.scatter([place + shift] * len(values), values, 24, colour, label=label if place == 0 else None)
            left.hlines(sum(values) / len(values), place + shift - 0.1, place + shift + 0.1, colour)
    left.set_xticks(range(len(places)), [f"{split}\ntail weight {weight:g}" for weight, split in places], fontsize=8)
    left.set(ylabel="objective, %", xlim=(-0.6, len(places) - 0.4), title=f"{title}: trained again, a point a seed")
    for ways in races.by_seed():
        for way, one in ways.items():
            epochs, best = zip(*one.curve(), strict=True)
            label = way if one.seed == 0 else None
            right.step(
                epochs, [100 * each for each in best], where="post", color=COLOURS[way], linewidth=1.4, label=label
            )
    right.set(xlabel="epochs trained by all trials", ylabel="best objective on validation, %", title="a line a seed")
    for axes in (left, right):
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, fontsize=8)
    return figure
