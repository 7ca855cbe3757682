"""What an experiment's report looks like: a table for the terminal, report.json, and a picture."""

from __future__ import annotations

import io
from typing import Any

from sicot import storage
from sicot.feedback import plots
from sicot.feedback.figures import ALL, MEASURES


def write(figures: dict[str, Any], out: str) -> None:
    """Put report.json and measures.png into a folder (path or URI), in place of those that are there."""
    storage.write_json(f"{out}/report.json", figures)
    picture = io.BytesIO()
    plots.measures(figures).savefig(picture, dpi=120)
    storage.write_bytes(f"{out}/measures.png", picture.getvalue())


def table(figures: dict[str, Any]) -> str:
    """The figures for a terminal, in percent: share [95 % interval] of how many."""
    lines = []
    for each in figures["versions"]:
        lines.append(
            f"{each['arm']} {each['version']}: {each['answers']:,} answers to {each['visitors']:,} known visitors, "
            f"{each['from'][:16]} to {each['to'][:16]} UTC"
        )
        measures = each["measures"]
        lines.append(f"  {'':10}" + "".join(f"{name:>34}" for name in measures))
        for group in measures["acceptance"]:
            shares = [_share(measures[name][group]) for name in measures]
            lines.append(f"  {group:10}" + "".join(f"{share:>34}" for share in shares))
        lines.append("")
    lines += _compared(figures["comparison"])
    if figures["unanswered"]:
        lines.append(f"{figures['unanswered']:,} pieces of feedback are of answers that the database does not have")
    lines += [f"{name}: {meaning}" for name, meaning in MEASURES.items()]
    return "\n".join(lines)


def _compared(comparison: dict[str, Any] | None) -> list[str]:
    """The difference between the arms."""
    if comparison is None:
        return ["no two arms have answered at the same time: there is nothing to compare", ""]
    head = f"challenger {comparison['challenger']} minus champion {comparison['champion']}"
    lines = [f"{head}, {comparison['from'][:16]} to {comparison['to'][:16]} UTC, points"]
    for name, groups in comparison["measures"].items():
        for group, each in groups.items():
            lines.append(f"  {name if group == ALL else '':12}{group:10}{_gain(each)}")
    return [*lines, ""]


def _share(share: dict[str, Any]) -> str:
    if share["share"] is None:
        return "none"
    low, high = (100 * each for each in share["ci95"])
    return f"{100 * share['share']:.1f} [{low:.1f}, {high:.1f}] of {share['of']:,}"


def _gain(each: dict[str, Any]) -> str:
    if each["difference"] is None:
        return "nothing to compare"
    low, high = (100 * side for side in each["ci95"])
    return f"{100 * each['difference']:+6.1f} [{low:+.1f}, {high:+.1f}]  p = {each['p']:.3g}"
