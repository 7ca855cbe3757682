"""The pictures of a search in its MLflow run, drawn anew while it runs."""

from __future__ import annotations

import logging
from threading import Event, Thread
from types import TracebackType

from optuna.distributions import BaseDistribution

from sicot.errors import UserError
from sicot.search import plots
from sicot.search.book import Book
from sicot.track import Run

EVERY = 30.0  # seconds
log = logging.getLogger(__name__)


class Live:
    """Draws in a thread of its own, so that neither trials nor their figures wait for it, while there is news."""

    def __init__(self, run: Run, book: Book, ranges: dict[str, BaseDistribution], folder: str):
        """
        Args:
            run: where pictures go.
            book: of the trials.
            ranges: of the settings.
            folder: in the run's artefacts.
        """
        self.run, self.book, self.ranges, self.folder = run, book, ranges, folder
        self.over = Event()
        self.thread = Thread(target=self._keep_drawing, name="pictures", daemon=True)
        self.drawn = -1

    def __enter__(self) -> Live:
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.over.set()
        self.thread.join()
        if error is None:
            self._draw()  # as it ended

    def _keep_drawing(self) -> None:
        while not self.over.wait(EVERY):
            self._draw()

    def _draw(self) -> None:
        trials = [trial.model_copy() for trial in self.book.trials]  # the search goes on meanwhile
        front = self.book.front
        news = sum(len(trial.epochs) + trial.ended for trial in trials)
        if news == self.drawn:
            return
        try:
            shown = []
            for name, figure in plots.draw(trials, front, self.ranges):
                self.run.figure(figure, f"{self.folder}/{name}")
                shown.append(f"{self.folder}/{name}")
            self.run.show(shown)
            self.drawn = news
        except UserError as error:  # MLflow is away; what it missed it gets with the next
            log.warning("%s", error)
