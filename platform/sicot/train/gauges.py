"""What Prometheus sees of a training while it runs. The first worker tells; when it is gone, so are the gauges."""

from __future__ import annotations

import time
from typing import Any

from sicot.config import Experiment
from sicot.export import Export, Metric

EPOCH = Metric("gauge", "sicot_train_epoch", "Epochs done, with the part of the one that runs.", ("run",))
EPOCHS = Metric("gauge", "sicot_train_epochs", "Epochs that there are to be.", ("run",))
STEPS = Metric("counter", "sicot_train_steps", "Steps done.", ("run",))
IMAGES = Metric("counter", "sicot_train_images", "Photos trained on, by all workers.", ("run",))
WAIT = Metric("gauge", "sicot_train_data_wait", "Share of the last epoch that workers waited for data.", ("run",))
LOSS = Metric("gauge", "sicot_train_loss", "Mean of the last epoch, by part; loss is their sum.", ("run", "part"))
ACCURACY = Metric(
    "gauge", "sicot_train_accuracy", "On validation after the last epoch, by way of asking.", ("run", "asked", "rows")
)
METRICS = (EPOCH, EPOCHS, STEPS, IMAGES, WAIT, LOSS, ACCURACY)

SECONDS = 2.0
"""Between looks at the steps: Ray hands figures over every 10 s."""


class Gauges:
    """The figures of one training, by the name of its run."""

    def __init__(self, experiment: Experiment, world: int):
        """``world``: how many workers train."""
        self.run = {"run": experiment.name}
        self.batch = experiment.train.batch_size * world
        self.export = Export(METRICS)
        self.export.set(EPOCHS, experiment.train.epochs, self.run)
        self.told = time.monotonic()
        self.untold = 0

    def step(self, epoch: int, step: int, steps: int) -> None:
        """A :data:`sicot.train.worker.Progress`."""
        self.untold += 1
        if step < steps and time.monotonic() - self.told < SECONDS:
            return
        self.export.add(STEPS, self.untold, self.run)
        self.export.add(IMAGES, self.untold * self.batch, self.run)
        self.export.set(EPOCH, epoch + step / steps, self.run)
        self.told, self.untold = time.monotonic(), 0

    def epoch(self, metrics: dict[str, Any]) -> None:
        """What :func:`sicot.train.worker.fit` reports of a finished epoch."""
        self.export.set(WAIT, metrics["data_wait"], self.run)
        for name, value in metrics.items():
            kind, *rest = name.split("/")
            if kind == "loss":
                self.export.set(LOSS, value, {**self.run, "part": rest[0]})
            elif kind == "val" and len(rest) == 2:
                asked, rows = rest
                self.export.set(ACCURACY, value, {**self.run, "asked": asked, "rows": ROWS[rows]})


ROWS = {"top1": "all", "macro": "macro", "tail": "tail"}
