"""Co-train a recognizer on a prepared set: `python -m jobs.train --preset demo` (after `python -m jobs.prepare`).

The same command continues an interrupted training; `--fresh` starts it over. `--help` lists every setting.
"""

from __future__ import annotations

from sicot import cluster, config, pipeline
from sicot.errors import door


def main() -> None:
    """Train what the command line says; the bundle is at <storage>/<name>/bundle."""
    experiment = config.load(config.Experiment, program="python -m jobs.train")
    with cluster.session(pipeline.places(experiment)):
        pipeline.train(experiment)


if __name__ == "__main__":
    door(main)
