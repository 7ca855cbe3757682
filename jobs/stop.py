"""Stop a job on a cluster: `python -m jobs.stop demo`, by the run it is at work on or by its id.

Asks first (not with `--yes`), waits until it has stopped, and says what is left and how to go on. Its MLflow run is
closed as KILLED. The cluster is found as by `python -m jobs.submit`.
"""

from __future__ import annotations

import argparse

from sicot.errors import door
from sicot.submission import console
from sicot.submission.cluster import Cluster


def main() -> None:
    """Stop what the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.stop", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("job", help="id of a job, or name of the run it is at work on")
    parser.add_argument("--address", help="dashboard of the cluster, such as http://head:8265")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    options = parser.parse_args()
    console.stop(Cluster(options.address), options.job, options.yes)


if __name__ == "__main__":
    door(main)
