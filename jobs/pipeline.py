"""The whole way in one command: prepare, train, evaluate, register, serve, ask.

    python -m jobs.pipeline --preset demo                                       the embedded catalogue
    python -m jobs.pipeline --preset default --catalogue.path my.parquet --name mine

The same command continues what was interrupted; `--fresh` starts it over. `--help` lists every setting.
"""

from __future__ import annotations

from serve_apps import recognizer
from sicot import cluster, config, pipeline
from sicot.endpoint import server
from sicot.errors import door


def main() -> None:
    """Run all steps, write <storage>/<name>/summary.json, and print the result."""
    experiment = config.load(config.Experiment, program="python -m jobs.pipeline")
    with cluster.session(pipeline.places(experiment)) as dashboard:
        pipeline.run(experiment, recognizer.start, server.stop, dashboard)


if __name__ == "__main__":
    door(main)
