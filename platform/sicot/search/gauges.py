"""What Prometheus sees of a search while it runs; NaN when it is over."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any, get_args

from ray.tune import Callback

from sicot.export import Export, Metric
from sicot.search.book import Book, Trial

TRIALS = Metric("gauge", "sicot_search_trials", "Trials by state; left: not begun yet.", ("search", "state"))
EPOCHS = Metric("gauge", "sicot_search_epochs", "Epochs trained, of all trials.", ("search",))
BEST = Metric("gauge", "sicot_search_best", "Best objective of the trials trained to the end.", ("search",))
FIRST = Metric("gauge", "sicot_search_first", "Objective of the first trial: the settings as they stand.", ("search",))
METRICS = (TRIALS, EPOCHS, BEST, FIRST)
STATES = get_args(Trial.model_fields["state"].annotation)


class Gauges(Callback):
    """Shows the book whenever Tune has something to tell; stands behind what writes the book."""

    def __init__(self, name: str, trials: int, book: Book):
        """``name`` of the search, ``trials`` that there are to be."""
        self.name, self.trials, self.book = {"search": name}, trials, book
        self.export = Export(METRICS)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its settings, callbacks included; this one never leaves the driver

    def show(self, *_: Any, **__: Any) -> None:
        """Set all gauges."""
        trials, best = self.book.trials, self.book.best
        counts = Counter[str](trial.state for trial in trials)
        for state in STATES:
            self.export.set(TRIALS, counts[state], {**self.name, "state": state})
        self.export.set(TRIALS, max(0, self.trials - len(trials)), {**self.name, "state": "left"})
        self.export.set(EPOCHS, sum(len(trial.epochs) for trial in trials), self.name)
        for metric, trial in ((BEST, best), (FIRST, trials[0] if trials else None)):
            if trial and trial.objective is not None:
                self.export.set(metric, trial.objective, self.name)

    on_trial_start = on_trial_result = on_trial_complete = on_trial_error = show

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """A driver that goes on would show the last figures for ever."""
        for metric in (EPOCHS, BEST, FIRST):
            self.export.set(metric, math.nan, self.name)
        for state in (*STATES, "left"):
            self.export.set(TRIALS, math.nan, {**self.name, "state": state})
