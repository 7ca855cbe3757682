"""Files and folders on an object store do what they do on a disk."""

from __future__ import annotations

import pickle
import socket
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pytest

from sicot import bundle, config, pipeline, storage
from sicot.bundle import Bundle
from sicot.evaluate import predict
from sicot.prepare.prepared import PreparedSet
from sicot.search.book import Book
from sicot.train import worker
from tests.builders import bundle_folder, experiment, prepared_set
from tests.forwarder import Forwarder


@pytest.fixture(params=["disk", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty folder of either kind."""
    return str(tmp_path / "root") if request.param == "disk" else request.getfixturevalue("bucket")


def names(uri: str) -> set[str]:
    system, path = storage.open_uri(uri)
    found = system.get_file_info(pafs.FileSelector(path, recursive=True, allow_not_found=True))
    return {file.path.removeprefix(f"{path}/") for file in found if file.type == pafs.FileType.File}


def test_a_file_is_written_replaced_and_read(root: str) -> None:
    file = f"{root}/deep/er/a.json"
    assert not storage.exists(file)
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(file)
    for value in ({"a": 1}, {"a": 2}):
        storage.write_json(file, value)
        assert storage.read_json(file) == value
    assert storage.exists(f"{root}/deep")
    assert names(root) == {"deep/er/a.json"}
    storage.write_table(f"{root}/t.parquet", pa.table({"image": [b"x"], "n": [1]}))
    assert storage.read_table(f"{root}/t.parquet", ["n"]).to_pylist() == [{"n": 1}]


def test_half_a_file_is_never_seen(root: str) -> None:
    storage.write_bytes(f"{root}/a", b"before")

    def broken() -> None:
        with storage.writing(f"{root}/a") as stream:
            stream.write(b"aft")
            raise EOFError

    with pytest.raises(EOFError):
        broken()
    assert storage.read_bytes(f"{root}/a") == b"before"
    assert names(root) == {"a"}


def test_a_folder_takes_the_place_of_another(root: str, tmp_path: Path) -> None:
    for number, files in enumerate([("mark", "a", "sub/old"), ("mark", "b", "sub/new"), ("mark",)]):
        source = tmp_path / str(number)
        for name in files:
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_text(f"{number}")
        storage.replace_folder(str(source), f"{root}/it", "mark")
        assert names(f"{root}/it") == set(files)
        assert storage.read_bytes(f"{root}/it/mark") == f"{number}".encode()
        copy = storage.local_folder(f"{root}/it", str(tmp_path / f"copy {number}"))
        assert {str(each.relative_to(copy)) for each in Path(copy).rglob("*") if each.is_file()} == set(files)
    storage.delete_folder(f"{root}/it")
    storage.delete_folder(f"{root}/it")
    assert not storage.exists(f"{root}/it")


def test_what_declares_a_folder_whole_is_gone_while_it_is_not(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("bundle.json", "weights"):
        (tmp_path / name).write_text("x")
    storage.replace_folder(str(tmp_path), bucket, "bundle.json")
    seen: list[set[str]] = []
    copy = pafs.copy_files

    def watched(*given: Any, **options: Any) -> None:
        seen.append(names(bucket))
        copy(*given, **options)

    monkeypatch.setattr(pafs, "copy_files", watched)
    storage.replace_folder(str(tmp_path), bucket, "bundle.json")
    assert seen == [{"weights"}, {"weights"}]


class HangsUp:
    """Counts those that connect, and answers none."""

    def __init__(self) -> None:
        self.met = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._hang_up, daemon=True).start()

    def _hang_up(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            self.met += 1  # before the other side can know
            connection.close()


def test_s3_that_is_away_is_waited_for_in_other_processes_too(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    there, path = storage.open_uri(f"{bucket}/a")
    travelled = pickle.loads(pickle.dumps(there))  # noqa: S301  as it travels to Ray Train's workers
    with travelled.open_output_stream(path) as stream:
        stream.write(b"x")
    assert storage.read_bytes(f"{bucket}/a") == b"x"
    assert storage.TRIES > 8  # the pauses double, from half a second on average up to ten
    monkeypatch.setattr(storage, "TRIES", 4)  # Arrow's own are three
    for travels in (False, True):
        away = HangsUp()
        monkeypatch.setenv("AWS_ENDPOINT_URL", away.address)
        system, path = storage.open_uri(f"{bucket}/a")
        system = pickle.loads(pickle.dumps(system)) if travels else system  # noqa: S301
        with pytest.raises(OSError, match="NETWORK_CONNECTION"):
            system.get_file_info(path)
        assert away.met == 4


def test_what_is_written_while_s3_refuses_is_there_afterwards(
    bucket: str, s3_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    forwarder = Forwarder(s3_port)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{forwarder.port}")
    storage.write_bytes(f"{bucket}/before", b"1")
    with forwarder.shut(4):
        storage.write_bytes(f"{bucket}/meanwhile", b"2")
        assert storage.read_bytes(f"{bucket}/before") == b"1"
    forwarder.close()
    assert forwarder.refused >= 4
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{s3_port}")
    assert storage.read_bytes(f"{bucket}/meanwhile") == b"2"


def test_a_prepared_set_a_bundle_and_a_book_live_there(bucket: str, tmp_path: Path) -> None:
    here = prepared_set(tmp_path / "set")
    storage.replace_folder(here.root, f"{bucket}/set", "manifest.json")
    there = PreparedSet.open(f"{bucket}/set")
    settings = experiment(tmp_path, epochs=1)
    model = worker.fit(settings, there, lambda metrics, save: None)
    assert worker.validate(model, there, 64) == worker.validate(model, here, 64)
    storage.replace_folder(bundle_folder(tmp_path), f"{bucket}/bundle", "bundle.json")
    bundle.annotate(f"{bucket}/bundle", {"image": {"top1": 0.5}})
    Bundle.load(storage.local_folder(f"{bucket}/bundle", str(tmp_path / "copy")))
    Book(f"{bucket}/search/trials.json", "0").start({"model.loss.tau": 1.0})
    assert [trial.number for trial in Book(f"{bucket}/search/trials.json", "0").trials] == [1]


def test_starting_over_and_making_room_delete_there(bucket: str) -> None:
    job = config.Experiment(storage=bucket, name="shoes")
    for name in ("train/a", "bundle/bundle.json", "training.json", "prepared/manifest.json", "labels/x"):
        storage.write_bytes(f"{job.folder}/{name}", b"{}")
    pipeline.forget(job.folder)
    assert names(job.folder) == {"prepared/manifest.json", "labels/x"}
    predict.check(f"{job.folder}/labels", overwrite=True)
    assert names(job.folder) == {"prepared/manifest.json"}
