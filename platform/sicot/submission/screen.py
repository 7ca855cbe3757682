"""The log as it comes and, where it is watched on a terminal, a line below it that says how far the job is."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TextIO

from sicot.submission.progress import Progress

CLEAR = "\r\x1b[2K"


class Screen:
    """Prints a job's log; nothing of it is changed or left out."""

    def __init__(self, out: TextIO | None = None):
        self.out = out or sys.stdout
        self.live = self.out.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self.progress = Progress()
        self._line = ""  # the beginning of a line whose end is not there yet
        self._drawn = ""

    def log(self, text: str) -> None:
        """Show what came of the log, whole lines and parts of them."""
        *whole, self._line = (self._line + text).split("\n")
        for line in whole:
            self.progress.read(line)
        if not self.live:
            self.out.write(text)
            self.out.flush()
            return
        self._draw("".join(f"{line}\n" for line in whole))

    def say(self, line: str) -> None:
        """Show a line that is not the job's."""
        self._draw(f"{line}\n") if self.live else print(line, file=self.out, flush=True)

    def tick(self) -> None:
        """Let the time left go down while nothing comes."""
        if self.live:
            self._draw("")

    def end(self) -> None:
        """Take the line below away, and show what the log ended with if that was not a whole line."""
        rest, self._line = self._line, ""
        if self.live:
            self.out.write(f"{CLEAR if self._drawn else ''}{rest}")
            self._drawn = ""
        self.out.write("\n" if rest else "")
        self.out.flush()

    def _draw(self, above: str) -> None:
        bar = self.progress.shown(shutil.get_terminal_size().columns - 1)
        if above or bar != self._drawn:
            self.out.write(f"{CLEAR if self._drawn else ''}{above}{bar}")
            self.out.flush()
            self._drawn = bar
