"""The search's benchmark: its searches are what they say, and its figures are read off them rightly."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch

from benchmarks.ladder.trial import Column
from benchmarks.search import again, plot, searches
from benchmarks.search.again import Again
from benchmarks.search.searches import ASHA, RANDOM, TPE, Races, Searched
from sicot import config, track
from sicot.search.book import Book, Trial
from sicot.train import features
from tests.builders import prepared_set

pytestmark = pytest.mark.timeout(600)


def searched(way: str, objectives: list[float], epochs: int, folder: Path) -> Searched:
    """Trials one after the other, each trained for so many epochs."""
    book = Book(f"{folder}/{way}.json", "")
    for number, objective in enumerate(objectives, 1):
        epoch = {"epoch": epochs, "objective": objective, "overall": objective, "tail": objective}
        done = Trial(number=number, point={}, state="finished", epochs=[epoch] * epochs, after=number * epochs)
        book.trials.append(done)
    return Searched(way, 0, book, [])


def test_the_share_of_epochs_is_until_something_as_good_was_found(tmp_path: Path) -> None:
    random = searched(RANDOM, [0.5, 0.7, 0.6, 0.65], 5, tmp_path)
    quick = searched(ASHA, [0.5, 0.7, 0.75], 2, tmp_path)
    never = searched(TPE, [0.69], 1, tmp_path)
    assert quick.curve() == [(2, 0.5), (4, 0.7), (6, 0.75)]
    rows = {row["what"]: row for row in Races([random, quick, never]).rows()}
    assert (rows[RANDOM]["epochs"], rows[RANDOM]["best"], rows[RANDOM]["share of epochs"]) == (20, 70.0, 0.5)
    assert (rows[ASHA]["reached after"], rows[ASHA]["share of epochs"]) == (4, 0.2)
    assert (rows[TPE]["reached after"], rows[TPE]["share of epochs"]) == ("never", "")


def test_the_gain_is_of_means_over_folds_paired_by_seed() -> None:
    trained = [Again(None, split, seed, 0.5, 0.3) for split in again.SPLITS for seed in (0, 1)]
    for split in again.SPLITS:
        for seed, tails in ((0, (0.30, 0.34)), (1, (0.31, 0.35))):
            trained += [Again(0.5, split, seed, 0.5, tail) for tail in tails]
            trained.append(Again(0.0, split, seed, 0.6, 0.2))
    rows = again.rows(trained)
    even, overall = rows[:3], rows[6:9]
    assert [row["objective"] for row in even[:2]] == [40.0, 41.25]
    assert even[2]["objective"].startswith("+1.25 ± ")
    assert [(row["tail weight"], row["objective"]) for row in overall[:2]] == [(0.0, 50.0), (0.0, 60.0)]
    assert again.means(trained, 0.5, "test", lambda each: each.tail) == pytest.approx([32.0, 33.0])


def test_from_searches_to_table_and_picture(tmp_path: Path, ray_cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    options = argparse.Namespace(data="tiny", weights=None, epochs=2, trials=3, folds=2)
    prepared = prepared_set(tmp_path / "set")
    monkeypatch.setattr(again, "FOLDS", 2)
    torch.manual_seed(0)
    visual = config.Visual(freeze=1)
    rows = features.load(prepared, visual, config.Augment(), 2, str(tmp_path / "cache"), ("train", "val", "test"))
    column = Column(prepared, rows, {})
    task = searches.task(options, column, str(tmp_path / "books"))
    job = task.experiment.model_copy(update={"storage": str(tmp_path)})
    task = searches.Task(job, task.prepared, task.ranges, task.folder, task.rare, task.rows)
    with track.run(job, "benchmark", "tiny") as run:
        found = searches.found(task, column, run, 3, [0.5, 0.0])
        races = searches.races(task, column, run, 2, 1)
        assert [one.way for one in races.each] == [RANDOM, ASHA, TPE]
        random, asha, _ = races.each
        assert [t.point for t in random.book.trials] == [t.point for t in asha.book.trials]
        assert {trial.state for trial in random.book.trials} == {"finished"}
        trained = again.train(task, column, "title", {weight: one.book for weight, one in found.items()}, 1)
        assert len(trained) == 3 * (2 + 1)
        again_rows = again.rows(trained)
        assert 0 < again_rows[0]["objective"] <= 100
        (overhead,) = searches.overhead([*found.values(), *races.each])
        assert overhead["trials"] == 3 + 3 + 2 + 2 + 4
        resumed = searches.found(task, column, run, 3, [0.5, 0.0])[0.0]
        assert (resumed.book.trials, resumed.overheads) == (found[0.0].book.trials, [])
    plot.draw(trained, races, "tiny").savefig(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000
