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


class Trial(BaseModel):
    """One trial."""

    number: int
    """From 1; trial 1 is the experiment as it stands."""
    point: Point
    state: Literal["running", "finished", "stopped", "failed"] = "running"
    """`stopped` is ASHA's doing; a trial of a killed search stays `running` until the next start."""
    epochs: list[dict[str, float]] = []
    """Metrics of each epoch; `objective` is what is searched for."""
    reason: str = ""
    """Why it failed."""

    @property
    def objective(self) -> float | None:
        """The objective after the last epoch; None before the first."""
        return self.epochs[-1]["objective"] if self.epochs else None

    @property
    def ended(self) -> bool:
        """Whether its result stands; a failed trial is run again by the next start."""
        return self.state in ("finished", "stopped")


class Book:
    """The trials of a search, on disk after each change."""

    def __init__(self, file: str, settings: str):
        """Open the book, or begin it. :class:`UserError` if it is of a search with other ``settings``."""
        self.file, self.settings = file, settings
        kept: dict[str, Any] = {"settings": settings, "trials": []}
        if storage.exists(file):
            kept = storage.read_json(file)
        if kept["settings"] != settings:
            raise UserError(
                f"{file} is of a search with other settings, data or space: choose another --name, or give --fresh"
            )
        self.trials = [Trial(**trial) for trial in kept["trials"]]

    @property
    def ended(self) -> list[Trial]:
        """Trials whose result stands."""
        return [trial for trial in self.trials if trial.ended]

    @property
    def left(self) -> list[Trial]:
        """Trials that a killed search, or a failure, has left without a result."""
        return [trial for trial in self.trials if not trial.ended]

    @property
    def best(self) -> Trial | None:
        """The best of those that trained to the end: half a training is not compared with a whole one."""
        whole = [trial for trial in self.trials if trial.state == "finished"]
        return max(whole, key=lambda trial: trial.objective or 0.0, default=None)

    def start(self, point: Point) -> Trial:
        """Note that a trial starts; one that was left is taken up under its number."""
        trial = next((trial for trial in self.left if trial.point == point), None)
        if trial is None:
            trial = Trial(number=len(self.trials) + 1, point=point)
            self.trials.append(trial)
        trial.state, trial.reason = "running", ""
        self._write()
        return trial

    def epoch(self, trial: Trial, metrics: dict[str, float]) -> None:
        """Note an epoch; one that is trained again after a failure replaces what was noted."""
        trial.epochs = [epoch for epoch in trial.epochs if epoch["epoch"] < metrics["epoch"]] + [metrics]
        self._write()

    def end(self, trial: Trial, state: Literal["finished", "stopped", "failed"], reason: str = "") -> None:
        """Note how a trial ended."""
        trial.state, trial.reason = state, reason
        self._write()

    def dump(self) -> dict[str, Any]:
        """As JSON."""
        return {"settings": self.settings, "trials": [trial.model_dump(mode="json") for trial in self.trials]}

    def _write(self) -> None:
        storage.write_json(self.file, self.dump())


def key(point: Point) -> str:
    """Short name of a point, the same in every process."""
    return hashlib.sha256(json.dumps(point, sort_keys=True).encode()).hexdigest()[:10]
