"""What follows the trials from the driver: the book, a nested MLflow run each, and lines for people."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial as TuneTrial

from sicot import storage, track
from sicot.config import Experiment
from sicot.search.book import Book, Trial, key
from sicot.search.space import apply
from sicot.track import Run

SILENCE = 10.0  # seconds without a line before a sign of life
LOGGED = ("objective", "learning_rate", "images_per_s", "seconds")


class Follow(Callback):
    """Owns the runs of the trials. Tune stops a trial without a word to it, so trials own none themselves."""

    def __init__(self, experiment: Experiment, book: Book, parent: Run, checkpoints: str):
        """
        Args:
            experiment: what trials train, before their values are put in.
            book: told of everything.
            parent: the search's MLflow run.
            checkpoints: where trials keep their last epoch.
        """
        self.experiment, self.book, self.parent, self.checkpoints = experiment, book, parent, checkpoints
        self.open: dict[str, tuple[Trial, Run, ExitStack]] = {}
        self.begun = self.spoke = time.monotonic()
        self.before = len(book.ended)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its settings, callbacks included; this one never leaves the driver

    def __enter__(self) -> Follow:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for _, _, stack in self.open.values():  # the search was cut off: so were they
            stack.__exit__(kind, error, traceback)

    def on_trial_start(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        """Open the trial's run; a trial that Tune starts again after a lost process keeps its own."""
        if trial.trial_id in self.open:
            return
        it, stack = self.book.start(trial.config), ExitStack()
        run = stack.enter_context(
            track.run(
                apply(self.experiment, it.point),
                "trial",
                f"{self.experiment.name} trial {it.number} ({key(it.point)})",
                parent=self.parent,
                resume=bool(it.epochs),
                tags={"sicot.trial": it.number},
            )
        )
        self.open[trial.trial_id] = it, run, stack

    def on_trial_result(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, result: dict[str, Any], **info: Any
    ) -> None:
        """Note an epoch."""
        it, run, _ = self.open[trial.trial_id]
        metrics = {name: value for name, value in result.items() if "/" in name or name in LOGGED}
        self.book.epoch(it, {"epoch": result["epoch"], **metrics})
        run.metrics(metrics, step=result["epoch"])
        if time.monotonic() - self.spoke > SILENCE:
            self._say(f"  … {', '.join(self._where(it) for it, _, _ in self.open.values())}")

    def on_trial_complete(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        """Close a trial that reached the last epoch, or that ASHA has stopped."""
        it, run, stack = self.open.pop(trial.trial_id)
        epoch, epochs = it.epochs[-1]["epoch"], self.experiment.train.epochs
        self.book.end(it, "finished" if epoch == epochs else "stopped")
        if it.state == "stopped":
            run.tags({"sicot.stopped": f"ASHA, after epoch {epoch} of {epochs}"})
        stack.close()
        storage.delete_folder(f"{self.checkpoints}/{key(it.point)}")
        best = self.book.best
        if best and best.objective is not None:
            self.parent.metrics({"best": best.objective}, step=len(self.book.ended))
        self._say(self._line(it))

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        """Close a trial that failed."""
        it, _, stack = self.open.pop(trial.trial_id)
        text = Path(trial.error_file).read_text().strip()  # Tune's copy in the storage may come later
        self.book.end(it, "failed", text.splitlines()[-1][:300])
        error = RuntimeError(it.reason)
        stack.__exit__(RuntimeError, error, None)
        self._say(self._line(it))

    def _say(self, line: str) -> None:
        print(line, flush=True)
        self.spoke = time.monotonic()

    def _where(self, it: Trial) -> str:
        if it.objective is None:
            return f"trial {it.number} starts"
        return f"trial {it.number} epoch {it.epochs[-1]['epoch']:g}/{self.experiment.train.epochs} {it.objective:.1%}"

    def _line(self, it: Trial) -> str:
        """One line on a trial that ended: how, its objective and accuracies, the best so far, the time left."""
        start, epochs = f"trial {it.number:>2}", self.experiment.train.epochs
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
            seconds = (time.monotonic() - self.begun) / max(1, ended - self.before) * left
            parts.append(
                f"{ended} of {self.experiment.tune.trials}, about {seconds // 60:.0f}:{seconds % 60:02.0f} left"
            )
        return "  ".join(parts)
