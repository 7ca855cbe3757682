"""How good answers are: plain numpy, no Ray, no files.

N rows, K ranked classes of an answer, C classes, S seeds. A share of N rows comes with Wilson's 95 % interval. For
the macro mean, rows weigh differently (1 / (classes · rows of the class)), and Wilson's interval is taken at Kish's
effective number of rows; unlike a bootstrap within classes it stays honest where a class has a single row.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sicot.prepare.prepared import ENROLLED, GROUPS

Z = 1.959964  # 97.5 % quantile of the normal distribution
UNKNOWN = -1  # target of a row whose label the model does not know


@dataclass(frozen=True)
class Answers:
    """What a model said about N labelled rows, in one way of asking."""

    target: np.ndarray
    """Class index of the true label, int [N]; `UNKNOWN` if it is none of the model's."""
    top: np.ndarray
    """Class indices by falling probability, int [N, K]."""
    probability: np.ndarray
    """Their probabilities, float [N, K]."""
    refused: np.ndarray
    """Whether the model calls the product unknown, bool [N]."""

    @cached_property
    def correct(self) -> np.ndarray:
        """Whether the first answer is right, bool [N]; an unknown label never is."""
        return self.top[:, 0] == self.target

    def __len__(self) -> int:
        return len(self.target)

    def of(self, rows: np.ndarray) -> Answers:
        """The answers to some rows, given as a mask or as indices."""
        return Answers(self.target[rows], self.top[rows], self.probability[rows], self.refused[rows])


def summary(answers: Answers, group: np.ndarray, bins: int = 15) -> dict[str, Any]:
    """All figures of one way of asking.

    Args:
        answers: N rows.
        group: head, medium, tail or enrolled of each class, str [C].
        bins: bins of the calibration error.

    Returns:
        top1, top5, top10 (micro, all rows), macro (mean over the classes that have rows), head, medium, tail (rows of
        these classes; enrolled too, if there are any), ece: shares in [0, 1], None where there is no row to tell;
        `ci95`: [low, high] of each; `rows`; `unknown_labels`: rows with a label the model does not know, wrong in
        top1, top5 and top10, left out elsewhere.
        Of the rows with a known label: `coverage`, the share that is not refused, `kept`, top-1 of these, and `aurc`.
        Of the others: `refused`, the share that is called unknown, as it should; `auroc` tells the two kinds apart.
    """
    known = answers.target != UNKNOWN
    row_group = np.where(known, group[answers.target], "")
    hit = answers.top == answers.target[:, None]
    shares = {"top1": share(answers.correct), **{f"top{k}": share(hit[:, :k].any(1)) for k in (5, 10)}}
    shares["macro"] = macro(answers)
    shares |= {name: share(answers.correct[row_group == name]) for name in groups(group)}
    mine = answers.of(known)
    shares |= {"coverage": share(~mine.refused), "kept": share(mine.correct[~mine.refused])}
    shares |= {"refused": share(answers.refused[~known])}
    return {
        **{name: value for name, (value, _) in shares.items()},
        "ece": calibration_error(answers, bins),
        "aurc": float(risk(mine).mean()) if len(mine) else None,
        "auroc": auroc(answers),
        "rows": len(answers),
        "unknown_labels": int((~known).sum()),
        "ci95": {name: interval for name, (_, interval) in shares.items()},
    }


def groups(group: np.ndarray) -> tuple[str, ...]:
    """head, medium, tail; and enrolled, where there are such classes."""
    return (*GROUPS, ENROLLED) if (group == ENROLLED).any() else GROUPS


Share = tuple[float | None, list[float] | None]


def share(correct: np.ndarray) -> Share:
    """Share of true values in bool [N] and its interval; None for no rows."""
    if not len(correct):
        return None, None
    value = float(correct.mean())
    return value, wilson(value, len(correct))


def wilson(value: float, rows: float) -> list[float]:
    """Wilson's 95 % interval of a share seen in so many (effective) rows."""
    centre = (value + Z**2 / (2 * rows)) / (1 + Z**2 / rows)
    half = Z / (1 + Z**2 / rows) * np.sqrt(value * (1 - value) / rows + Z**2 / (4 * rows**2))
    return [max(0.0, min(value, float(centre - half))), min(1.0, max(value, float(centre + half)))]


def macro(answers: Answers) -> Share:
    """Mean accuracy over the classes that have rows, and its interval."""
    answers = answers.of(answers.target != UNKNOWN)
    if not len(answers):
        return None, None
    weight = row_weight(answers.target)
    value = float(min((weight * answers.correct).sum(), 1.0))
    return value, wilson(value, 1 / (weight**2).sum())


def row_weight(target: np.ndarray) -> np.ndarray:
    """Weight of each row in the macro mean, float [N], sum 1: each class weighs the same."""
    _, where, rows = np.unique(target, return_inverse=True, return_counts=True)
    return 1 / (len(rows) * rows[where])


def calibration_error(answers: Answers, bins: int = 15) -> float | None:
    """Expected calibration error: mean distance of confidence and accuracy over equal bins of confidence."""
    if not len(answers):
        return None
    return sum(bin["rows"] * abs(bin["confidence"] - bin["accuracy"]) for bin in reliability(answers, bins)) / len(
        answers
    )


def reliability(answers: Answers, bins: int = 15) -> list[dict[str, float]]:
    """Bins of confidence that have rows: low, high, rows, mean confidence, accuracy."""
    confidence = answers.probability[:, 0].astype(float)
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    return [
        {
            "low": b / bins,
            "high": (b + 1) / bins,
            "rows": int((place == b).sum()),
            "confidence": float(confidence[place == b].mean()),
            "accuracy": float(answers.correct[place == b].mean()),
        }
        for b in np.unique(place).tolist()
    ]


def risk(answers: Answers) -> np.ndarray:
    """Share of wrong answers among the n surest, float [N], n = 1 … N: the risk at the coverage n / N.

    Its mean is the AURC, the area under the risk-coverage curve (Geifman & El-Yaniv, 2017, "Selective Classification
    for Deep Neural Networks"). Answers that are equally sure share their errors: no threshold tells them apart.
    """
    _, tie = np.unique(-answers.probability[:, 0], return_inverse=True)
    wrong = np.bincount(tie, ~answers.correct) / np.bincount(tie)
    return np.cumsum(wrong[np.sort(tie)]) / np.arange(1, len(answers) + 1)


def risk_coverage(answers: Answers, points: int = 100) -> list[dict[str, float]]:
    """The risk-coverage curve of the rows with a known label, at so many points at most: coverage, risk."""
    mine = answers.of(answers.target != UNKNOWN)
    curve = risk(mine) if len(mine) else np.zeros(0)
    places = np.unique(np.linspace(1, len(mine), min(points, len(mine))).round().astype(int))
    return [{"coverage": n / len(mine), "risk": float(curve[n - 1])} for n in places.tolist()]


def auroc(answers: Answers) -> float | None:
    """How well being sure tells products that the model knows from those it does not.

    The probability that the answer to a row with a known label is surer than to one without, ties counted half (Mann
    and Whitney's U); None where all rows are of one kind.
    """
    known = answers.target != UNKNOWN
    score, n, m = answers.probability[:, 0], int(known.sum()), int((~known).sum())
    _, tie, rows = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(rows) - (rows - 1) / 2)[tie]  # from 1; the middle of those equally sure
    return float((rank[known].sum() - n * (n + 1) / 2) / (n * m)) if n and m else None


def by_frequency(answers: Answers, count: np.ndarray) -> list[dict[str, Any]]:
    """Accuracy by how often a class was seen in training, in bins of doubling width (0, 1, 2–3, 4–7, …).

    Args:
        answers: N rows.
        count: training rows of each class, int [C].

    Returns:
        For each bin that has rows: low, high (training rows, inclusive), classes, rows, top1, ci95.
    """
    answers = answers.of(answers.target != UNKNOWN)
    place = np.frexp(count[answers.target])[1]  # 0 → 0, 1 → 1, 2–3 → 2, 4–7 → 3, …
    table = []
    for b in np.unique(place).tolist():
        here = answers.of(place == b)
        top1, ci95 = share(here.correct)
        low, high = (2 ** (b - 1), 2**b - 1) if b else (0, 0)
        classes = len(np.unique(here.target))
        table.append({"low": low, "high": high, "classes": classes, "rows": len(here), "top1": top1, "ci95": ci95})
    return table


def confusions(answers: Answers, group: np.ndarray, of: str = "tail", most: int = 20) -> list[dict[str, int]]:
    """The pairs of classes confused most often where the true one is in a group.

    Returns:
        Most frequent first: true and given class index, rows confused so, and all rows of the true class.
    """
    known = answers.of(answers.target != UNKNOWN)
    rows_of = np.bincount(known.target, minlength=len(group))
    wrong = known.of(~known.correct & (group[known.target] == of))
    pairs, rows = np.unique(np.stack([wrong.target, wrong.top[:, 0]], 1), axis=0, return_counts=True)
    order = np.argsort(-rows, kind="stable")[:most]
    return [
        {"true": int(true), "given": int(given), "rows": int(n), "of": int(rows_of[true])}
        for (true, given), n in zip(pairs[order], rows[order], strict=True)
    ]


def difference(model: np.ndarray, baseline: np.ndarray) -> dict[str, Any]:
    """How much more often a model is right than a baseline asked the same rows, with a paired 95 % interval.

    Args:
        model: whether the model was right, bool [N], or [S, N] for several seeds.
        baseline: the same of the baseline, row for row and seed for seed.

    Returns:
        `difference` of the shares, `ci95`, `rows`, `seeds`; the figures are None for no rows. The interval is Bonett
        and Price's (one row added to either side), widened by the spread between seeds where there are several.
    """
    if model.shape != baseline.shape:
        raise ValueError(f"not the same rows and seeds: {model.shape} and {baseline.shape}")
    gain = np.atleast_2d(model).astype(float) - np.atleast_2d(baseline).astype(float)
    seeds, rows = gain.shape
    if not rows:
        return {"difference": None, "ci95": None, "rows": 0, "seeds": seeds}
    padded = np.concatenate([gain.mean(0), [1.0, -1.0]])
    half = Z**2 * padded.var() / len(padded)
    if seeds > 1:
        from scipy.stats import t

        half += t.ppf(0.975, seeds - 1) ** 2 * gain.mean(1).var(ddof=1) / seeds
    centre, half = padded.mean(), np.sqrt(half)
    ci95 = [max(-1.0, float(centre - half)), min(1.0, float(centre + half))]
    return {"difference": float(gain.mean()), "ci95": ci95, "rows": rows, "seeds": seeds}
