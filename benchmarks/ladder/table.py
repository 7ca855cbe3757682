"""From single trainings to the ladder's table and curves."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks import record
from sicot.evaluate import metrics
from sicot.prepare.prepared import Classes
from sicot.train.compare import paired_difference

SHARES = ("top1", "head", "medium", "tail", "macro")
REGIMES = (
    "image",
    "image_text",
    "image_text_30_swapped",
    "image_title_nolabel",
    "image_title_nolabel_30_swapped",
    "text",
)


@dataclass(frozen=True)
class Measured:
    """What one training scored: by regime the shares in [0, 1], and accuracy by class frequency."""

    rung: str
    column: str
    scores: dict[str, dict[str, Any]]
    seconds: float


def score(labels: np.ndarray, first: np.ndarray, classes: Classes) -> dict[str, Any]:
    """Figures of one way of asking, from true and answered class of each row, int [N]: as in `Measured.scores`."""
    sure, refused = np.ones((len(first), 1)), np.zeros(len(first), bool)  # the ladder looks at neither
    answers = metrics.Answers(labels, first[:, None], sure, refused)
    said = metrics.summary(answers, classes.group)
    return {**{share: said[share] for share in SHARES}, "by_frequency": metrics.by_frequency(answers, classes.count)}


def rows(measured: list[Measured], columns: list[str]) -> list[dict[str, Any]]:
    """A row per rung and regime, means over its trainings in percent; ``ci95`` is the half-width of that of `all`."""
    return [
        {"rung": rung, "regime": regime, "trained_on": column, **_figures(results)}
        for (rung, regime, column), results in _named(measured, columns).items()
    ]


def _named(
    measured: list[Measured], columns: list[str]
) -> dict[tuple[str, str, str], list[tuple[dict[str, Any], float]]]:
    """Scores and seconds by rung, regime and the text column that was trained on.

    A regime's row is of the model trained on the column that it is asked with, the catalogue's own title where that
    is open. `default, one model` is the model of full titles, asked in every regime; answers without the column of
    the other model stand under `…, trained on …`.
    """
    found: dict[tuple[str, str, str], list[tuple[dict[str, Any], float]]] = defaultdict(list)
    for each in measured:
        for regime, scores in each.scores.items():
            result = (scores, each.seconds)
            foreign = regime == f"image_{columns[-1]}" and each.column != columns[-1]
            if each.rung == "default" and each.column == columns[0] and len(columns) > 1:
                found["default, one model", regime, each.column].append(result)
            if not foreign:
                own = each.column == columns[0] or regime.startswith(f"image_{each.column}")
                name = each.rung if own else f"{each.rung}, trained on {each.column}"
                found[name, regime, each.column].append(result)
    return found


def _figures(results: list[tuple[dict[str, Any], float]]) -> dict[str, Any]:
    values = {share: [scores[share] for scores, _ in results if scores[share] is not None] for share in SHARES}
    means = {share: round(100 * float(np.mean(each)), 1) if each else None for share, each in values.items()}
    return {
        "all": means.pop("top1"),
        **means,
        "ci95": round(100 * (paired_difference(values["top1"])["ci95"] or 0.0), 1),
        "seeds": len(results),
        "seconds": round(float(np.mean([seconds for _, seconds in results])), 1),
    }


def by_regime(rows: list[dict[str, Any]]) -> str:
    """One line a rung, all / tail in each regime: what a person reads first."""
    regimes = [regime for regime in REGIMES if any(row["regime"] == regime for row in rows)]
    lines: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["regime"] in regimes:
            line = lines.setdefault(row["rung"], {"all / tail, %": row["rung"], **dict.fromkeys(regimes, "")})
            line[row["regime"]] = f"{row['all']} ± {row['ci95']} / {row['tail']}"
    return "\n" + record.table(list(lines.values()))


def curves(measured: list[Measured], columns: list[str]) -> dict[str, dict[float, float]]:
    """Top-1 by training rows of a class, the mean over trainings, under "rung: regime" as in :func:`rows`."""
    drawn = {}
    for (rung, regime, _), results in _named(measured, columns).items():
        found: dict[float, list[float]] = defaultdict(list)
        for scores, _ in results:
            for part in scores["by_frequency"]:
                found[(max(part["low"], 0.5) * max(part["high"], 0.5)) ** 0.5].append(part["top1"])
        drawn[f"{rung}: {regime}"] = {x: float(np.mean(y)) for x, y in sorted(found.items())}
    return drawn
