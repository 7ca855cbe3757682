"""A cluster on this machine, to learn on and to test with: three Ray nodes, MLflow on PostgreSQL, S3, Prometheus.

    python -m jobs.cluster up         starts what is not up, and says how to submit jobs
    python -m jobs.cluster status     says what is up, and where
    python -m jobs.cluster down       ends what was started, nothing else; what it held is gone

Other machines do not reach it. Started by root, each node has a network namespace and an address of its own, as
machines have; else all share 127.0.0.1. PostgreSQL and Prometheus are Debian's packages, S3 is moto's server in memory.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from sicot.errors import door
from sicot.sandbox.cluster import Sandbox

PROMETHEUS = Path(__file__).parents[1] / "deploy/prometheus/prometheus.yml"


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.cluster", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("up", "status", "down"))
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/cluster"), help="where its state is kept (runs/cluster)"
    )
    options = parser.parse_args()
    sandbox = Sandbox(options.folder, PROMETHEUS)
    if options.what == "up":
        sandbox.up()
        print(f"\nThe cluster is up.\n\n{sandbox.instructions()}")
    elif options.what == "status":
        print(sandbox.status())
    else:
        print(f"{sandbox.down()} processes ended")


if __name__ == "__main__":
    door(main)
