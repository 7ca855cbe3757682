"""Figures of trainings and searches, where they would go to Ray."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from sicot import export
from sicot.export import Metric
from sicot.search import gauges as search
from sicot.search.book import Book
from sicot.train import gauges as train
from tests.builders import experiment, prepared_set
from tests.watching import until

Shown = dict[tuple[str, ...], float]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shown]:
    """What was handed over last, by name and labels; counters are summed."""
    figures: Shown = {}

    class Kept(export.Export):
        def add(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
            super().add(metric, value, labels)
            key = (metric.name, *labels.values())
            figures[key] = figures.get(key, 0) + value

        def set(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
            super().set(metric, value, labels)
            figures[metric.name, *labels.values()] = value

    monkeypatch.setattr(train, "Export", Kept)
    monkeypatch.setattr(search, "Export", Kept)
    return figures


def test_a_training_tells_of_steps_now_and_then_and_of_each_epoch(shown: Shown, tmp_path: Path) -> None:
    """By what the loop itself reports."""
    from sicot.train import worker

    settings = experiment(tmp_path, epochs=2)
    gauges = train.Gauges(settings, world=2)

    def report(metrics: dict[str, float], save: worker.Save) -> None:
        if "val/macro" in metrics:
            gauges.epoch(metrics)

    worker.fit(settings, prepared_set(tmp_path / "prepared", rows_per_class=8), report, progress=gauges.step)
    steps = int(shown["sicot_train_steps", "test"])
    assert steps == 2 * math.ceil((5 * 8 + 2) / 16) or steps == 2 * ((5 * 8 + 2) // 16)
    assert shown["sicot_train_images", "test"] == steps * 16 * 2
    assert (shown["sicot_train_epoch", "test"], shown["sicot_train_epochs", "test"]) == (2, 2)
    assert 0 <= shown["sicot_train_data_wait", "test"] <= 1
    assert shown["sicot_train_loss", "test", "loss"] > 0
    for asked in ("image", "image_text"):
        for rows in ("all", "macro", "tail"):
            assert 0 <= shown["sicot_train_accuracy", "test", asked, rows] <= 1


def test_what_a_gauge_shows_is_told_again_until_there_is_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray forgets what is told once, and the length of a training is told at its beginning alone."""
    monkeypatch.setattr(export, "AGAIN", 0.01)
    told: Counter[float] = Counter()

    class Gauge:
        def set(self, value: float, labels: Mapping[str, str]) -> None:
            told[value] += 1

    monkeypatch.setattr(export, "_made", lambda metric: Gauge())
    others = set(threading.enumerate())
    gauges = export.Export([train.EPOCHS])
    gauges.set(train.EPOCHS, 60.0, {"run": "test"})
    until(lambda: told[60.0] > 3, "told once alone")
    gauges.set(train.EPOCHS, math.nan, {"run": "test"})
    before = told[60.0]
    time.sleep(0.1)
    assert told[60.0] == before
    (teller,) = set(threading.enumerate()) - others
    del gauges
    until(lambda: not teller.is_alive(), "goes on for nobody")


def test_a_search_tells_of_its_book_and_of_nothing_when_it_is_over(shown: Shown, tmp_path: Path) -> None:
    book = Book(str(tmp_path / "trials.json"), "s")
    gauges = search.Gauges("mine", 5, book)
    one, two = book.start({"x": 1}), book.start({"x": 2})
    book.epoch(one, {"epoch": 1, "objective": 0.5, "overall": 0.6, "tail": 0.4})
    book.end(one, "finished")
    gauges.on_trial_start(0, [], None)
    states = {key[2]: value for key, value in shown.items() if key[0] == "sicot_search_trials"}
    assert states == {**dict.fromkeys(search.STATES, 0), "running": 1, "finished": 1, "left": 3}
    assert (shown["sicot_search_best", "mine"], shown["sicot_search_epochs", "mine"]) == (0.5, 1)
    book.epoch(two, {"epoch": 1, "objective": 0.75, "overall": 0.8, "tail": 0.7})
    book.end(two, "finished")
    gauges.on_trial_complete(0, [], None)
    assert (shown["sicot_search_best", "mine"], shown["sicot_search_first", "mine"]) == (0.75, 0.5)
    gauges.on_experiment_end([])
    assert all(math.isnan(value) for value in shown.values())
