"""Open the pages to follow runs by: MLflow, Prometheus and Grafana on this machine, until Ctrl-C.

    python -m jobs.dashboards                                          the runs under runs/
    python -m jobs.dashboards --track.uri http://mlflow:5000           those of a server

Starts what is installed, says how to get what is not, and prints where everything is.
"""

from __future__ import annotations

import signal
import time
from contextlib import suppress

from sicot import config, dashboards
from sicot.errors import door


class DashboardsJob(config.Job):
    """Settings of this job."""

    mlflow_port: config.Count = 5000
    """Port of MLflow, where it is started."""
    prometheus_port: config.Count = 9095
    """Port of Prometheus."""
    grafana_port: config.Count = 3000
    """Port of Grafana."""


def main() -> None:
    """Start, print, wait."""
    job = config.load(DashboardsJob, program="python -m jobs.dashboards")
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.default_int_handler)
    with (
        suppress(KeyboardInterrupt),
        dashboards.opened(job, job.mlflow_port, job.prometheus_port, job.grafana_port) as pages,
    ):
        for page in pages:
            print(f"{page.name:<12}{'  '.join(filter(None, (page.url, page.note)))}", flush=True)
        print("Ctrl-C ends what was started here", flush=True)
        while True:
            time.sleep(1)


if __name__ == "__main__":
    door(main)
