"""A cluster that takes jobs, through Ray's own client; what goes wrong on the way is one line."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient, JobType

from sicot import origin
from sicot.errors import UserError, mask
from sicot.submission.doors import Command, runtime_env

TIMEOUT = (5.0, 60.0)  # seconds to connect, and for an answer; Ray's own client would wait for ever


class Away(UserError):
    """Nothing answers there, now."""


class Client(JobSubmissionClient):
    """Ray's client, but none of its requests waits for ever."""

    def _do_request(self, method: str, endpoint: str, **options: Any) -> requests.Response:
        return super()._do_request(method, endpoint, **{"timeout": TIMEOUT, **options})

    def session(self) -> str:
        """Names the cluster as it was started; another start is another session."""
        return str(self._do_request("GET", "/api/version").json()["session_name"])


class Job:
    """A job that was submitted, as the cluster tells of it."""

    def __init__(self, told: JobDetails):
        self.id: str = told.submission_id or told.job_id or ""
        self.metadata: dict[str, str] = told.metadata or {}
        self.command = Command.parse(told.entrypoint)
        self.entrypoint: str = told.entrypoint
        self.state: str = told.status.value
        self.ended: bool = told.status.is_terminal()
        self.message: str = told.message or ""
        self.exit_code: int | None = told.driver_exit_code
        self.started, self.finished = (_time(each) for each in (told.start_time, told.end_time))

    @property
    def run(self) -> str:
        """Name of the run that it works on, "" where it works on none."""
        return self.metadata.get("run") or (self.command.run if self.command else "")

    @property
    def what(self) -> str:
        """Which job it is, in a word or so."""
        return self.command.door if self.command else self.entrypoint

    @property
    def seconds(self) -> float:
        """How long it has run."""
        until = self.finished or datetime.now().astimezone()
        return (until - self.started).total_seconds() if self.started else 0.0


def _time(milliseconds: int | None) -> datetime | None:
    return datetime.fromtimestamp(milliseconds / 1000).astimezone() if milliseconds else None


class Cluster:
    """The cluster at an address.

    Args:
        address: of the dashboard, as `http://head:8265`; default: as Ray's own commands find it, from
            ``RAY_API_SERVER_ADDRESS``, ``RAY_ADDRESS`` or a cluster on this machine.

    Raises:
        UserError: none answers there, or it wants a token; so does every method.
    """

    def __init__(self, address: str | None = None):
        if address:
            os.environ["RAY_API_SERVER_ADDRESS"] = address  # which Ray prefers to its own argument
        for handler in logging.getLogger("ray").handlers:
            handler.setLevel(logging.ERROR)  # else it tells which files it packs, and of every connection that ends
        self.address = mask(os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS") or "this machine")
        with self._talking():
            self.client = Client()
            self.address = mask(self.client.get_address())

    def jobs(self) -> list[Job]:
        """All jobs that were submitted here, the latest first."""
        with self._talking():
            told = [Job(each) for each in self.client.list_jobs() if each.type == JobType.SUBMISSION]
        return sorted(told, key=lambda job: job.started.timestamp() if job.started else 0.0, reverse=True)

    def job(self, job_id: str) -> Job:
        """What there is to tell of a job."""
        with self._talking():
            return Job(self.client.get_job_info(job_id))

    def log(self, job_id: str) -> str:
        """A job's whole log."""
        with self._talking():
            return str(self.client.get_job_logs(job_id))

    def tail(self, job_id: str) -> AsyncIterator[str]:
        """A job's log from its beginning, and then as it comes."""
        return self.client.tail_job_logs(job_id)

    def stop(self, job_id: str) -> None:
        """Ask a job to stop: SIGTERM, and SIGKILL if that does not help."""
        with self._talking():
            self.client.stop_job(job_id)

    def page(self, job_id: str) -> str:
        """The dashboard's page of a job."""
        return f"{self.address}/#/jobs/{job_id}"

    def submit(self, command: Command) -> tuple[Job, bool]:
        """Send a job with the code as it stands here; gives it, and whether it was there already.

        A job that does the same work and has not ended is not joined by a second one. Two that are sent at the same
        moment get the same id, and Ray takes the first.

        Raises:
            UserError: a job does this work already with other settings, or shall start over while it runs.
        """
        earlier = [job for job in self.jobs() if job.command and job.command.key == command.key]
        running = next((job for job in earlier if not job.ended), None)
        if running is not None:
            return _the_same(running, command), True
        with self._talking():
            unique = [self.client.session(), command.key, earlier[0].id if earlier else ""]
            number = hashlib.sha256(json.dumps(unique).encode()).hexdigest()[:8]
            made = "-".join(filter(None, ("sicot", command.door, command.run, number)))
            try:
                self.client.submit_job(
                    entrypoint=command.line, submission_id=made, runtime_env=runtime_env(), metadata=_about(command)
                )
            except RuntimeError as error:
                if "already exists" not in str(error):
                    raise
                return _the_same(self.job(made), command), True
        return self.job(made), False

    @contextmanager
    def _talking(self) -> Iterator[None]:
        """What Ray's client raises becomes one line."""
        try:
            yield
        except AuthenticationError as error:
            wanted = "give RAY_AUTH_MODE=token and the token in RAY_AUTH_TOKEN, or its file in RAY_AUTH_TOKEN_PATH"
            raise UserError(f"the cluster at {self.address} does not let you in without its token: {wanted}") from error
        except (ConnectionError, requests.RequestException) as error:
            where = "give --address http://<head>:8265 or set RAY_API_SERVER_ADDRESS"
            raise Away(f"no cluster answers at {self.address}: {where}") from error
        except (RuntimeError, ValueError) as error:
            text = " ".join(str(error).split())
            if "status code 404" in text:
                raise UserError(
                    f"{text.rpartition('404: ')[2].rstrip('.')} on the cluster at {self.address}"
                ) from error
            kind = Away if "status code 5" in text else UserError
            raise kind(f"the cluster at {self.address}: {mask(text[-300:])}") from error


def _the_same(running: Job, command: Command) -> Job:
    """The job that runs, if it is what the command would start."""
    stop = f"python -m jobs.stop {running.id}"
    if "--fresh" in command.arguments and "--fresh" not in (running.command or command).arguments:
        raise UserError(f"{running.id} is at work on this run: stop it before you start over ({stop})")
    if running.command and {*running.command.arguments} - {"--fresh"} != {*command.arguments} - {"--fresh"}:
        raise UserError(
            f"{running.id} is at work on this run with other settings ({mask(running.command.line)}): stop it ({stop}),"
            " or choose another --name"
        )
    return running


def _about(command: Command) -> dict[str, str]:
    """What the dashboard shows of the job, and :mod:`sicot.origin` reads in it."""
    about = {"job": command.door, "run": command.run, "storage": mask(command.storage)}
    about |= {"user": origin.user(), "commit": origin.commit()}
    return {name: value for name, value in about.items() if value}
