"""What a search prints: what it is about to do, and at the end a table of the best trials beside the first."""

from __future__ import annotations

import statistics

from sicot.config import Experiment
from sicot.search import results
from sicot.search.book import Book, Trial
from sicot.search.space import value as said
from sicot.search.work import Work

ROWS = {
    "objective": "objective",
    "overall": "overall",
    "tail": "tail",
    "val/image/top1": "photo: overall",
    "val/image/tail": "photo: tail",
    "val/image/macro": "photo: macro",
    "val/image_text/top1": "photo + words: overall",
    "val/image_text/tail": "photo + words: tail",
    "val/image_text/macro": "photo + words: macro",
}
SHOWN = 4  # trials beside the first


def announce(work: Work, rows: tuple[int, int], rare: str) -> None:
    """Say what is searched, how, and on what."""
    trained, names, ended = work.experiment, list(work.ranges), len(work.book.ended)
    tuned, share = trained.tune, trained.tune.tail_weight
    print(
        f"searching {len(names)} settings: {', '.join(names)}\n"
        f"{tuned.trials} trials of up to {tuned.epochs} epochs, {tuned.concurrent} at a time"
        + (" on cached features of the trunk" if work.kind == "screening" else "")
        + (f", {ended} of them done" if ended else "; the first is the experiment as it stands")
    )
    regimes = ", mean of photo alone and photo with words" if trained.model.uses_words else ", by photo alone"
    aim = (
        f"overall and {rare} accuracy" if tuned.objective == "pareto"
        else f"{1 - share:g} x overall + {share:g} x {rare} accuracy"
    )  # fmt: skip
    folds = tuned.folds if work.kind == "screening" else 0
    print(f"objective: {aim} on {f'{folds} folds of training' if folds else f'{rows[0]:,} validation'} rows{regimes}")
    if folds:
        return
    if rare == "macro":
        print("(validation has no row of a tail class: macro accuracy stands in for tail)")
    elif rows[1] < 100:
        print(f"(only {rows[1]} of them are of tail classes: small differences are chance)")


def overhead(seconds: list[float]) -> None:
    """Say what trials cost beside their training."""
    if seconds:
        print(f"   beside its training, a trial took {statistics.median(seconds):.1f} s (median of {len(seconds)})")


def show(book: Book, experiment: Experiment, names: list[str]) -> None:
    """Print the table, the gain, and the commands to go on with."""
    first, best = book.trials[0], book.best
    assert best is not None
    columns = [first, *[trial for trial in book.ranked if trial is not first][:SHOWN]]
    _table("validation, %", columns, names)
    states = [trial.state for trial in book.trials]
    others = {"cut": "cut off by the budget", "failed": "failed"}
    print(
        f"   {len(states)} trials: {states.count('finished')} to the end, {states.count('stopped')} stopped by ASHA"
        + "".join(f", {states.count(state)} {label}" for state, label in others.items() if state in states)
    )
    print(f"   they are in {book.file}, and nested under MLflow's run of kind search")
    if experiment.tune.objective == "pareto":
        _table("the front: nothing found beats these in both overall and tail, %", book.front, names)
        print(f"   any of them can be trained: {results.front_folder(experiment)}/<trial>.yaml")
    if best is first:
        print("\n━━ no trial beat the settings as they stand; more trials: --tune.trials")
        return
    gain, best_file = 100 * ((best.objective or 0.0) - (first.objective or 0.0)), results.best_file(experiment)
    print(f"\n━━ trial {best.number} beats the settings as they stand by {gain:.1f} points of the objective")
    print("   (on the rows it was chosen by: expect less on others)")
    print(f"   the whole way with it   python -m jobs.pipeline --config {best_file}")
    print(f"   or step by step         python -m jobs.prepare --config {best_file}")
    print(f"                           python -m jobs.train --config {best_file}")


def _table(title: str, columns: list[Trial], names: list[str]) -> None:
    """Trials side by side: figures, then settings."""
    print(f"\n━━ {title}")
    print(" " * 37 + "".join(f"{_head(trial):>14}" for trial in columns))
    for metric, label in ROWS.items():
        if metric in columns[0].epochs[-1]:
            print(f"   {label:<34}" + "".join(f"{100 * trial.epochs[-1][metric]:>14.1f}" for trial in columns))
    for name in names:
        print(f"   {name:<34}" + "".join(f"{said(trial.point[name]):>14}" for trial in columns))


def _head(trial: Trial) -> str:
    return "as it stands" if trial.number == 1 else f"trial {trial.number}"
