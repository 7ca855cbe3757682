"""The pictures of a search, in its MLflow run while it goes on."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sicot import track
from sicot.config import Experiment
from sicot.search import live, plots
from sicot.search.book import Book, Trial
from sicot.search.live import Live
from sicot.search.space import Point, distributions, standing
from sicot.track import Run
from tests.waiting import until
from tuning.space import SPACE

RANGES = distributions(SPACE, Experiment())
ALL = {"epochs.png", "best_so_far.png", "front.png", "settings.png", "importance.png"}


def trials(count: int, book: Book) -> list[Trial]:
    """Trials at random points, some stopped, the last one under way."""
    random = np.random.default_rng(0)
    first = standing(RANGES, Experiment())
    for number in range(1, count + 1):
        point: Point = {**first, "model.loss.tau": round(float(random.uniform(0, 1.5)), 3)}
        trial = Trial(number=number, point=first if number == 1 else point)
        book.trials.append(trial)
        epochs = 5 if number == 1 or random.random() < 0.6 else 2
        for epoch in range(1, epochs + 1):
            overall, tail = random.uniform(0.3, 0.6, 2) + 0.05 * epoch
            trial.epochs.append({"epoch": epoch, "overall": overall, "tail": tail, "objective": (overall + tail) / 2})
        if number < count:
            trial.state = "finished" if epochs == 5 else "stopped"
    return book.trials


def test_every_picture_is_drawn_and_none_is_blank(tmp_path: Path) -> None:
    book = Book(f"{tmp_path}/trials.json", "")
    trials(40, book)
    drawn = dict(plots.draw(book.trials, book.front, RANGES))
    assert set(drawn) == ALL
    for name, figure in drawn.items():
        figure.savefig(tmp_path / name)
        assert len(np.unique(np.asarray(Image.open(tmp_path / name).convert("L")))) > 20, name


def test_the_line_of_the_front_goes_through_the_trials_on_it(tmp_path: Path) -> None:
    book = Book(f"{tmp_path}/trials.json", "")
    trials(30, book)
    (axes,) = plots.overall_against_tail(book.ended, book.front).axes
    (line,) = axes.lines
    assert np.asarray(line.get_xydata()) == pytest.approx(100 * np.array([trial.scores for trial in book.front]))
    assert (np.diff(np.asarray(line.get_xydata())[:, 0]) < 0).all()


def test_a_search_that_has_only_begun_has_curves(tmp_path: Path) -> None:
    book = Book(f"{tmp_path}/trials.json", "")
    assert set(dict(plots.draw(book.trials, book.front, RANGES))) == {"epochs.png"}
    trials(1, book)
    assert set(dict(plots.draw(book.trials, book.front, RANGES))) == {"epochs.png"}
    book.trials[0].state = "finished"
    assert set(dict(plots.draw(book.trials, book.front, RANGES))) == ALL - {"importance.png"}


def test_pictures_are_in_mlflow_while_the_search_runs_and_drawn_anew_with_news_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "EVERY", 0.1)
    book = Book(f"{tmp_path}/trials.json", "")
    with track.run(Experiment(storage=str(tmp_path)), "search", "live") as run:
        place = Path(run.client.get_run(run.id).info.artifact_uri) / "plots"
        with Live(run, book, RANGES, "plots"):
            trials(12, book)
            until(lambda: len(list(place.glob("*.png"))) == 5, "pictures are missing")
            until(lambda: book_is_drawn(place), "it draws without end")
            before = times(place)
            time.sleep(0.5)
            assert times(place) == before
            book.trials[-1].state = "finished"
            until(lambda: all(time > before[name] for name, time in times(place).items()), "news are not drawn")
        assert set(times(place)) == ALL


def test_a_server_that_is_away_does_not_end_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(live.log, "warning", lambda text, *given: said.append(text % given))
    monkeypatch.setattr(live, "EVERY", 0.05)
    book = Book(f"{tmp_path}/trials.json", "")
    trials(3, book)
    with Live(Run("http://127.0.0.1:9", "0" * 32), book, RANGES, "plots"):
        until(lambda: any("MLflow at http://127.0.0.1:9" in each for each in said), "nothing was told")


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.png")}


def book_is_drawn(folder: Path) -> bool:
    """Whether nothing was drawn for a while."""
    before = times(folder)
    time.sleep(0.3)
    return times(folder) == before
