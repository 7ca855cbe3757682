"""Which parts pay, on one data set, at one budget: `python -m benchmarks.ladder --data synthetic`.

Every rung and every rival trains on the same features of a frozen trunk (computed once, then cached): same steps,
views and schedule. Without `--final` each is measured by five-fold cross-validation on the training split, which is
what settings are chosen by; with it, each is trained on the whole training split once per seed, and the test split
is read. What is finished is kept: the same command goes on where it was interrupted (`--fresh` starts over, for when
the code of the model has changed).

    python -m benchmarks.ladder --data fashion --folder /data --final
    python -m benchmarks.ladder --data synthetic --only default changed --change loss.distill=1 fusion=gate
    python -m benchmarks.ladder --data fashion --folder /data --trunk finetune --size 112 --epochs 8 --final
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
import torch
import yaml
from tqdm import tqdm

from benchmarks import record
from benchmarks.ladder import data, finetune, plot, table, trial
from benchmarks.ladder.rivals import REGRESSION, RIVALS
from benchmarks.ladder.rungs import change, rungs
from benchmarks.ladder.table import Measured
from benchmarks.ladder.trial import FOLDS, Column, Trial
from sicot import cluster, config, storage, track
from sicot.errors import door
from sicot.prepare.prepared import PreparedSet

FOLDER = "runs/benchmarks/ladder"


def main() -> None:
    """Prepare, extract, train what is not done, print and write the table."""
    options = _options()
    with cluster.session(record.cores() + 2):
        sets = data.prepare(options.data, options.folder, options.size, FOLDER)
        measured = list(_frozen(options, sets) if options.trunk == "frozen" else _tuned(options, sets))
    rows = table.rows(measured, list(sets))
    print(table.by_regime(rows))
    place = record.record(f"ladder-{options.data}-{options.trunk}" + ("" if options.final else "-cv"), rows)
    plot.draw(table.curves(measured, list(sets)), options.data).savefig(place.with_suffix(".png"), dpi=120)
    _track(options, rows, place)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ladder", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data.add_options(parser, size=224)
    parser.add_argument("--trunk", choices=("frozen", "finetune"), default="frozen", help="what is trained")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each rung with --final")
    parser.add_argument("--final", action="store_true", help="train on the whole training split, read the test split")
    parser.add_argument("--only", nargs="*", default=[], help="only rungs and rivals whose names contain one of these")
    parser.add_argument("--epochs", type=int, default=15, help="passes over the training split")
    parser.add_argument("--fresh", action="store_true", help="train again what is finished")
    parser.add_argument("--change", nargs="*", default=[], help="also measure the shipped model with these changes")
    return data.parsed(parser)


def _frozen(options: argparse.Namespace, sets: dict[str, PreparedSet]) -> Iterator[Measured]:
    """Heads on cached features, one core each."""
    torch.set_num_threads(record.cores())
    columns = trial.columns(sets, options, f"{FOLDER}/features")
    trials = list(_trials(options, columns))
    note = Path(FOLDER) / f"{options.data}-results.json"
    if options.fresh:
        note.unlink(missing_ok=True)
    results = _run(trials, columns, note)
    for each in trials:
        result = results[each.key(columns[each.column])]
        yield Measured(each.name, each.column, result["scores"], result["seconds"])


def _trials(options: argparse.Namespace, columns: dict[str, Column]) -> Iterator[Trial]:
    base = trial.shipped(options.weights)
    models = {**rungs(base), **dict.fromkeys(RIVALS, base)}
    if options.change:
        models["changed"] = change(base, **_changes(options.change))
    for name, model in models.items():
        if options.only and not any(part in name for part in options.only):
            continue
        worded = name == REGRESSION or (name not in RIVALS and model.uses_words)
        for column in columns if worded else list(columns)[:1]:
            for seed in range(options.seeds if options.final else FOLDS):
                yield Trial(name, model, trial.training(options.epochs, seed), column, options.final)


def _changes(said: list[str]) -> dict[str, Any]:
    """``loss.distill=1`` → {"loss": {"distill": 1}}."""
    found: dict[str, Any] = {}
    for each in said:
        name, _, value = each.partition("=")
        section, _, field = name.partition(".")
        parsed = yaml.safe_load(value)
        if field:
            found.setdefault(section, {})[field] = parsed
        else:
            found[section] = parsed
    return found


def _run(trials: list[Trial], columns: dict[str, Column], note: Path) -> dict[str, Any]:
    """Results by key; finished ones from ``note``."""
    kept: dict[str, Any] = storage.read_json(str(note)) if note.exists() else {}
    work = ray.remote(num_cpus=2)(trial.measure)  # of the two logical CPUs that a session gives each core
    stored = {name: ray.put(column) for name, column in columns.items()}
    keys = {each.key(columns[each.column]): each for each in trials}
    waiting = {work.remote(each, stored[each.column]): key for key, each in keys.items() if key not in kept}
    with tqdm(desc="ladder", total=len(keys), initial=len(keys) - len(waiting), unit=" trainings") as bar:
        while waiting:
            done, _ = ray.wait(list(waiting))
            kept[waiting.pop(done[0])] = ray.get(done[0])
            storage.write_json(str(note), kept)
            bar.update()
    return kept


def _tuned(options: argparse.Namespace, sets: dict[str, PreparedSet]) -> Iterator[Measured]:
    """The whole network, all cores a training; without `--final` measured on validation."""
    folder = str(Path(FOLDER).absolute() / f"tuned-{options.data}")  # Ray Train takes no other
    if options.fresh:
        storage.delete_folder(folder)
    train = config.Train(workers=record.cores(), epochs=options.epochs, batch_size=64 // record.cores())
    trials = list(finetune.trials(sets, options.weights, train, options.seeds, options.only))
    for number, (rung, column, experiment) in enumerate(trials, 1):
        print(f"\n── {number}/{len(trials)} {rung}, {column}, seed {experiment.train.seed}", flush=True)
        yield finetune.measure(rung, experiment, sets, column, "test" if options.final else "val", folder)


def _track(options: argparse.Namespace, rows: list[dict[str, Any]], place: Path) -> None:
    """The ladder as an MLflow run, each rung as a run below it."""
    job = config.Experiment(name=place.stem)
    with track.run(job, "ladder", place.stem) as run:
        run.params({f"ladder.{name}": value for name, value in vars(options).items()})
        run.file(place)
        run.file(place.with_suffix(".png"), "plots")
        for rung in dict.fromkeys(row["rung"] for row in rows):
            with track.run(job, "rung", f"{place.stem} {rung}", parent=run) as child:
                of_rung = [row for row in rows if row["rung"] == rung]
                child.metrics(
                    {row["regime"]: {name: row[name] for name in ("all", "tail", "macro")} for row in of_rung}
                )


if __name__ == "__main__":
    door(main)
