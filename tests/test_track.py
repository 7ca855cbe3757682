"""Runs in MLflow: how they end, how they go on after a kill, and that a lost server stops nobody."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from sicot import ports, track
from sicot.config import Experiment, Job, Track
from sicot.errors import UserError
from tests.killing import kill_tree

SLEEPER = """
import sys, time
from sicot import ports, track
from sicot.config import Job
with track.run(Job(storage=sys.argv[1]), "train", "shoes") as run:
    run.metrics({"loss": 3.0}, step=1)
    print(run.id, flush=True)
    time.sleep(60)
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow store; making one takes a second, copying one does not."""
    place = tmp_path_factory.mktemp("store") / "mlflow.db"
    track.connect(f"sqlite:///{place}")
    return place


@pytest.fixture
def job(tmp_path: Path, store: Path) -> Job:
    (tmp_path / "runs").mkdir()
    shutil.copy(store, tmp_path / "runs")
    return Job(storage=str(tmp_path / "runs"))


def told(job: Job, run_id: str) -> Any:
    return MlflowClient(job.tracking_uri).get_run(run_id)


def killed(job: Job) -> str:
    """A run whose process was killed by force; gives its id."""
    process = subprocess.Popen([sys.executable, "-c", SLEEPER, job.storage], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    run_id = process.stdout.readline().strip()
    os.kill(process.pid, signal.SIGKILL)  # not waited for: it stays a zombie, as in a container without an init
    return run_id


def test_a_run_leaves_settings_figures_files_and_who_it_was(job: Job, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("hello")
    with track.run(job, "prepare", "shoes", tags={"sicot.data": "abc"}) as run:
        run.metrics({"val": {"top1": 0.5, "tail": None}}, step=3)
        run.file(tmp_path / "note.txt", "notes")
        run.dict({"a": [1]}, "a.json")
    it = told(job, run.id)
    assert it.info.status == "FINISHED"
    assert it.data.metrics == {"val/top1": 0.5}
    assert it.data.params["track.experiment"] == "sicot"
    assert it.data.tags["sicot.data"] == "abc"
    assert it.data.tags["sicot.pid"] == str(os.getpid())
    kept = Path(it.info.artifact_uri)
    assert (kept / "notes" / "note.txt").read_text() == "hello"
    assert (kept / "a.json").exists()
    assert kept.is_relative_to(job.storage)  # not in whatever folder the job was started in


def test_a_run_that_fails_says_so_in_one_line(job: Job) -> None:
    with pytest.raises(ZeroDivisionError), track.run(job, "train", "shoes") as run:
        run.metrics({"loss": 1 / 0})
    it = told(job, run.id)
    assert it.info.status == "FAILED"
    assert it.data.tags["sicot.reason"] == "ZeroDivisionError: division by zero"


def test_ctrl_c_ends_a_run_as_killed(job: Job) -> None:
    with pytest.raises(KeyboardInterrupt), track.run(job, "train", "shoes") as run:
        raise KeyboardInterrupt
    assert told(job, run.id).info.status == "KILLED"


def test_a_job_that_is_stopped_closes_its_run_and_goes_on_with_it_later(job: Job) -> None:
    code = SLEEPER.replace("with track.run", "def main():\n  with track.run").replace("\n    ", "\n      ")
    code += "\nfrom sicot.errors import door\ndoor(main)\n"
    process = subprocess.Popen([sys.executable, "-c", code, job.storage], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    run_id = process.stdout.readline().strip()
    process.terminate()
    assert process.wait(60) == 143
    assert told(job, run_id).info.status == "KILLED"
    with track.run(job, "train", "shoes", resume=True) as run:
        assert run.id == run_id
    assert told(job, run_id).info.status == "FINISHED"


def test_a_run_of_a_submitted_job_names_it_and_who_sent_it_with_which_code(
    job: Job, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    about = {"job_submission_id": "sicot-train-shoes-1234", "user": "ada", "commit": "abc-dirty"}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"runtime_env": {}, "metadata": about}))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with track.run(job, "train", "shoes") as run:
        pass
    tags = told(job, run.id).data.tags
    assert (tags["sicot.ray_job"], tags["mlflow.user"]) == (about["job_submission_id"], "ada")
    assert tags["mlflow.source.git.commit"] == "abc-dirty"
    assert f"MLflow run {run.id}: {job.tracking_uri}" in capsys.readouterr().out


class TestAfterAKill:
    def test_the_next_start_goes_on_with_the_run(self, job: Job) -> None:
        left = killed(job)
        with track.run(job, "train", "shoes", resume=True) as run:
            assert run.id == left
            run.metrics({"loss": 2.0}, step=2)
        it = told(job, left)
        assert it.info.status == "FINISHED"
        history = MlflowClient(job.tracking_uri).get_metric_history(left, "loss")
        assert [(m.step, m.value) for m in history] == [(1, 3.0), (2, 2.0)]

    def test_or_closes_it(self, job: Job) -> None:
        left = killed(job)
        with track.run(job, "train", "bags"):
            assert told(job, left).info.status == "RUNNING"  # not its name: none of its business
        with track.run(job, "train", "shoes") as run:
            assert run.id != left
            assert told(job, left).info.status == "FAILED"
            assert "killed" in told(job, left).data.tags["sicot.reason"]

    def test_a_run_that_failed_is_continued_too_but_not_one_that_finished(self, job: Job) -> None:
        with pytest.raises(OSError, match="gone"), track.run(job, "train", "shoes") as first:
            raise OSError("gone")
        with track.run(job, "train", "shoes", resume=True) as second:
            assert second.id == first.id
        with track.run(job, "train", "shoes", resume=True) as third:
            assert third.id != first.id

    def test_a_process_that_lives_keeps_its_run(self, job: Job) -> None:
        with track.run(job, "train", "shoes") as mine, track.run(job, "train", "shoes", resume=True) as other:
            assert other.id != mine.id
            assert told(job, mine.id).info.status == "RUNNING"

    def test_a_process_number_given_again_does_not_count_as_alive(self, job: Job) -> None:
        with track.run(job, "train", "shoes") as run:
            run.tags({"sicot.process_start": time.time() - 1e6})  # this process is younger than that
            with track.run(job, "train", "shoes", resume=True) as next_run:
                assert next_run.id == run.id

    def test_a_run_of_another_machine_is_left_alone(self, job: Job) -> None:
        with track.run(job, "train", "shoes") as run:
            run.tags({"sicot.host": "elsewhere", "sicot.pid": 1})
            with track.run(job, "train", "shoes", resume=True) as next_run:
                assert next_run.id != run.id
                assert told(job, run.id).info.status == "RUNNING"


def test_settings_that_changed_do_not_stop_a_resume(job: Job) -> None:
    with pytest.raises(OSError, match="x"), track.run(Experiment(storage=job.storage), "train", "shoes"):
        raise OSError("x")
    changed = Experiment(storage=job.storage, name="other")
    with track.run(changed, "train", "shoes", resume=True) as run:
        pass
    assert told(job, run.id).data.params["name"] == "default"  # MLflow's params cannot change


def test_a_parent_closes_the_children_that_nobody_closed(job: Job) -> None:
    with track.run(job, "search", "shoes") as parent, track.run(job, "trial", "1", parent=parent) as done:
        left = parent.client.create_run(
            told(job, parent.id).info.experiment_id, tags={"mlflow.parentRunId": parent.id}
        ).info.run_id
    assert told(job, done.id).data.tags["mlflow.parentRunId"] == parent.id
    assert told(job, done.id).info.status == "FINISHED"
    assert told(job, left).info.status == "KILLED"


def log_in_another_process(run: track.Run) -> None:
    run.metrics({"loss": 1.5}, step=7)


def test_a_run_can_be_handed_to_another_process(job: Job) -> None:
    with track.run(job, "train", "shoes") as run:
        process = multiprocessing.get_context("spawn").Process(target=log_in_another_process, args=(run,))
        process.start()
        process.join(60)
        assert process.exitcode == 0
    assert told(job, run.id).data.metrics == {"loss": 1.5}


def test_jobs_that_start_together_on_a_fresh_store_all_succeed(tmp_path: Path) -> None:
    start = "import sys; from sicot import track; from sicot.config import Job\n"
    start += "with track.run(Job(storage=sys.argv[1]), 'a', sys.argv[2]): pass"
    command = [sys.executable, "-c", start, str(tmp_path)]
    together = [subprocess.Popen([*command, str(n)], stderr=subprocess.PIPE, text=True) for n in range(2)]
    assert [process.communicate(timeout=120)[1] for process in together] == [""] * 2
    assert [process.returncode for process in together] == [0] * 2


def test_long_and_many_settings_are_cut_and_batched(job: Job) -> None:
    with track.run(job, "train", "shoes") as run:
        run.params({"long": "x" * 20_000, "many": {f"n{n}": n for n in range(250)}})
        run.tags({"long": "x" * 20_000})
    it = told(job, run.id)
    assert it.data.params["long"].endswith("…")
    assert len([name for name in it.data.params if name.startswith("many.n")]) == 250


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("postgresql://me:secret@db:5432/x", "postgresql://***@db:5432/x"),
        ("s3://key:secret@bucket/a?endpoint=x", "s3://***@bucket/a?endpoint=x"),
        ("https://h/a?sig=secret&b=1", "https://h/a?sig=***&b=1"),
        ("https://h/a?X-Amz-Signature=secret", "https://h/a?X-Amz-Signature=***"),
        ("sqlite:////tmp/mlflow.db", "sqlite:////tmp/mlflow.db"),
        ("mail me@home", "mail me@home"),
    ],
)
def test_passwords_are_masked(text: str, clean: str) -> None:
    assert track.mask(text) == clean


def test_no_password_reaches_params_or_tags(job: Job) -> None:
    with track.run(Experiment(storage=job.storage), "train", "shoes") as run:
        run.params({"source": {"path": "s3://key:secret@bucket/a"}})
        run.tags({"path": "https://h/a?token=secret"})
    it = told(job, run.id)
    assert "secret" not in str(it.data.params) + str(it.data.tags)


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


class TestAServerThatIsGone:
    def test_is_told_within_seconds_in_one_line_without_its_password(self, tmp_path: Path) -> None:
        uri = f"http://me:secret@127.0.0.1:{closed_port()}"
        started = time.monotonic()
        job = Job(storage=str(tmp_path), track=Track(uri=uri))
        with pytest.raises(UserError) as error, track.run(job, "train", "shoes"):
            pass
        assert time.monotonic() - started < 10
        assert uri.replace("me:secret", "***") in str(error.value)
        assert "\n" not in str(error.value)

    def test_stops_no_training_and_gets_its_figures_later(self, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(track, "RETRY_AFTER", 0.0)
        with track.run(job, "train", "shoes") as run:
            log_batch, calls = run.client.log_batch, []

            def fail(*_: Any, **__: Any) -> None:
                calls.append(1)
                raise MlflowException("API request failed: connection refused")

            monkeypatch.setattr(run.client, "log_batch", fail)
            for step in range(3):
                run.metrics({"loss": float(step)}, step=step)
            assert len(calls) == 3
            monkeypatch.setattr(run.client, "log_batch", log_batch)
        history = MlflowClient(job.tracking_uri).get_metric_history(run.id, "loss")
        assert sorted((m.step, m.value) for m in history) == [(0, 0.0), (1, 1.0), (2, 2.0)]

    def test_is_not_asked_again_at_every_step(self, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
        with track.run(job, "train", "shoes") as run:
            calls = []
            log_batch = run.client.log_batch

            def fail(*_: Any, **__: Any) -> None:
                calls.append(1)
                raise MlflowException("timed out")

            monkeypatch.setattr(run.client, "log_batch", fail)
            for step in range(100):
                run.metrics({"loss": float(step)}, step=step)
            assert len(calls) == 1
            monkeypatch.setattr(run.client, "log_batch", log_batch)

    def test_does_not_undo_the_job_at_its_end(self, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
        with track.run(job, "train", "shoes") as run:

            def fail(*_: Any, **__: Any) -> None:
                raise MlflowException("connection refused")

            monkeypatch.setattr(run.client, "set_terminated", fail)


class Server:
    """MLflow's own, on a store in a folder."""

    def __init__(self, folder: Path):
        (self.port,) = ports.free()
        self.uri = f"http://127.0.0.1:{self.port}"
        where = [
            "--backend-store-uri",
            f"sqlite:///{folder}/mlflow.db",
            "--artifacts-destination",
            str(folder / "files"),
        ]
        self.line = [sys.executable, "-m", "mlflow", "server", "--port", str(self.port), "--workers", "1", *where]
        self.environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}

    def start(self) -> None:
        """Returns at once."""
        quiet = subprocess.DEVNULL
        self.process = psutil.Popen(self.line, env=self.environment, stdout=quiet, stderr=quiet)

    def kill(self) -> None:
        """At once, with the processes that it started."""
        psutil.wait_procs(kill_tree(self.process.pid))


def test_a_server_that_is_killed_gets_all_that_was_logged_when_it_is_back(store: Path, tmp_path: Path) -> None:
    shutil.copy(store, tmp_path)
    server = Server(tmp_path)
    server.start()
    try:
        assert track._comes_back(server.uri)
        job = Job(storage=str(tmp_path), track=Track(uri=server.uri))
        with track.run(job, "train", "shoes") as run:
            run.metrics({"loss": 0.0}, step=0)
            server.kill()
            begun = time.monotonic()
            for step in range(1, 50):
                run.metrics({"loss": float(step)}, step=step)
            assert time.monotonic() - begun < 10  # training goes on
            later = threading.Timer(1, server.start)
            later.start()
        later.join()
        it = MlflowClient(server.uri).get_run(run.id)
        history = MlflowClient(server.uri).get_metric_history(run.id, "loss")
    finally:
        server.kill()
    assert it.info.status == "FINISHED"
    assert [metric.step for metric in history] == list(range(50))


@pytest.mark.parametrize("uri", ["sqlite:////proc/nowhere/mlflow.db", "ftp://somewhere/x"])
def test_a_store_that_cannot_be_is_one_line(tmp_path: Path, uri: str) -> None:
    with pytest.raises(UserError, match="MLflow at") as error:
        track.connect(uri)
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_database_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("this is no database, and long enough for SQLite to notice that" * 20)
    with pytest.raises(UserError, match="not a database"):
        track.connect(f"sqlite:///{tmp_path}/mlflow.db")


def test_a_deleted_experiment_is_named(job: Job) -> None:
    with track.run(job, "train", "shoes") as run:
        experiment = told(job, run.id).info.experiment_id
    MlflowClient(job.tracking_uri).delete_experiment(experiment)
    with pytest.raises(UserError, match=r"track\.experiment: sicot was deleted"), track.run(job, "train", "shoes"):
        pass
