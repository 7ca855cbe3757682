"""Send a job to a cluster and follow it: log, progress with the time left, Ctrl-C to turn away or to stop it.

    python -m jobs.submit train --preset demo --storage s3://shop/sicot    any job by its name, then its settings
    python -m jobs.submit search --help                                    what it takes
    python -m jobs.submit --attach demo                                    follow a job again, by its run or its id

The cluster is found as Ray's own commands find it (`RAY_API_SERVER_ADDRESS`, `RAY_AUTH_MODE=token`), or at `--address`.
A job that is at work already is joined, one that was interrupted goes on. The exit code is the job's (1 where Ray does
not say), 130 when you have detached. With nothing installed but `ray[default]`, set PYTHONPATH=platform.
"""

from __future__ import annotations

import argparse
import sys

from sicot.errors import UserError, door
from sicot.submission import console
from sicot.submission.cluster import Cluster
from sicot.submission.doors import Command, doors


def main() -> None:
    """Submit or find the job, and end as it does."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.submit", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--address", help="dashboard of the cluster, such as http://head:8265")
    parser.add_argument("--attach", metavar="JOB", help="follow this job, by its id or the run it is at work on")
    parser.add_argument("job", nargs="?", help=", ".join(doors()))
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="passed on to the job")
    options = parser.parse_args()
    if (options.job is None) == (options.attach is None):
        raise UserError(f"name a job, or one to --attach: {', '.join(doors())}")
    if options.attach:
        cluster = Cluster(options.address)
        job = console.find(cluster, options.attach)
    else:
        command = Command.read(options.job, options.arguments)
        command.check()
        cluster = Cluster(options.address)
        job = console.send(cluster, command)
    sys.exit(console.follow(cluster, job))


if __name__ == "__main__":
    door(main)
