"""Jobs as a person sends, follows, lists and stops them, on a head node that wants a token."""

from __future__ import annotations

import json
import os
import pty
import re
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from sicot import ports
from tests.jobs.conftest import RAY, ROOT

pytestmark = pytest.mark.timeout(600)

SMALL = [
    *("--catalogue.synthetic.rows", "120", "--catalogue.synthetic.classes", "6", "--catalogue.synthetic.image_size"),
    *("32", "--prepare.images.size", "32", "--prepare.word2vec.dimension", "8", "--model.dimension", "16"),
    *("--model.visual.trunk", "squeezenet1_1", "--model.visual.weights", "none", "--train.loader_threads", "0"),
    *("--train.batch_size", "16", "--train.epochs", "20000", "--name", "tiny"),
]
COUNTING = "import time\nfor n in range({lines}):\n    print('line', n, flush=True)\n    time.sleep({pause})"


def door(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"jobs.{name}", *arguments]


def run(head: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, env=head, capture_output=True, text=True, timeout=400)


def listed(head: dict[str, str]) -> list[dict[str, Any]]:
    done = run(head, *door("list", "--all", "--json"))
    assert done.returncode == 0, done.stderr
    jobs: list[dict[str, Any]] = json.loads(done.stdout)
    return jobs


def state(head: dict[str, str], job: str) -> str:
    return str(next(each["state"] for each in listed(head) if each["id"] == job))


def counting(head: dict[str, str], lines: int, pause: float) -> str:
    """Id of a job of somebody else's that prints so many lines."""
    made = f"counting-{time.monotonic_ns()}"
    code = COUNTING.format(lines=lines, pause=pause)
    run(head, RAY, "job", "submit", "--no-wait", "--submission-id", made, "--", "python", "-c", code).check_returncode()
    return made


class Terminal:
    """A program in a terminal of its own, with somebody who types."""

    def __init__(self, head: dict[str, str], *command: str):
        ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**head, "TERM": "xterm", "COLUMNS": "90"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            preexec_fn=lambda: os.login_tty(theirs),  # Ctrl-C reaches who is in front of the terminal
        )
        os.close(theirs)
        self.ours, self.text = ours, ""

    def until(self, pattern: str, seconds: float = 120) -> str:
        """What has been shown since the last time, once the pattern is among it."""
        chooser, deadline = selectors.DefaultSelector(), time.monotonic() + seconds
        chooser.register(self.ours, selectors.EVENT_READ)
        while not (found := re.search(pattern, self.text, re.DOTALL)):
            assert time.monotonic() < deadline, f"{pattern} is not in {self.text}"
            if chooser.select(1):
                try:
                    self.text += os.read(self.ours, 65536).decode(errors="replace")
                except OSError:  # the other side is closed
                    assert re.search(pattern, self.text, re.DOTALL), f"{pattern} is not in {self.text}"
        seen, self.text = self.text[: found.end()], self.text[found.end() :]
        return seen

    def types(self, keys: str) -> None:
        os.write(self.ours, keys.encode())

    def ended(self) -> int:
        with suppress(OSError):
            while read := os.read(self.ours, 65536):
                self.text += read.decode(errors="replace")
        return self.process.wait(60)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.ours)


class Wire:
    """A connection to the dashboard that can be cut."""

    def __init__(self, port: int):
        (self.port,), self.to = ports.free(), port
        self.open: list[socket.socket] = []
        self.join()

    def join(self) -> None:
        self.server = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self.server,), daemon=True).start()

    def cut(self) -> None:
        for each in (self.server, *self.open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self.open.clear()

    def _accept(self, server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                one, _ = server.accept()
                other = socket.create_connection(("127.0.0.1", self.to))
                self.open += [one, other]
                for source, sink in ((one, other), (other, one)):
                    threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


@pytest.fixture(scope="module")
def storage(head: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage with a prepared set, which a job has made."""
    place = tmp_path_factory.mktemp("storage")
    done = run(head, *door("submit", "prepare", *SMALL, "--storage", str(place)))
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert (place / "tiny/prepared/manifest.json").exists()
    (place / "prepare.log").write_text(done.stdout)
    return place


def test_job_run_commit_and_data_find_each_other(head: dict[str, str], storage: Path) -> None:
    said = (storage / "prepare.log").read_text()
    found = re.search(r"^(sicot-prepare-tiny-[0-9a-f]{8}) is submitted$", said, re.MULTILINE)
    assert found, said
    page = f"{head['RAY_API_SERVER_ADDRESS']}/#/jobs/{found[1]}"
    assert said.count(page) == 2  # at the start and at the end
    assert f"{found[1]} succeeded after 0:0" in said
    job = next(each for each in listed(head) if each["id"] == found[1])
    manifest = json.loads((storage / "tiny/prepared/manifest.json").read_text())
    it = MlflowClient(f"sqlite:///{storage}/mlflow.db").get_run(job["mlflow_run"])
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    assert (job["job"], job["run"], job["state"], job["data"]) == ("prepare", "tiny", "succeeded", manifest["digest"])
    assert job["commit"].removesuffix("-dirty") == commit
    assert it.data.tags["sicot.ray_job"] == job["id"]
    assert it.data.tags["sicot.data"] == job["data"]
    assert it.data.tags["mlflow.source.git.commit"] == job["commit"]
    assert it.data.tags["mlflow.user"] == job["by"]
    assert f"MLflow run {job['mlflow_run']}" in said  # in the job's own log, too


def test_a_job_that_fails_ends_with_its_own_code_and_its_last_line(head: dict[str, str], tmp_path: Path) -> None:
    done = run(head, *door("submit", "train", *SMALL, "--storage", str(tmp_path)))
    assert done.returncode == 2, done.stdout + done.stderr
    assert re.search(r"\nerror: .*prepare", done.stdout)
    assert "failed with exit code 2" in done.stdout
    assert "go on      python -m jobs.submit train" in done.stdout


def test_wrong_arguments_never_reach_the_cluster(head: dict[str, str]) -> None:
    before = listed(head)
    done = run(head, *door("submit", "train", "--train.epochs", "none"))
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"error: train\.epochs: [^\n]+\n", done.stderr)
    assert len(listed(head)) == len(before)


def test_no_cluster_and_no_token_are_one_line(head: dict[str, str]) -> None:
    (port,) = ports.free()
    done = run(head, *door("list", "--address", f"http://127.0.0.1:{port}"))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert f"no cluster answers at http://127.0.0.1:{port}" in done.stderr
    for wrong in ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": "0" * 64}):
        done = run({**head, **wrong}, *door("submit", "train", "--preset", "demo"))
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert "RAY_AUTH_TOKEN" in done.stderr


def test_who_watches_a_training_may_turn_away_stop_it_and_go_on(head: dict[str, str], storage: Path) -> None:
    command = door("submit", "train", *SMALL, "--storage", str(storage))
    with Terminal(head, *command) as first:
        name = first.until(r"sicot-train-tiny-[0-9a-f]{8} is submitted").split()[-3]
        shown = first.until(r"epoch \d+/20000  \d+:\d\d left")  # the bar
        assert "validation: photo" in shown  # and the log above it
        first.types("\x03")
        first.until(r"detach .* stop it\? \[.*\] ")
        first.types("\x03")
        assert first.ended() == 130
        assert f"python -m jobs.submit --attach {name}" in first.text
    assert state(head, name) == "running"

    with Terminal(head, *command) as second:  # the same command
        second.until(f"{name} does this already")
        second.until(r"epoch \d+/20000  \d+:\d\d left")
        refused = run(head, *command, "--fresh")
        assert (refused.returncode, "stop it before you start over" in refused.stderr) == (2, True)
        other = run(head, *command, "--train.seed", "1")
        assert (other.returncode, "with other settings" in other.stderr) == (2, True)
        second.types("\x03")
        second.until(r"detach .* stop it\? \[.*\] ")
        begun = time.monotonic()
        second.types("s\n")
        second.until(f"{name} was stopped after")
        print(f"stopping took {time.monotonic() - begun:.1f} s")
        assert second.ended() == 1
    mine = next(each for each in listed(head) if each["id"] == name)
    client = MlflowClient(f"sqlite:///{storage}/mlflow.db")
    assert mine["state"] == "stopped"
    assert client.get_run(mine["mlflow_run"]).info.status == "KILLED"
    reached = len(client.get_metric_history(mine["mlflow_run"], "val/macro"))
    assert reached > 1

    with subprocess.Popen(command, cwd=ROOT, env=head, stdout=subprocess.PIPE, text=True) as third:
        assert third.stdout
        lines = iter(third.stdout.readline, "")
        again = next(line for line in lines if "is submitted" in line).split()[0]
        assert again != name
        epoch = next(int(found[1]) for line in lines if (found := re.search(r"epoch (\d+)/20000  loss", line)))
        assert epoch > reached - 1  # it went on, and did not start over
        stopped = run(head, *door("stop", "tiny", "--yes"))
        assert stopped.returncode == 0, stopped.stderr
        assert f"what it finished stays in {storage}/tiny" in stopped.stdout
        rest = "".join(lines)
        assert f"{again} was stopped" in rest
    assert third.returncode == 1
    resumed = next(each for each in listed(head) if each["id"] == again)
    assert resumed["mlflow_run"] == mine["mlflow_run"]
    assert client.get_run(mine["mlflow_run"]).data.tags["sicot.ray_job"] == again
    assert client.get_run(mine["mlflow_run"]).info.status == "KILLED"
    table = run(head, *door("list")).stdout.splitlines()
    row = next(line for line in table if line.startswith(again))
    assert row.split()[1:4] == ["train", "tiny", "stopped"]


def test_starting_over_ends_with_a_bundle_that_names_its_job(head: dict[str, str], storage: Path) -> None:
    few = ["1" if each == "20000" else each for each in SMALL]
    done = run(head, *door("submit", "train", *few, "--storage", str(storage), "--fresh"))
    assert done.returncode == 0, done.stdout + done.stderr
    bundle = json.loads((storage / "tiny/bundle/bundle.json").read_text())
    job = next(each for each in listed(head) if each["id"] == bundle["training"]["ray_job"])
    assert (bundle["training"]["mlflow_run"], bundle["training"]["commit"]) == (job["mlflow_run"], job["commit"])
    assert bundle["data_digest"] == job["data"]


def test_stopping_wants_a_job_that_runs_and_somebody_who_says_yes(head: dict[str, str]) -> None:
    done = run(head, *door("stop", "nobody"))
    assert (done.returncode, "no job on" in done.stderr) == (2, True)
    job = counting(head, 1000, 0.5)
    done = run(head, *door("stop", job))
    assert (done.returncode, "give --yes" in done.stderr) == (2, True)
    with Terminal(head, *door("stop", job)) as asked:
        asked.until(r"Stop .*\? \[y/N\] ")
        asked.types("n\n")
        assert asked.ended() == 0
    assert state(head, job) in ("pending", "running")
    assert run(head, *door("stop", job, "--yes")).returncode == 0
    assert state(head, job) == "stopped"
    done = run(head, *door("stop", job, "--yes"))
    assert (done.returncode, "has ended already" in done.stderr) == (2, True)


def test_without_a_terminal_ctrl_c_detaches(head: dict[str, str]) -> None:
    job = counting(head, 1000, 0.5)
    command = door("submit", "--attach", job)
    with subprocess.Popen(command, cwd=ROOT, env=head, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout
        while b"line 2" not in process.stdout.readline():
            pass
        process.send_signal(signal.SIGINT)
        assert b"goes on" in process.stdout.read()
    assert process.returncode == 130
    assert state(head, job) == "running"
    assert run(head, *door("stop", job, "--yes")).returncode == 0


@pytest.fixture
def wire(head: dict[str, str]) -> Iterator[Wire]:
    made = Wire(int(head["RAY_API_SERVER_ADDRESS"].rpartition(":")[2]))
    yield made
    made.cut()


def test_a_connection_that_is_lost_comes_back_where_the_log_stood(head: dict[str, str], wire: Wire) -> None:
    job = counting(head, 60, 0.3)
    command = door("submit", "--address", f"http://127.0.0.1:{wire.port}", "--attach", job)
    with subprocess.Popen(command, cwd=ROOT, env=head, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        said = ""
        while "line 5\n" not in said:
            said += process.stdout.readline()
        wire.cut()
        while "lost" not in said:
            said += process.stdout.readline()
        time.sleep(3)
        wire.join()
        said += process.stdout.read()
    assert process.returncode == 0
    assert "connected again" in said
    assert re.findall(r"^line (\d+)$", said, re.MULTILINE) == [str(n) for n in range(60)]


# What a machine has that has nothing but `ray[default]`.
BARE = """
import runpy, sys
from importlib.abc import MetaPathFinder
class Missing(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("mlflow", "torch", "pyarrow", "pandas", "numpy", "pydantic_settings", "tqdm"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
sys.argv = ["submit", *sys.argv[1:]]
runpy.run_module("jobs.submit", run_name="__main__")
"""


def test_a_machine_with_nothing_but_ray_can_send_a_job(head: dict[str, str], storage: Path) -> None:
    send = ["evaluate", "--model", str(storage / "none"), "--storage", str(storage)]
    done = run({**head, "PYTHONPATH": "platform"}, sys.executable, "-c", BARE, *send)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "error: no bundle at" in done.stdout  # the job itself says so
