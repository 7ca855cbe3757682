"""Turn a catalogue into a prepared set: `python -m jobs.prepare --preset demo`.

Your own data: `python -m jobs.prepare --catalogue.path products.parquet --name mine`. `--help` lists every setting.
"""

from __future__ import annotations

from sicot import cluster, config, pipeline
from sicot.errors import door


def main() -> None:
    """Prepare what the command line says; a second run continues the first."""
    experiment = config.load(config.Experiment, program="python -m jobs.prepare")
    with cluster.session():
        pipeline.prepare(experiment)


if __name__ == "__main__":
    door(main)
