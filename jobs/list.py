"""List the jobs of a cluster: `python -m jobs.list`.

Shows those at work and the last ten that have ended; `--all` shows every one, `--json` all there is to tell of each:
commit, data digest and MLflow run, too. The cluster is found as by `python -m jobs.submit`.
"""

from __future__ import annotations

import argparse
import json

from sicot.errors import door
from sicot.submission import console
from sicot.submission.cluster import Cluster


def main() -> None:
    """Print the list."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.list", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--address", help="dashboard of the cluster, such as http://head:8265")
    parser.add_argument("--all", action="store_true", help="every job, however long ago")
    parser.add_argument("--json", action="store_true", help="for programs")
    options = parser.parse_args()
    jobs = console.rows(Cluster(options.address), options.all)
    print(json.dumps(jobs, indent=1, ensure_ascii=False) if options.json else console.table(jobs))


if __name__ == "__main__":
    door(main)
