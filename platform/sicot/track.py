"""MLflow: where every job leaves its settings, figures and files.

The process that starts a job owns its run: it opens it with :func:`run`, hands the :class:`Run` to whoever logs
(it may travel to another process), and closes it FINISHED, FAILED or, when it is stopped, KILLED. A run whose process
was killed stays RUNNING in MLflow's books; the next start of the same kind and name continues or closes it. A job that
was submitted to a cluster names its run there, and the run names the job.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import mlflow.store.db.utils
import psutil
import requests
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from sicot import origin
from sicot.config import Job
from sicot.errors import UserError, mask

# A server that is gone is told in seconds, not after MLflow's seven retries and minutes.
for _name, _value in {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}.items():
    os.environ.setdefault(_name, _value)

logging.getLogger("mlflow").setLevel(logging.ERROR)  # else a screenful of INFO when a fresh store is made
logging.getLogger("alembic").setLevel(logging.ERROR)
mlflow.store.db.utils.MAX_RETRY_COUNT = 3  # a database that does not answer: about a second, not two minutes
log = logging.getLogger(__name__)

BATCH = 100  # params and tags a call may carry; MLflow's own limit
LONGEST = {"param": 6000, "tag": 5000, "key": 250}  # characters MLflow takes
RETRY_AFTER = 30.0  # seconds between tries while the server does not answer
PATIENCE = 120.0  # seconds that a server which is away is waited for when a run ends
WAITING = 100_000  # metrics kept for it meanwhile; the oldest go first


class Run:
    """An MLflow run that is open somewhere. Picklable: it is an address, not a connection."""

    def __init__(self, uri: str, run_id: str):
        self.uri, self.id = uri, run_id
        self._waiting: deque[Metric] = deque(maxlen=WAITING)
        self._not_before = 0.0

    def __reduce__(self) -> tuple[Any, ...]:
        return Run, (self.uri, self.id)

    @cached_property
    def client(self) -> MlflowClient:
        return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    def params(self, values: Mapping[str, Any]) -> None:
        """Log settings, nested ones under dotted names. MLflow's params cannot change: known names keep their value."""
        with talking(self.uri):
            known = self.client.get_run(self.id).data.params
            fresh = {name: value for name, value in _flat(values, ".").items() if name not in known}
            params = [Param(name[: LONGEST["key"]], _text(value, LONGEST["param"])) for name, value in fresh.items()]
            for start in range(0, len(params), BATCH):
                self.client.log_batch(self.id, params=params[start : start + BATCH])

    def tags(self, values: Mapping[str, Any]) -> None:
        """Set tags; a tag that is there is replaced."""
        with talking(self.uri):
            tags = [RunTag(name[: LONGEST["key"]], _text(value, LONGEST["tag"])) for name, value in values.items()]
            for start in range(0, len(tags), BATCH):
                self.client.log_batch(self.id, tags=tags[start : start + BATCH])

    def metrics(self, values: Mapping[str, Any], step: int | None = None) -> None:
        """Log figures, nested ones under names joined by a slash; None is left out.

        Never raises because of the server: what it does not take waits for the next call or the end of the run.
        """
        now = int(time.time() * 1000)
        for name, value in _flat(values, "/").items():
            if value is not None:
                self._waiting.append(Metric(name, float(value), now, step or 0))
        if time.monotonic() >= self._not_before:
            self.flush()

    def settle(self) -> bool:
        """Send the metrics that wait, to a server that is away once it is back, if that is soon; whether all are sent.

        Never raises.
        """
        self.flush()
        if self._waiting and _comes_back(self.uri):
            self.flush()
        return not self._waiting

    def flush(self) -> None:
        """Send the metrics that wait."""
        while self._waiting:
            batch = [self._waiting[i] for i in range(min(len(self._waiting), 500))]
            try:
                self.client.log_batch(self.id, metrics=batch)
            except TROUBLE as error:
                self._not_before = time.monotonic() + RETRY_AFTER
                log.warning("%d metrics wait for MLflow at %s: %s", len(self._waiting), mask(self.uri), _line(error))
                return
            for _ in batch:
                self._waiting.popleft()

    def file(self, path: str | Path, folder: str = "") -> None:
        """Keep a copy of a local file (or of what is in a folder) with the run."""
        with talking(self.uri):
            keep = self.client.log_artifacts if Path(path).is_dir() else self.client.log_artifact
            keep(self.id, str(path), folder or None)

    def figure(self, figure: Any, name: str) -> None:
        """Keep a matplotlib figure under a file name such as `plots/accuracy.png`."""
        with talking(self.uri):
            self.client.log_figure(self.id, figure, name)

    def show(self, names: Iterable[str]) -> None:
        """Put figures that are kept on the run's page itself, as its description."""
        place = f"get-artifact?run_uuid={self.id}&path"
        self.tags({"mlflow.note.content": "\n\n".join(f"![{name}]({place}={name})" for name in names)})

    def dict(self, value: Any, name: str) -> None:
        """Keep a JSON (or YAML, by the file name) value."""
        with talking(self.uri):
            self.client.log_dict(self.id, value, name)


@contextmanager
def run(
    job: Job,
    kind: str,
    name: str,
    *,
    parent: Run | None = None,
    resume: bool = False,
    tags: Mapping[str, Any] | None = None,
    params: Mapping[str, Any] | None = None,
) -> Iterator[Run]:
    """An MLflow run for the length of the block, with the job's settings as params.

    Args:
        job: the job's settings; names the store (`tracking_uri`) and the experiment.
        kind: what sort of job (prepare, train, search, …); with `name` it identifies runs that continue each other.
        name: shown in MLflow's list.
        parent: the run this one is nested under.
        resume: continue the newest run of this kind and name if it did not finish and its process is gone.
        tags: further tags, such as ``{"sicot.data": digest}``.
        params: in place of the job's settings: what sets one of many nested runs apart.

    Raises :class:`UserError` with one line that names the store if MLflow cannot be reached.
    """
    uri = job.tracking_uri
    client = connect(uri)
    with talking(uri):
        experiment = _experiment(client, job)
        opened = _continue_or_close(client, experiment, kind, name, resume)
        if opened is None:
            opened = client.create_run(experiment, run_name=name).info.run_id
        it = Run(uri, opened)
        nested = {"mlflow.parentRunId": parent.id} if parent else {}
        it.tags({"sicot.kind": kind, "sicot.name": name, **nested, **_who(), **(tags or {})})
        it.params(job.model_dump(mode="json") if params is None else params)
    if parent is None and origin.submission():
        _tell(it, experiment, tags or {})
    try:
        yield it
    except (KeyboardInterrupt, SystemExit):  # Ctrl-C; SIGTERM, see sicot.errors.door
        _close(it, "KILLED", "stopped")
        raise
    except BaseException as error:
        _close(it, "FAILED", _line(error))
        raise
    _close(it, "FINISHED")


def connect(uri: str) -> MlflowClient:
    """A client of the MLflow server or store at `uri`; a fresh SQLite store is made, by one process at a time.

    :class:`UserError` within seconds if nothing answers there.
    """
    if uri.startswith(("http://", "https://")):
        try:
            requests.get(uri, timeout=5)  # any answer will do
        except requests.exceptions.SSLError:
            pass  # MLflow has its own settings for certificates
        except requests.RequestException:
            raise UserError(
                f"no MLflow server answers at {mask(uri)}: start it, or leave track.uri out for a local store"
            ) from None
    with talking(uri), _one_at_a_time(uri):
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.search_experiments(max_results=1)
    return client


@contextmanager
def talking(uri: str) -> Iterator[None]:
    """What MLflow, its database or the network raise inside becomes one line for the user."""
    try:
        yield
    except TROUBLE as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        raise UserError(f"MLflow at {mask(uri)}: {_line(error)}") from error


TROUBLE = (MlflowException, requests.RequestException, SQLAlchemyError, OSError)


@dataclass(frozen=True)
class Past:
    """What MLflow keeps of a run."""

    id: str
    experiment: str
    status: str
    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]


def read(uri: str, run_id: str) -> Past | None:
    """A run by its id; None if there is none."""
    client = connect(uri)
    with talking(uri):
        try:
            return _past(client.get_run(run_id))
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            return None


def past(job: Job, tags: Mapping[str, str], beside: Past | None = None) -> Iterator[Past]:
    """All runs with these tags, the newest first, in the job's MLflow experiment (or in that of ``beside``)."""
    client = connect(job.tracking_uri)
    with talking(job.tracking_uri):
        experiment = beside.experiment if beside else _experiment(client, job)
        wanted = " and ".join(f"tags.`{name}` = {value!r}" for name, value in tags.items())
        token: str | None = ""
        while token is not None:
            page = client.search_runs([experiment], wanted, max_results=1000, page_token=token or None)
            yield from map(_past, page)
            token = page.token or None


def _past(run: Any) -> Past:
    data = run.data
    return Past(run.info.run_id, run.info.experiment_id, run.info.status, data.params, data.metrics, data.tags)


def close_children(parent: Run) -> None:
    """Close the runs nested under `parent` that nobody will: Ray Tune stops trials without a word to them."""
    experiment = parent.client.get_run(parent.id).info.experiment_id
    left = f"tags.`mlflow.parentRunId` = '{parent.id}' and attributes.status = 'RUNNING'"
    for child in parent.client.search_runs([experiment], left, max_results=1000):
        parent.client.set_terminated(child.info.run_id, "KILLED")


def _tell(it: Run, experiment: str, tags: Mapping[str, Any]) -> None:
    """Say in the job's log and on the cluster which run this is."""
    page = f"#/experiments/{experiment}/runs/{it.id}?workflowType=machine_learning"  # else among those of GenAI
    link = f"{it.uri.rstrip('/')}/{page}" if it.uri.startswith("http") else it.uri
    print(f"MLflow run {it.id}: {mask(link)}", flush=True)
    data = {"data": tags["sicot.data"]} if "sicot.data" in tags else {}
    origin.tell({"mlflow_run": it.id, "mlflow": mask(link), **data})


def _close(it: Run, status: str, reason: str | None = None) -> None:
    """End the run. The job's own outcome counts: a server that stays away is told about, not raised."""
    for again in (it.settle(), False):  # it is waited for once
        try:
            if reason:
                it.tags({"sicot.reason": reason})
            it.tags(_ray_job())
            close_children(it)
            it.client.set_terminated(it.id, status)
            return
        except (*TROUBLE, UserError) as error:
            if not again or not _comes_back(it.uri):
                log.warning("MLflow run %s could not be closed as %s: %s", it.id, status, _line(error))
                return


def _comes_back(uri: str) -> bool:
    """Whether the server at `uri` answers within `PATIENCE`; False for a store without a server."""
    if not uri.startswith(("http://", "https://")):
        return False
    begun = time.monotonic()
    while time.monotonic() < begun + PATIENCE:
        try:
            requests.get(uri, timeout=5)
            return True
        except requests.RequestException:
            if time.monotonic() < begun + 1:
                log.warning("waiting up to %.0f s for MLflow at %s", PATIENCE, mask(uri))
            time.sleep(1)
    return False


def _experiment(client: MlflowClient, job: Job) -> str:
    """Id of the job's experiment, made if needed; a local store keeps its files beside the database."""
    name = job.track.experiment
    found = client.get_experiment_by_name(name)
    if found is not None and found.lifecycle_stage != "active":
        raise UserError(f"track.experiment: {name} was deleted in MLflow: restore it there or choose another name")
    if found is not None:
        return found.experiment_id
    store = _sqlite_file(job.tracking_uri)
    try:
        return client.create_experiment(name, artifact_location=str(store.parent / "artifacts") if store else None)
    except MlflowException:  # another job was faster
        if (found := client.get_experiment_by_name(name)) is None:
            raise
        return found.experiment_id


def _continue_or_close(client: MlflowClient, experiment: str, kind: str, name: str, resume: bool) -> str | None:
    """The run to continue, opened again; what else a dead process left RUNNING is closed FAILED."""
    mine = f"tags.`sicot.kind` = {kind!r} and tags.`sicot.name` = {name!r}"
    earlier = client.search_runs([experiment], mine, order_by=["attributes.start_time DESC"])
    dead = [run for run in earlier if run.info.status == "RUNNING" and not _alive(run.data.tags)]
    continued = None
    if resume and earlier and (earlier[0] in dead or earlier[0].info.status in ("FAILED", "KILLED")):
        continued = earlier[0].info.run_id
        client.update_run(continued, status="RUNNING")
    for left in dead:
        if left.info.run_id != continued:
            _close(Run(client.tracking_uri, left.info.run_id), "FAILED", "its process was killed")
    return continued


def _alive(tags: Mapping[str, str]) -> bool:
    """Whether the process that owns a run still lives; one on another host counts as alive, as we cannot know."""
    if tags.get("sicot.host") != socket.gethostname():
        return True
    try:
        process = psutil.Process(int(tags["sicot.pid"]))
        same = abs(process.create_time() - float(tags["sicot.process_start"])) < 2  # else the number was given again
        return same and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, KeyError, ValueError):
        return False


def _who() -> dict[str, Any]:
    """Tags that say which code and which process made a run."""
    return {
        "mlflow.user": origin.user(),
        "mlflow.source.name": " ".join(sys.argv[:1]),
        "mlflow.source.git.commit": origin.commit(),
        "sicot.host": socket.gethostname(),
        "sicot.pid": os.getpid(),
        "sicot.process_start": psutil.Process().create_time(),
        **_ray_job(),
    }


def _ray_job() -> dict[str, str]:
    """The tag that names the Ray job: its submission id, else its id once Ray is up."""
    if origin.submission():
        return {"sicot.ray_job": origin.submission()}
    ray = sys.modules.get("ray")
    return {"sicot.ray_job": ray.get_runtime_context().get_job_id()} if ray and ray.is_initialized() else {}


def _sqlite_file(uri: str) -> Path | None:
    return Path(uri.removeprefix("sqlite:///")).absolute() if uri.startswith("sqlite:///") else None


@contextmanager
def _one_at_a_time(uri: str) -> Iterator[None]:
    """Processes that make the same fresh SQLite store at once would all fail."""
    file = _sqlite_file(uri)
    if file is None:
        yield
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_name(f".{file.name}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _flat(values: Mapping[str, Any], joint: str, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, names joined by `joint`."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, joint, f"{prefix}{name}{joint}"))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _text(value: Any, longest: int) -> str:
    text = mask(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _line(error: BaseException) -> str:
    """An exception as one line."""
    text = " ".join(str(error).split())[:600].rstrip(".")
    return mask(text if isinstance(error, UserError | MlflowException) else f"{type(error).__name__}: {text}")
