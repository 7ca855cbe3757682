"""What follows the trials from the driver: the book, a nested MLflow run each, and lines for people."""

from __future__ import annotations

import time
from collections import deque
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial as TuneTrial

from sicot import storage, track
from sicot.search.book import Trial, key
from sicot.search.budget import Budget
from sicot.search.work import Work
from sicot.track import Run

SILENCE = 10.0  # seconds without a line before a sign of life
LOGGED = ("objective", "overall", "tail", "learning_rate", "images_per_s", "seconds")


class Follow(Callback):
    """Owns the runs of the trials. Tune stops a trial without a word to it, so trials own none themselves."""

    def __init__(self, work: Work, parent: Run, budget: Budget):
        """
        Args:
            work: the trials; its book is told of everything.
            parent: the search's MLflow run.
            budget: told how many trials are under way.
        """
        self.work, self.experiment, self.book = work, work.experiment, work.book
        self.parent, self.budget = parent, budget
        self.open: dict[str, tuple[Trial, Run, ExitStack]] = {}
        self.begun = self.spoke = time.monotonic()
        self.before = len(self.book.ended)
        self.free = deque([self.begun] * self.experiment.tune.concurrent)  # since when a place has no trial
        self.since: dict[str, float] = {}
        self.training: dict[str, float] = {}
        self.overheads: list[float] = []
        """Seconds of each trial beside its training, from the end of the trial before it in its place."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its settings, callbacks included; this one never leaves the driver

    def __enter__(self) -> Follow:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for it, _, stack in self.open.values():  # the search was cut off: so were they
            if error is None:
                self.book.end(it, "cut")
            over = error or KeyboardInterrupt("the search's budget is used up")
            stack.__exit__(type(over), over, traceback)
        self.book.write()  # what was spent since its last word

    def on_trial_start(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        """Open the trial's run; a trial that Tune starts again after a lost process keeps its own."""
        if trial.trial_id in self.open:
            return
        it, stack = self.book.start(trial.config), ExitStack()
        run = stack.enter_context(
            track.run(
                self.experiment,
                self.work.kind,
                f"{self.experiment.name} {self.work.kind} {it.number} ({key(it.point)})",
                parent=self.parent,
                resume=bool(it.run),
                tags={"sicot.trial": it.number},
                params=it.point,
            )
        )
        it.run = run.id
        self.open[trial.trial_id] = it, run, stack
        self.budget.running = len(self.open)
        self.since[trial.trial_id] = self.free.popleft() if self.free else time.monotonic()

    def on_trial_result(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, result: dict[str, Any], **info: Any
    ) -> None:
        """Note an epoch."""
        it, run, _ = self.open[trial.trial_id]
        self.training[trial.trial_id] = result["training_s"]
        new = all(epoch["epoch"] < result["epoch"] for epoch in it.epochs)  # a trial that goes on repeats its last one
        metrics = {name: value for name, value in result.items() if "/" in name or name in LOGGED}
        self.book.epoch(it, {"epoch": result["epoch"], **metrics})
        if new:
            run.metrics(metrics, step=result["epoch"])
        if time.monotonic() - self.spoke > SILENCE:
            self._say(f"  … {', '.join(self._where(it) for it, _, _ in self.open.values())}")

    def on_trial_complete(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        """Close a trial that reached the last epoch, or that ASHA has stopped."""
        it, run, stack = self._close(trial.trial_id)
        epoch, epochs = it.epochs[-1]["epoch"], self.experiment.train.epochs
        self.book.end(it, "finished" if epoch == epochs else "stopped")
        if it.state == "stopped":
            run.tags({"sicot.stopped": f"ASHA, after epoch {epoch} of {epochs}"})
        stack.close()
        storage.delete_folder(f"{self.work.checkpoints}/{key(it.point)}")
        best = self.book.best
        if best and best.objective is not None:
            name = "best" if self.work.kind == "trial" else "screening/best"
            self.parent.metrics({name: best.objective}, step=len(self.book.ended))
        self._say(self._line(it))

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        """Close a trial that failed."""
        it, _, stack = self._close(trial.trial_id)
        text = Path(trial.error_file).read_text().strip()  # Tune's copy in the storage may come later
        self.book.end(it, "failed", text.splitlines()[-1][:300])
        error = RuntimeError(it.reason)
        stack.__exit__(RuntimeError, error, None)
        self._say(self._line(it))

    def _close(self, trial_id: str) -> tuple[Trial, Run, ExitStack]:
        now = time.monotonic()
        self.overheads.append(now - self.since.pop(trial_id) - self.training.pop(trial_id, 0.0))
        self.free.append(now)
        closed = self.open.pop(trial_id)
        self.budget.running = len(self.open)
        return closed

    def _say(self, line: str) -> None:
        print(line, flush=True)
        self.spoke = time.monotonic()

    def _where(self, it: Trial) -> str:
        if it.objective is None:
            return f"trial {it.number} starts"
        return f"trial {it.number} epoch {it.epochs[-1]['epoch']:g}/{self.experiment.train.epochs} {it.objective:.1%}"

    def _line(self, it: Trial) -> str:
        """One line on a trial that ended: how, its objective and accuracies, the best so far, the time left."""
        start, epochs = f"{self.work.kind} {it.number:>2}", self.experiment.train.epochs
        if it.state == "failed":
            return f"{start}  failed: {it.reason}"
        last, best = it.epochs[-1], self.book.best
        end = "finished          " if it.state == "finished" else f"stopped at {last['epoch']:>2g} of {epochs:<2}"
        parts = [f"{start}  {end}  objective {it.objective:6.1%}", f"photo {last['val/image/top1']:6.1%}"]
        if "val/image_text/top1" in last:
            parts.append(f"with words {last['val/image_text/top1']:6.1%}")
        if best is not None:
            parts.append("the best so far" if best is it else f"best {best.objective:.1%} (trial {best.number})")
        ended = len(self.book.ended)
        left = self.experiment.tune.trials - ended
        if left > 0:
            seconds = round((time.monotonic() - self.begun) / max(1, ended - self.before) * left)
            parts.append(f"{ended} of {self.experiment.tune.trials}, about {seconds // 60}:{seconds % 60:02} left")
        return "  ".join(parts)
