"""What a search looks like in MLflow: a real server on PostgreSQL, looked at in a real Chromium."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import optuna
import pytest
from playwright.sync_api import Browser, Page, expect

from sicot import ports, track
from sicot.config import Tune
from sicot.search import tuner
from sicot.search.book import Book
from sicot.search.follow import Follow
from sicot.search.space import distributions
from tests.builders import experiment
from tests.feedback.conftest import Server
from tests.page.conftest import browser
from tests.page.pages import shot
from tests.watching import until
from tuning.space import SPACE

__all__ = ["browser"]

TRIALS, EPOCHS = 100, 3
SECONDS = 3.0
"""In which the page of a search is there, with its plots."""

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of an MLflow server that keeps its books in PostgreSQL."""
    place, folder = Path(tempfile.mkdtemp(prefix="sicot-postgresql-", dir="/tmp")), tmp_path_factory.mktemp("mlflow")
    database = Server(place)
    (port,) = ports.free()
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", database.fresh("mlflow").replace("postgresql:", "postgresql+psycopg:")]
    command += ["--artifacts-destination", str(folder / "kept")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    url = f"http://127.0.0.1:{port}"

    def up() -> bool:
        assert process.poll() is None, (folder / "log").read_text()
        with suppress(httpx.TransportError):
            return httpx.get(f"{url}/health").status_code == 200
        return False

    try:
        until(up, "MLflow does not start", 240)
        yield url
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the server and its workers
        process.wait(20)
        database.stop()
        shutil.rmtree(place)


@pytest.fixture(scope="module")
def search(mlflow: str, tmp_path_factory: pytest.TempPathFactory) -> track.Run:
    """The run of a search with 100 trials, logged as a search logs it; nothing is trained."""
    settings = experiment(tmp_path_factory.mktemp("search"))
    update = {"tune": Tune(trials=TRIALS, epochs=EPOCHS), "track": settings.track.model_copy(update={"uri": mlflow})}
    settings = settings.model_copy(update=update)
    ranges = distributions(SPACE, settings)
    book = Book(f"{settings.folder}/search/trials.json", "s")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    whole = settings.model_copy(update={"train": settings.train.model_copy(update={"epochs": EPOCHS})})
    with (
        track.run(settings, "search", "hundred") as run,
        Follow(whole, book, run, f"{settings.folder}/checkpoints") as follow,
    ):
        for number in range(TRIALS):
            trial: Any = SimpleNamespace(trial_id=str(number), config=study.ask(ranges).params)
            follow.on_trial_start(0, [], trial)
            for epoch in range(1, EPOCHS + 1 if number % 3 == 0 else 2):
                follow.on_trial_result(0, [], trial, figures(number, epoch))
            follow.on_trial_complete(0, [], trial)
        best = book.best
        assert best
        tuner._keep(run, book, book.trials[0], best, ranges)
    return run


def figures(number: int, epoch: int) -> dict[str, float]:
    """What a trial reports after an epoch."""
    accuracy = 0.5 + 0.1 * epoch + (number * 37 % 100) / 1000
    names = [f"val/{regime}/{rows}" for regime in ("image", "image_text") for rows in ("top1", "macro", "tail")]
    values = {**dict.fromkeys(names, accuracy), "loss/loss": 2.0 / epoch, "loss/visual": 1.0 / epoch}
    return {**values, "epoch": epoch, "objective": accuracy, "learning_rate": 0.01, "images_per_s": 500.0, "seconds": 9}
