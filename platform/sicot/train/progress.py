"""Lines that say how far training is and how long it has to go, so that a long epoch is not silent."""

from __future__ import annotations

import time
from typing import Any


class Lines:
    """Prints them. Time left is told from what this process did itself, validation and checkpoints included.

    Args:
        name: what each line begins with.
        epochs: in all.
        seconds: between two lines within an epoch, at least.
    """

    def __init__(self, name: str, epochs: int, seconds: float = 15.0):
        self.name, self.epochs, self.seconds = name, epochs, seconds
        self._begun = self._last = time.monotonic()
        self._before: float | None = None  # epochs that were done when this process began

    def step(self, epoch: int, step: int, steps: int) -> None:
        """Print a line now and then; see :data:`sicot.train.worker.Progress`."""
        if self._before is None:
            self._before = epoch + (step - 1) / steps
        if time.monotonic() - self._last > self.seconds:
            self._say(f"epoch {epoch + 1}/{self.epochs}  step {step}/{steps}  {self._left(epoch + step / steps)}")

    def epoch(self, metrics: dict[str, Any]) -> None:
        """Print a line on a finished epoch: loss, validation, speed, time left."""
        words = f", with words {metrics['val/image_text/top1']:.1%}" if "val/image_text/top1" in metrics else ""
        self._say(
            f"epoch {metrics['epoch']}/{self.epochs}  loss {metrics['loss/loss']:.3f}  "
            f"validation: photo {metrics['val/image/top1']:.1%}{words}  "
            f"{metrics['images_per_s']:.0f} images/s  {self._left(metrics['epoch'])}"
        )

    def _left(self, done: float) -> str:
        spent = time.monotonic() - self._begun
        seconds = spent / (done - (self._before or 0.0)) * (self.epochs - done)
        return f"{int(seconds // 60)}:{int(seconds % 60):02d} left"

    def _say(self, line: str) -> None:
        print(f"{self.name}{line}", flush=True)
        self._last = time.monotonic()
