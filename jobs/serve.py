"""Serve a model until Ctrl-C.

    python -m jobs.serve                                     the champion, at http://127.0.0.1:8000
    python -m jobs.serve --model models:/sicot/3 --serve.port 0
    python -m jobs.serve --serve.challenger models:/sicot@challenger --serve.challenger_share 0.2

On a cluster: `serve deploy serve_apps/local.yaml`.
"""

from __future__ import annotations

import os
import signal
import time

from serve_apps import recognizer
from sicot import config
from sicot.endpoint import server
from sicot.errors import door


class ServeJob(config.Job):
    """Settings of this job."""

    model: str | None = None
    """Model to serve: an MLflow URI or the folder of a bundle; default: `serve.model`."""
    serve: config.Serve = config.Serve()
    feedback: bool = True
    """Keep answers and feedback in `storage`/feedback.db where `serve.feedback` names no database and Ray is local."""


def main() -> None:
    """Start the endpoint and stay until interrupted."""
    job = config.load(ServeJob, program="python -m jobs.serve")
    settings = job.serve.model_copy(update={"model": job.model} if job.model else {})
    if job.feedback and not settings.feedback and "RAY_ADDRESS" not in os.environ:
        settings = settings.model_copy(update={"feedback": job.feedback_url})
    with server.session(settings):
        url = recognizer.start(settings, job.tracking_uri)
        for stop in (signal.SIGINT, signal.SIGTERM):  # Ray has put handlers of its own in place
            signal.signal(stop, signal.default_int_handler)
        try:
            print(f"{settings.model} is served\n  page  {url}/\n  docs  {url}/docs\n  stop  Ctrl-C", flush=True)
            while True:  # signal.pause() would sleep through a signal that comes just before it
                time.sleep(1)
        finally:
            server.stop()


if __name__ == "__main__":
    door(main)
