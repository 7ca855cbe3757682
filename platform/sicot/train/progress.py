"""Lines that say how far training is, so that a long epoch is not silent."""

from __future__ import annotations

import time
from typing import Any

from sicot.train.worker import Progress


def lines(name: str, epochs: int, seconds: float = 15.0) -> Progress:
    """Print a line now and then, with the time left at the speed so far: at most one in so many seconds."""
    begun = last = time.monotonic()
    before: float | None = None  # epochs that were done when this process began

    def progress(epoch: int, step: int, steps: int) -> None:
        nonlocal last, before
        now, done = time.monotonic(), epoch + step / steps
        if before is None:
            before = epoch + (step - 1) / steps
        if now - last > seconds:
            last = now
            left = _clock((now - begun) / (done - before) * (epochs - done))
            print(f"{name}epoch {epoch + 1}/{epochs}  step {step}/{steps}  {left} left", flush=True)

    return progress


def epoch_line(metrics: dict[str, Any], epochs: int) -> str:
    """One line on a finished epoch: loss, validation, speed, time left."""
    left = metrics["seconds"] / metrics["epoch"] * (epochs - metrics["epoch"])
    words = f", with words {metrics['val/image_text/top1']:.1%}" if "val/image_text/top1" in metrics else ""
    return (
        f"epoch {metrics['epoch']}/{epochs}  loss {metrics['loss/loss']:.3f}  "
        f"validation: photo {metrics['val/image/top1']:.1%}{words}  "
        f"{metrics['images_per_s']:.0f} images/s  {_clock(left)} left"
    )


def _clock(seconds: float) -> str:
    return f"{int(seconds // 60)}:{int(seconds % 60):02d}"
