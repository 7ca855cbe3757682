"""The doors as a new user misuses them: one line says what is wrong and what to do, and nothing is left behind."""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sicot import errors

ROOT = Path(__file__).parents[2]
FEW = ["--preset", "demo", "--catalogue.synthetic.rows", "200", "--catalogue.synthetic.classes", "6"]


@dataclass
class Ended:
    """How a job ended."""

    code: int
    stderr: str

    @property
    def line(self) -> str:
        """The one line for the user."""
        said = [line for line in self.stderr.splitlines() if line.startswith("error:")]
        assert "Traceback" not in self.stderr, self.stderr
        assert len(said) == 1, self.stderr
        assert self.code, "the job claims to have succeeded"
        return said[0]


class Door:
    """Runs a job in this process, as ``python -m`` would; everything it writes goes under `folder`."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
        self.storage, self.folder = folder / "runs", folder
        self._monkeypatch, self._capfd = monkeypatch, capfd
        monkeypatch.chdir(folder)

    def __call__(self, job: str, *flags: str) -> Ended:
        main = importlib.import_module(job).main
        self._monkeypatch.setattr(sys, "argv", [job, *flags, "--storage", str(self.storage)])
        self._capfd.readouterr()
        on_stop = signal.getsignal(signal.SIGTERM)
        code = 0
        try:
            errors.door(main)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        finally:
            signal.signal(signal.SIGTERM, on_stop)  # jobs.serve has its own
        return Ended(code, self._capfd.readouterr().err)

    def left(self) -> list[str]:
        """Files of results, whole or half; neither MLflow's records nor what prepare's next try may go on from."""
        files = [path.relative_to(self.storage) for path in self.storage.rglob("*") if path.is_file()]
        return [str(path) for path in files if "mlflow" not in str(path) and "prepared.part" not in path.parts]


@pytest.fixture
def door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Door:
    return Door(tmp_path, monkeypatch, capfd)


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("job", "flags", "says"),
    [
        ("jobs.prepare", ["--preset", "demmo"], ["demmo", "demo", "default"]),
        ("jobs.pipeline", ["--preset", "demo", "--config", "my.yaml"], ["--preset", "--config"]),
        ("jobs.train", ["--config", "nowhere.yaml"], ["nowhere.yaml"]),
        ("jobs.train", ["--model.atention.rank", "64"], ["model.atention"]),
        ("jobs.train", ["--train.epochs", "0"], ["train.epochs", "0"]),
        ("jobs.train", ["--train.epochs", "many"], ["train.epochs", "many"]),
        ("jobs.prepare", ["--catalogue.split.val", "0.6", "--catalogue.split.test", "0.5"], ["split", "val + test"]),
        ("tuning.search", ["--tune.trials", "-1"], ["tune.trials", "-1"]),
        ("jobs.serve", ["--serve.port", "80000"], ["serve.port", "80000"]),
    ],
)
def test_a_wrong_setting_is_refused_by_its_name(door: Door, job: str, flags: list[str], says: list[str]) -> None:
    line = door(job, *flags).line
    assert all(word in line for word in says), line
    assert not door.left()


def test_a_wrong_key_in_a_config_file_is_refused_by_its_name(door: Door) -> None:
    (door.folder / "my.yaml").write_text("model: {attention: {rnk: 3}}\nmodle: {}\n")
    line = door("jobs.pipeline", "--config", "my.yaml").line
    assert "model.attention.rnk" in line
    assert "modle" in line
    assert not door.left()


def test_a_job_started_from_the_shell_ends_the_same_way(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "jobs.train", "--preset", "demmo", "--storage", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert "demmo" in Ended(done.returncode, done.stderr).line
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- catalogues


@pytest.mark.usefixtures("ray_cluster")
class TestCatalogues:
    def test_no_such_file(self, door: Door) -> None:
        assert "products.parquet" in door("jobs.prepare", "--catalogue.path", "products.parquet").line
        assert not door.left()

    def test_an_empty_folder(self, door: Door) -> None:
        (door.folder / "empty").mkdir()
        assert "empty" in door("jobs.prepare", "--catalogue.path", "empty").line
        assert not door.left()

    def test_a_missing_column(self, door: Door) -> None:
        table = pa.table({"picture": [b"1", b"2"], "title": ["a", "b"], "label": ["x", "y"]})
        pq.write_table(table, door.folder / "products.parquet")
        line = door("jobs.prepare", "--catalogue.path", "products.parquet").line
        assert "image" in line  # what is missing
        assert "picture" in line  # what there is
        assert "catalogue.columns" in line  # what to do
        assert not door.left()

    def test_a_folder_without_images(self, door: Door) -> None:
        (door.folder / "photos").mkdir()
        rows = "".join(f"{n},{n}.jpg,red shoe,shoe{n % 2}\n" for n in range(20))
        (door.folder / "products.csv").write_text("id,image,title,label\n" + rows)
        line = door("jobs.prepare", "--catalogue.path", "products.csv", "--catalogue.images", "photos").line
        assert "photos" in line or "no_image" in line
        assert not door.left()

    def test_a_file_that_is_no_parquet(self, door: Door) -> None:
        (door.folder / "products.parquet").write_bytes(b"id,image,title\n")
        assert "products.parquet" in door("jobs.prepare", "--catalogue.path", "products.parquet").line
        assert not door.left()

    def test_training_before_preparing(self, door: Door) -> None:
        assert "jobs.prepare" in door("jobs.train", *FEW).line


# ---------------------------------------------------------------- models, MLflow


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("job", ["jobs.evaluate", "jobs.predict", "jobs.serve"])
@pytest.mark.parametrize("model", ["models:/sicot@champion", "models:/sicot/7", "no/such/bundle"])
def test_a_model_that_does_not_exist(door: Door, job: str, model: str) -> None:
    line = door(job, "--model", model, *(["--out", "labels"] if job == "jobs.predict" else [])).line
    assert model in line
    assert not door.left()
    assert not (door.folder / "labels").exists()


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize(
    ("job", "flags"),
    [
        ("jobs.pipeline", FEW),
        ("jobs.register", []),
        ("jobs.evaluate", []),
        ("jobs.predict", ["--out", "labels"]),
    ],
)
def test_an_mlflow_server_that_does_not_answer(door: Door, job: str, flags: list[str]) -> None:
    uri = f"http://127.0.0.1:{closed_port()}"
    line = door(job, *flags, "--track.uri", uri).line
    assert uri in line
    assert "start it" in line
    assert not door.left()


# ---------------------------------------------------------------- the machine


def test_a_port_that_is_in_use(tiny_bundle: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "jobs.serve", "--model", tiny_bundle, "--serve.port", port]
        command += ["--storage", str(tmp_path)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert port in Ended(done.returncode, done.stderr).line


def small_disk(folder: Path, megabytes: int) -> list[str]:
    """What to put before a command so that it alone sees a small disk at `folder`; lists its files at the end."""
    if not shutil.which("unshare"):
        pytest.skip("needs unshare(1) to mount a small disk")
    namespace = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    mount = f"mount -t tmpfs -o size={megabytes}m none {folder}"
    if subprocess.run([*namespace, "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a small disk, even in a namespace of its own")
    return [*namespace, "sh", "-c", f'{mount} && "$@"; code=$?; find {folder} -type f; exit $code', "sh"]


def test_a_full_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    many = ["--preset", "demo", "--catalogue.synthetic.rows", "1000", "--prepare.rows_per_block", "250"]
    command = [sys.executable, "-m", "jobs.prepare", *many, "--storage", str(disk)]
    done = subprocess.run([*small_disk(disk, 2), *command], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert "disk is full" in Ended(done.returncode, done.stderr).line
    left = done.stdout.splitlines()  # what the next try goes on from: whole files, and no set that looks complete
    assert not [name for name in left if name.endswith((".part", "manifest.json"))]
