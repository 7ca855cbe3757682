"""How far a job is, read from the lines it prints."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

STEP = re.compile(r"^── (\d+)/(\d+) (\w+)")
EPOCH = re.compile(r"\bepoch (\d+)/(\d+)  (?:step (\d+)/(\d+))?")
TRIALS = re.compile(r"\b(\d+) of (\d+), about ")
ROWS = re.compile(r"\b(\w+): (\w+) *: .*?(\d+)/(\d+) \[")  # as tqdm writes
LEFT = re.compile(r"(?:(\d+):)?(\d+):(\d\d)(?: left|,)")
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class Progress:
    """Where a job stands; :meth:`read` every line, :meth:`shown` any time."""

    step: str = ""
    what: str = ""
    share: float | None = None
    ends: float | None = None

    def read(self, line: str) -> None:
        """Take in a line of the log; most say nothing of this."""
        line = COLOURS.sub("", line).strip()
        if found := STEP.search(line):
            self.step, self.what, self.share, self.ends = f"{found[1]}/{found[2]} {found[3]}  ", "", None, None
            return
        if "trial" in line and (found := TRIALS.search(line)):
            self._at(int(found[1]), int(found[2]), f"trial {found[1]}/{found[2]}")
        elif "trial" not in line and (found := EPOCH.search(line)):
            epoch, epochs = int(found[1]), int(found[2])
            within = int(found[3]) / int(found[4]) - 1 if found[3] else 0.0  # of an epoch that is not done yet
            self._at(epoch + within, epochs, f"epoch {epoch}/{epochs}")
        elif found := ROWS.search(line):
            self._at(int(found[3]), int(found[4]), f"{found[1]} {found[2]}")
        else:
            return
        left = LEFT.search(line)
        hours, minutes, seconds = (int(each or 0) for each in left.groups()) if left else (0, 0, 0)
        self.ends = time.monotonic() + 3600 * hours + 60 * minutes + seconds if left else None

    def _at(self, done: float, of: int, what: str) -> None:
        self.what, self.share = what, min(1.0, done / of) if of else None

    def shown(self, columns: int) -> str:
        """One line of at most so many columns; "" as long as nothing is known."""
        if self.share is None:
            return self.step.strip()[:columns]
        left = ""
        if self.ends is not None:
            seconds = max(0, round(self.ends - time.monotonic()))
            left = f"  {seconds // 60}:{seconds % 60:02d} left"
        text = f" {self.share:4.0%}  {self.step}{self.what}{left}"
        width = min(30, columns - len(text))
        full = round(self.share * width)
        return f"{'█' * full}{'░' * (width - full)}{text}" if width >= 5 else text.strip()[:columns]
