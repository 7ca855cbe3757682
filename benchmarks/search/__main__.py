"""What a search finds, and what it costs: `python -m benchmarks.search --data fashion --folder /data`.

On cached features of a frozen trunk, in three parts:

    found     the settings that TPE and ASHA find against those that one has by default, both trained again for as many
              epochs, with fresh seeds: cross-validated on the training split (five folds a seed, others than the
              search's three), and on the test split; once for an even objective, which the defaults are chosen by, and
              once for the tail alone
    budget    ASHA, and ASHA with TPE, against as many trials of a random search trained to the end: the share of its
              epochs after which they have found something as good as the best of them
    overhead  seconds of a trial beside its training

What is finished is kept: the same command goes on where it was interrupted (`--fresh` starts over).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from benchmarks import record
from benchmarks.ladder import data, trial
from benchmarks.search import again, plot, searches
from sicot import cluster, storage, track
from sicot.errors import door

FOLDER = "runs/benchmarks/search"
LADDER = "runs/benchmarks/ladder"  # the same prepared sets and features


def main() -> None:
    """Search, train again, print and write the table."""
    options = _options()
    if options.fresh:
        storage.delete_folder(FOLDER)
    with cluster.session(record.cores() + 2):
        sets = data.prepare(options.data, options.folder, options.size, LADDER)
        torch.set_num_threads(record.cores())
        columns = trial.columns(sets, argparse.Namespace(**{**vars(options), "final": True}), f"{LADDER}/features")
        name = options.column or list(columns)[-1]
        column = columns[name]
        task = searches.task(options, column, str(Path(FOLDER).absolute() / f"{options.data}-{name}"))
        with track.run(task.experiment, "benchmark", f"search-{options.data}") as run:
            found = searches.found(task, column, run, options.trials, options.tail_weight)
            books = {weight: one.book for weight, one in found.items()}
            retrained = again.train(task, column, name, books, options.seeds)
            print(record.table(again.rows(retrained)), flush=True)
            races = searches.races(task, column, run, options.random, options.seeds)
            rows = [*again.rows(retrained), *races.rows(), *searches.overhead([*found.values(), *races.each])]
            place = record.record(f"search-{options.data}", rows)
            plot.draw(retrained, races, options.data).savefig(place.with_suffix(".png"), dpi=120)
            run.file(place)
            run.file(place.with_suffix(".png"), "plots")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.search", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data.add_options(parser, size=112)
    parser.add_argument("--column", help="text column; default: the one that says least of the label")
    parser.add_argument("--epochs", type=int, default=12, help="of a trial, and of the trainings compared")
    parser.add_argument("--folds", type=int, default=3, help="of training that a trial is measured by; 0: validation")
    parser.add_argument("--trials", type=int, default=36, help="of a search whose finding is trained again")
    parser.add_argument(
        "--tail-weight", type=float, nargs="+", default=[0.5, 1.0], help="of the objectives that are searched"
    )
    parser.add_argument("--random", type=int, default=24, help="trials of each random search")
    parser.add_argument("--seeds", type=int, default=3, help="random searches; fresh seeds of the trainings compared")
    parser.add_argument("--fresh", action="store_true", help="do again what is finished")
    return data.parsed(parser)


if __name__ == "__main__":
    door(main)
