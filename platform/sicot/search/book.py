"""The book of a search: every trial with its settings and epochs, in one JSON file; what a later start goes on from.

It stands in for Tune's own experiment state, which is pickled, knows a fixed number of trials, and misses what
happened since it was last written.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel

from sicot import storage
from sicot.errors import UserError
from sicot.search.space import Point

State = Literal["running", "finished", "stopped", "cut", "failed"]


class Trial(BaseModel):
    """One trial."""

    number: int
    """From 1; trial 1 is the experiment as it stands."""
    point: Point
    state: State = "running"
    """`stopped` is ASHA's doing, `cut` the end of the budget; a trial of a killed search stays `running`."""
    epochs: list[dict[str, float]] = []
    """Metrics of each epoch: `overall` and `tail` accuracy, `objective`, which weighs them, and what training says."""
    run: str = ""
    """Its MLflow run."""
    after: int = 0
    """Epochs that all trials had trained when it ended."""
    reason: str = ""
    """Why it failed."""

    @property
    def objective(self) -> float | None:
        """The objective after the last epoch; None before the first."""
        return self.epochs[-1]["objective"] if self.epochs else None

    @property
    def scores(self) -> tuple[float, float]:
        """Overall and tail accuracy after the last epoch."""
        return self.epochs[-1]["overall"], self.epochs[-1]["tail"]

    @property
    def ended(self) -> bool:
        """Whether its result stands; a trial that failed or was cut is taken up by the next start."""
        return self.state in ("finished", "stopped")


class Spent(BaseModel):
    """What all starts of a search have used."""

    seconds: float = 0.0
    gpu_seconds: float = 0.0


class Book:
    """The trials of a search, on disk after each change."""

    def __init__(self, file: str, settings: str):
        """Open the book, or begin it. :class:`UserError` if it is of a search with other ``settings``."""
        self.file, self.settings = file, settings
        kept: dict[str, Any] = {"settings": settings, "trials": [], "spent": {}}
        if storage.exists(file):
            kept = storage.read_json(file)
        if kept["settings"] != settings:
            raise UserError(
                f"{file} is of a search with other settings, data or space: choose another --name, or give --fresh"
            )
        self.trials = [Trial(**trial) for trial in kept["trials"]]
        self.spent = Spent(**kept["spent"])

    @property
    def ended(self) -> list[Trial]:
        """Trials whose result stands."""
        return [trial for trial in self.trials if trial.ended]

    @property
    def left(self) -> list[Trial]:
        """Trials that a killed search, the end of its budget or a failure has left without a result."""
        return [trial for trial in self.trials if not trial.ended]

    @property
    def ranked(self) -> list[Trial]:
        """Those that trained to the end, the best first: half a training is not compared with a whole one."""
        whole = [trial for trial in self.trials if trial.state == "finished"]
        return sorted(whole, key=lambda trial: (trial.objective, sum(trial.scores)), reverse=True)

    @property
    def best(self) -> Trial | None:
        """The first of :attr:`ranked`. It is on the front, too: what beats it in both accuracies beats it here."""
        return next(iter(self.ranked), None)

    @property
    def front(self) -> list[Trial]:
        """Those that no other beats in both overall and tail accuracy, by overall accuracy."""
        found: list[Trial] = []
        for trial in sorted(self.ranked, key=lambda trial: trial.scores, reverse=True):
            if not found or trial.scores[1] > found[-1].scores[1]:
                found.append(trial)
        return found

    def start(self, point: Point) -> Trial:
        """Note that a trial starts; one that was left is taken up under its number."""
        trial = next((trial for trial in self.left if trial.point == point), None)
        if trial is None:
            trial = Trial(number=len(self.trials) + 1, point=point)
            self.trials.append(trial)
        trial.state, trial.reason = "running", ""
        self.write()
        return trial

    def epoch(self, trial: Trial, metrics: dict[str, float]) -> None:
        """Note an epoch; one that is said or trained again replaces what was noted."""
        trial.epochs = [epoch for epoch in trial.epochs if epoch["epoch"] < metrics["epoch"]] + [metrics]
        self.write()

    def end(self, trial: Trial, state: State, reason: str = "") -> None:
        """Note how a trial ended."""
        trial.state, trial.reason = state, reason
        trial.after = sum(len(each.epochs) for each in self.trials)
        self.write()

    def dump(self) -> dict[str, Any]:
        """As JSON."""
        trials = [trial.model_dump(mode="json") for trial in self.trials]
        return {"settings": self.settings, "spent": self.spent.model_dump(), "trials": trials}

    def write(self) -> None:
        """Keep it; each of the above does."""
        storage.write_json(self.file, self.dump())


def key(point: Point) -> str:
    """Short name of a point, the same in every process."""
    return hashlib.sha256(json.dumps(point, sort_keys=True).encode()).hexdigest()[:10]
