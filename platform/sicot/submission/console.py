"""What a person is told: where a job can be seen, how it ended, which jobs there are, and what stopping one leaves."""

from __future__ import annotations

import sys
import time
from typing import Any

from sicot.errors import UserError, mask
from sicot.submission.cluster import Cluster, Job
from sicot.submission.doors import Command
from sicot.submission.follow import DETACHED, Follow, exit_code
from sicot.submission.screen import Screen

RECENT = 10  # jobs that have ended which a short list shows
SHOWN = 5000  # characters of a failure that no log tells of


def send(cluster: Cluster, command: Command) -> Job:
    """Submit a job, or find the one that does this work already, and say which it is."""
    if "://" not in command.storage and not command.storage.startswith("/") and command.takes_experiment:
        print(f"--storage {command.storage} is a folder beside the code on the cluster, which goes with it:")
        print("  name a URI or a folder that all nodes reach, to keep what the job makes")
    print(f"sending the code to {cluster.address}", flush=True)
    job, there = cluster.submit(command)
    print(f"{job.id} {'does this already: joining it' if there else 'is submitted'}")
    return job


def follow(cluster: Cluster, job: Job) -> int:
    """Show a job until it ends or the user turns away; gives the exit code of this process."""
    screen = Screen()
    _links(cluster, job)
    ended = Follow(cluster, job.id, screen).until_end()
    if ended is None:
        print(f"{job.id} goes on\n  follow it  python -m jobs.submit --attach {job.id}")
        print(f"  stop it    python -m jobs.stop {job.id}")
        return DETACHED
    if ended.state == "FAILED" and ended.exit_code is None:
        print(mask(ended.message[-SHOWN:]))  # it never began, or its node was lost: the log does not say
    how = {"SUCCEEDED": "succeeded", "STOPPED": "was stopped"}.get(ended.state, "failed")
    code = f" with exit code {ended.exit_code}" if ended.exit_code else ""
    print(f"\n{ended.id} {how}{code} after {_duration(ended.seconds)}")
    _links(cluster, ended)
    if ended.state != "SUCCEEDED" and ended.command and ended.command.takes_experiment:
        print(f"  go on      {mask(ended.command.again)}")
    return exit_code(ended)


def find(cluster: Cluster, what: str) -> Job:
    """The job with this id, or the one that is at work on a run of this name.

    Raises:
        UserError: there is none, or several are at work on it.
    """
    jobs = cluster.jobs()
    if exact := [job for job in jobs if job.id == what]:
        return exact[0]
    running = [job for job in jobs if job.run == what and not job.ended]
    if len(running) > 1:
        raise UserError(f"several jobs are at work on {what}: name one of {', '.join(job.id for job in running)}")
    if not running:
        raise UserError(f"no job on {cluster.address} has the id {what} or is at work on a run of this name")
    return running[0]


def stop(cluster: Cluster, what: str, sure: bool) -> None:
    """Stop a job, and say what it leaves.

    Raises:
        UserError: there is no such job, it has ended, or nobody can be asked whether it should be stopped.
    """
    job = find(cluster, what)
    if job.ended:
        raise UserError(f"{job.id} has ended already: {job.state.lower()}")
    if not sure and not sys.stdin.isatty():
        raise UserError(f"nobody is there to ask: give --yes to stop {job.id}")
    if not sure and not input(f"Stop {job.id}, at work for {_duration(job.seconds)}? [y/N] ").lower().startswith("y"):
        return
    cluster.stop(job.id)
    print(f"stopping {job.id}", flush=True)
    while not (job := cluster.job(job.id)).ended:
        time.sleep(0.5)
    print(f"{job.id}: {job.state.lower()} after {_duration(job.seconds)}")
    if job.command and job.command.takes_experiment:
        print(f"  what it finished stays in {mask(job.command.storage)}/{job.run}")
        print(f"  go on      {mask(job.command.again)}")
    _links(cluster, job)


def rows(cluster: Cluster, everything: bool) -> list[dict[str, Any]]:
    """Jobs as the list shows them, the latest first: those at work and some that have ended, or all of them."""
    jobs = cluster.jobs()
    recent = [job for job in jobs if job.ended][:RECENT]
    return [
        {
            "id": job.id,
            "job": mask(job.what),
            "run": job.run,
            "state": job.state.lower(),
            "started": job.started.isoformat(timespec="seconds") if job.started else "",
            "seconds": round(job.seconds),
            "by": job.metadata.get("user", ""),
            "commit": job.metadata.get("commit", ""),
            "data": job.metadata.get("data", ""),
            "mlflow_run": job.metadata.get("mlflow_run", ""),
            "mlflow": job.metadata.get("mlflow", ""),
        }
        for job in jobs
        if everything or not job.ended or job in recent
    ]


def table(jobs: list[dict[str, Any]]) -> str:
    """The list for people."""
    lines = [["id", "job", "run", "state", "started", "took", "by", "MLflow"]]
    for job in jobs:
        started = job["started"][:16].replace("T", " ")
        by = [started, _duration(job["seconds"]), job["by"], job["mlflow"]]
        lines.append([job["id"], job["job"][:40], job["run"], job["state"], *by])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def _links(cluster: Cluster, job: Job) -> None:
    print(f"  dashboard  {cluster.page(job.id)}")
    if mlflow := job.metadata.get("mlflow") or (job.command and job.command.mlflow):
        print(f"  MLflow     {mask(mlflow)}", flush=True)


def _duration(seconds: float) -> str:
    hours, minutes = int(seconds // 3600), int(seconds // 60) % 60
    return f"{hours}:{minutes:02d}:{int(seconds % 60):02d}"
