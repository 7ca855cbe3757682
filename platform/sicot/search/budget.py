"""When a search has used up what it was given: minutes, or GPU-hours. Trials are counted by Tune itself."""

from __future__ import annotations

import time
from typing import Any

from ray.tune import Stopper

from sicot.config import Tune
from sicot.search.book import Spent


class Budget(Stopper):
    """Tune asks it several times a second whether all is over, and after each epoch whether a trial is."""

    def __init__(self, tune: Tune, gpus: float, spent: Spent, share: float = 1.0):
        """
        Args:
            tune: what the search was given.
            gpus: of a trial.
            spent: what is counted on; that of a book is written down with it.
            share: of the budget that may be used.
        """
        self.epochs, self.gpus, self.spent = tune.epochs, gpus, spent
        self.seconds = 60 * share * tune.minutes if tune.minutes else float("inf")
        self.gpu_seconds = 3600 * share * tune.gpu_hours if tune.gpu_hours else float("inf")
        self.running = 0  # trials
        self.last = time.monotonic()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its settings; this one never leaves the driver

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether the trial has trained its last epoch."""
        return bool(result["epoch"] >= self.epochs)

    def stop_all(self) -> bool:
        """Count the time since the last call, and say whether that was all there is."""
        now = time.monotonic()
        self.spent.seconds += now - self.last
        self.spent.gpu_seconds += (now - self.last) * self.running * self.gpus
        self.last = now
        return self.over

    @property
    def over(self) -> bool:
        """Whether it is used up."""
        return self.spent.seconds >= self.seconds or self.spent.gpu_seconds >= self.gpu_seconds

    def __str__(self) -> str:
        """What is used up, for people."""
        return " and ".join(
            f"{used / unit:.3g} of {given / unit:.3g} {name}"
            for used, given, unit, name in (
                (self.spent.seconds, self.seconds, 60, "minutes"),
                (self.spent.gpu_seconds, self.gpu_seconds, 3600, "GPU-hours"),
            )
            if given < float("inf")
        )
