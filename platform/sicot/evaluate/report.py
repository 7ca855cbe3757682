"""What an evaluation leaves behind.

report.json        every figure
report.md          the same for people, with the plots below
MODEL_CARD.md      what the model is, what it was made of, how good it is, and what not to use it for
accuracy_by_frequency.png, reliability.png, risk_coverage.png, tail_confusions.png
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sicot import storage
from sicot.bundle import Bundle
from sicot.evaluate import metrics, plots
from sicot.evaluate.metrics import Answers
from sicot.prepare.prepared import ENROLLED
from sicot.track import Run

NAMES = {"image": "photo alone", "image_text": "photo + words", "text": "words alone"}
FIGURES = {
    "top1": "top-1",
    "top5": "top-5",
    "top10": "top-10",
    "macro": "macro",
    "head": "head",
    "medium": "medium",
    "tail": "tail",
    "ece": "ECE",
    "aurc": "AURC",
    "coverage": "coverage",
    "kept": "kept top-1",
}


def content(bundle: Bundle, answers: Mapping[str, Answers], rows: dict[str, Any], bins: int) -> dict[str, Any]:
    """Everything that report.json holds.

    Args:
        bundle: the model.
        answers: by regime; those by photo and by photo + words are of the same rows, row for row.
        rows: what was asked, and what could not be answered.
        bins: bins of the calibration error.
    """
    classes, info = bundle.classes, bundle.info
    group, count = classes.group, classes.count
    return {
        "model": info.model_dump(mode="json", exclude={"files", "metrics"}),
        "groups": {name: _bounds(count[group == name]) for name in metrics.groups(group)},
        "rows": rows,
        "metrics": {regime: metrics.summary(each, group, bins) for regime, each in answers.items()},
        "gain_by_words": _gain(answers, group),
        "by_frequency": {regime: metrics.by_frequency(each, count) for regime, each in answers.items()},
        "reliability": {regime: metrics.reliability(each, bins) for regime, each in answers.items()},
        "risk_coverage": {regime: metrics.risk_coverage(each) for regime, each in answers.items()},
        "tail_confusions": {
            regime: [
                {**pair, **dict(zip(("true", "given"), classes.named([pair["true"], pair["given"]]), strict=True))}
                for pair in metrics.confusions(each, group)
            ]
            for regime, each in answers.items()
        },
    }


def _bounds(count: Any) -> dict[str, int | None]:
    """How many classes a group has, and the fewest and most training rows of one."""
    there = len(count) > 0
    return {
        "classes": len(count),
        "low": int(count.min()) if there else None,
        "high": int(count.max()) if there else None,
    }


def _gain(answers: Mapping[str, Answers], group: Any) -> dict[str, Any]:
    """How much better photo + words are than the photo alone, on the same rows: all, and of each group."""
    if not {"image", "image_text"} <= answers.keys():
        return {}
    image, both = answers["image"], answers["image_text"]
    of = {"all": image.target == image.target}
    of |= {name: (image.target >= 0) & (group[image.target] == name) for name in metrics.groups(group)}
    return {name: metrics.difference(both.correct[rows], image.correct[rows]) for name, rows in of.items()}


def write(report: dict[str, Any], out: str, run: Run | None = None) -> None:
    """Put the report's files at `out` (folder or URI) in place of what is there, and with the MLflow run."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
        (root / "report.md").write_text(markdown(report))
        (root / "MODEL_CARD.md").write_text(model_card(report))
        for name, figure in plots.draw(report).items():
            figure.savefig(root / name, dpi=120)
        storage.replace_folder(folder, out, "report.json")
        if run:
            run.file(folder, "report")


# ---------------------------------------------------------------- text


def columns(figures: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The figures to show and what they are called; those of enrolled classes where there are any."""
    there = any(ENROLLED in values for values in figures.values())
    return FIGURES | {ENROLLED: ENROLLED} if there else FIGURES


def table(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """The figures for a terminal, in percent, the 95 % interval under each."""
    shown = columns(figures)
    lines = [" " * 15 + "".join(f"{name:>11}" for name in shown.values())]
    for regime, values in figures.items():
        lines.append(f"{NAMES[regime]:15}" + "".join(f"{_percent(values[name]):>11}" for name in shown))
        intervals = "".join(f"{_interval(values['ci95'].get(name)):>11}" for name in shown)
        lines.append(f"{_rows(values):15}{intervals}".rstrip())
    unknown = max((values["unknown_labels"] for values in figures.values()), default=0)
    if unknown:
        lines.append(f"rows with a label that the model does not know, wrong in top-1, -5 and -10: {unknown:,}")
        lines += ["", *_open_set_lines(figures)]
    return "\n".join(lines)


def markdown(report: dict[str, Any]) -> str:
    """report.md."""
    rows, model = report["rows"], report["model"]
    unanswered = ", ".join(f"{n} {reason}" for reason, n in rows["unanswered"].items()) or "none"
    unknown = max((each["unknown_labels"] for each in report["metrics"].values()), default=0)
    parts = [
        f"# Evaluation of {model['name']} ({model['digest'][:12]})",
        f"{rows['labelled']:,} labelled rows from {rows['from']}. Left out: {rows['without_label']} without a label; "
        f"not answered by photo: {unanswered}. Counted as wrong: {unknown} with a label that the model does not know.",
        _markdown_table(report["metrics"]),
        "Percent, with 95 % intervals. top-1, top-5 and top-10 count rows; macro is the mean over classes; "
        f"{_groups(report)}; ECE is the expected calibration error, AURC the area under the risk-coverage curve. "
        "coverage: share of the rows of known products that are not called unknown; kept top-1: of these.",
        *_gain_lines(report["gain_by_words"]),
        "## Accuracy against frequency\n\n![accuracy against training rows of the class](accuracy_by_frequency.png)",
        "## Do the probabilities mean what they say?\n\n![confidence against accuracy](reliability.png)",
        "## What refusing the least sure answers saves\n\n![risk against coverage](risk_coverage.png)",
        *_open_set_lines(report["metrics"]),
    ]
    if any(report["tail_confusions"].values()):
        parts.append("## What tail classes are mistaken for\n\n![most frequent confusions](tail_confusions.png)")
    for regime, pairs in report["tail_confusions"].items():
        listed = [f"| {_cell(p['true'])} | {_cell(p['given'])} | {p['rows']} of {p['of']} |" for p in pairs[:10]]
        if listed:
            parts.append("\n".join([f"| true ({NAMES[regime]}) | given | rows |", "| --- | --- | --- |", *listed]))
    return "\n\n".join(parts) + "\n"


WHAT = """\
## What it is

A recognizer for long-tailed product catalogues: photo, words or both in, ranked classes out. It is built after SICoT
(Zhou et al., CIKM 2020). The formulas are our reading of the published description; no figure here is the paper's."""

LIMITS = """\
## Limits

- A product that is none of its classes is called unknown only where no class seems sure: see the figures.
- Tail figures rest on few rows: read the intervals, not the last digit.
- Words are believed as far as they helped in training, and a wrong title can mislead it. Where titles spell the name
  of the class, figures with words say little about photos.
- Probabilities are calibrated on rows like those of training. On other photos, or another mix of classes, expect
  them to be too sure.
- The rows of this evaluation come from a catalogue; photos taken by shoppers are harder."""


MADE_BY = {"commit": "commit", "mlflow_run": "MLflow run", "ray_job": "job"}


def model_card(report: dict[str, Any]) -> str:
    """MODEL_CARD.md."""
    model, training = report["model"], report["model"]["training"]
    network, settings = model["model"], training.get("train", {})
    words = f"{model['vocabulary']:,} words, {network['attention']['kind']} attention, {network['fusion']} fusion"
    how = [
        f"trunk {network['visual']['trunk']}, {model['images']['size']} px photos, {model['classes']:,} classes"
        + (f", and {model['enrolled']:,} enrolled since without training" if model["enrolled"] else ""),
        words if set(report["metrics"]) != {"image"} else "photos only: it does not look at words",
        f"{training.get('epochs', '?')} epochs, {training.get('workers', '?')} worker(s), "
        f"{training.get('seconds', '?')} s, learning rate {settings.get('learning_rate', '?')}, "
        f"seed {settings.get('seed', '?')}",
        *[f"{what} `{training[key]}`" for key, what in MADE_BY.items() if training.get(key)],
        f"loss weights {', '.join(f'{name} {weight:g}' for name, weight in network['loss'].items())}",
        "logits divided by "
        + ", ".join(f"{model['temperature'][regime]:.3g} ({NAMES[regime]})" for regime in NAMES)
        + ", fitted on validation",
        *([_looked_up(model["index"])] if model["index"] else []),
        "called unknown below a probability of "
        + ", ".join(f"{model['threshold'][regime]:.3g} ({NAMES[regime]})" for regime in NAMES),
    ]
    parts = [
        f"# Model card: {model['name']}",
        f"Digest `{model['digest']}`, made {model['created']}.",
        WHAT,
        f"## Data\n\nPrepared set `{model['data_digest']}`. Its training split alone made vocabulary, class counts and "
        f"priors. Groups by training rows: {_groups(report)}.",
        "## Training\n\n" + "\n".join(f"- {line}" for line in how),
        f"## Figures\n\nOn {report['rows']['labelled']:,} labelled rows from {report['rows']['from']}, in percent, "
        f"with 95 % intervals.\n\n{_markdown_table(report['metrics'])}",
        *_gain_lines(report["gain_by_words"]),
        *_open_set_lines(report["metrics"]),
        LIMITS,
    ]
    return "\n\n".join(parts) + "\n"


def _looked_up(index: Mapping[str, Any]) -> str:
    return (
        f"answers are looked up in an index ({index['kind']}): of the ten best classes {index['recall']:.1%} are among "
        f"its {index['candidates']} candidates, and probabilities are shared out among these"
    )


def _markdown_table(figures: Mapping[str, Mapping[str, Any]]) -> str:
    shown = columns(figures)
    lines = ["| | rows | " + " | ".join(shown.values()) + " |", "| --- " * (len(shown) + 2) + "|"]
    for regime, values in figures.items():
        cells = [f"{_percent(values[name])} {_bracket(values['ci95'].get(name))}".strip() for name in shown]
        lines.append(f"| {NAMES[regime]} | {values['rows']:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _gain_lines(gain: Mapping[str, Mapping[str, Any]]) -> list[str]:
    told = [
        f"{name} {each['difference'] * 100:+.1f} ({each['ci95'][0] * 100:+.1f} to {each['ci95'][1] * 100:+.1f})"
        for name, each in gain.items()
        if each["difference"] is not None
    ]
    return [f"Words beside the photo change top-1 on the same rows by, in points: {', '.join(told)}."] if told else []


def _open_set_lines(figures: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Known against unknown products, a line for each way of asking; none where all rows are of known ones."""
    told = [
        f"- {NAMES[regime]}: {values['unknown_labels']:,} of {values['rows']:,} rows; called unknown "
        f"{_percent(values['refused'])} {_bracket(values['ci95']['refused'])}, AUROC {_percent(values['auroc'])}"
        for regime, values in figures.items()
        if values["unknown_labels"]
    ]
    head = "Products that the model does not know (percent; AUROC: how well being sure tells them from known ones):"
    return ["\n".join([head, "", *told])] if told else []


def _groups(report: dict[str, Any]) -> str:
    told = []
    for name, of in report["groups"].items():
        span = f", {of['low']}–{of['high']} training rows each" if of["classes"] else ""
        told.append(f"{name}: {of['classes']:,} classes{span}")
    return "; ".join(told)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value * 100:.1f}"


def _interval(ci95: list[float] | None) -> str:
    return "" if ci95 is None else f"{ci95[0] * 100:.1f}–{ci95[1] * 100:.1f}"


def _bracket(ci95: list[float] | None) -> str:
    return "" if ci95 is None else f"({_interval(ci95)})"


def _rows(values: Mapping[str, Any]) -> str:
    return f"  {values['rows']:,} rows"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
