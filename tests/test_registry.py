"""Models by name: registered once, fetched without running anything, promoted through the gate, rolled back."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
import requests

from sicot import registry, storage, track
from sicot.bundle import Bundle, annotate
from sicot.config import Job, Track
from sicot.errors import UserError
from tests import builders

NAME = "sicot"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow store to copy."""
    place = tmp_path_factory.mktemp("store") / "mlflow.db"
    track.connect(f"sqlite:///{place}")
    return place


@pytest.fixture
def job(tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "runs").mkdir()
    shutil.copy(store, tmp_path / "runs")
    return Job(storage=str(tmp_path / "runs"))


@pytest.fixture
def bundles(tmp_path: Path, tiny_bundle: str) -> list[str]:
    """Three bundles that differ by their digest alone."""
    places = []
    for n in range(3):
        place = tmp_path / f"bundle{n}"
        shutil.copytree(tiny_bundle, place)
        info = json.loads((place / "bundle.json").read_text())
        (place / "bundle.json").write_text(json.dumps({**info, "digest": str(n) * 64}))
        places.append(str(place))
    return places


def register(job: Job, *folders: str) -> list[int]:
    with track.run(job, "register", "test") as run:
        return [registry.register(run, folder, NAME) for folder in folders]


def scores(**of: tuple[float, float | None]) -> registry.Ask:
    """Answers the gate by the first figure of a bundle's digest: overall and tail accuracy."""

    def ask(folders: Sequence[str]) -> list[dict[str, dict[str, Any]]]:
        figures = [of[f"b{registry.digest_of(folder)[0]}"] for folder in folders]
        return [{"image": {"top1": top1, "tail": tail}} for top1, tail in figures]

    return ask


def champion(job: Job) -> int:
    return next(v.number for v in registry.versions(NAME, job.tracking_uri) if registry.CHAMPION in v.aliases)


def test_a_bundle_is_registered_once_and_becomes_the_challenger(job: Job, bundles: list[str]) -> None:
    assert register(job, bundles[0], bundles[1]) == [1, 2]
    assert register(job, bundles[0]) == [1]  # a job that is run again
    newest, oldest = registry.versions(NAME, job.tracking_uri)
    assert (newest.number, newest.aliases) == (2, [])
    assert (oldest.number, oldest.aliases, oldest.digest) == (1, [registry.CHALLENGER], "0" * 64)


def test_what_is_fetched_is_the_bundle_and_holds_nothing_pickled(job: Job, bundles: list[str], tmp_path: Path) -> None:
    register(job, bundles[0])
    for uri in ("models:/sicot@challenger", "models:/sicot/1"):
        folder = Path(registry.fetch(uri, job.tracking_uri))
        assert registry.digest_of(folder) == "0" * 64
        assert Bundle.load(folder).predict([builders.bundle.Query(title="red bag")])[0].ranked
    kept = [path.suffix for path in Path(job.storage, "artifacts", "models").rglob("*") if path.is_file()]
    assert not {".pkl", ".pickle", ".pt", ".joblib"} & set(kept)
    assert ".safetensors" in kept


def test_an_alias_means_a_version_and_other_uris_themselves(job: Job, bundles: list[str]) -> None:
    register(job, *bundles[:2])
    registry.crown(NAME, 2, job.tracking_uri)
    assert registry.resolve("models:/sicot@champion", job.tracking_uri) == "models:/sicot/2"
    for unchanged in ("models:/sicot/1", "runs:/abc/bundle", "/a/folder@home"):
        assert registry.resolve(unchanged, job.tracking_uri) == unchanged
    with pytest.raises(UserError, match="no model models:/sicot@nobody"):
        registry.resolve("models:/sicot@nobody", job.tracking_uri)


def test_what_other_tools_install_is_all_that_a_bundle_imports() -> None:
    script = """
import ast, pathlib, sys, importlib.metadata as metadata, sicot.pyfunc
mine = set(sys.modules)
import sicot.registry
others = set(sys.modules) - mine
wanted, needs = set(), set(sicot.registry.PYFUNC_NEEDS)
for name, module in list(sys.modules.items()):
    if name.partition('.')[0] == 'sicot' and name not in others and getattr(module, '__file__', None):
        for node in ast.parse(pathlib.Path(module.__file__).read_text()).body:  # what it imports when it is imported
            if isinstance(node, ast.Import): wanted |= {alias.name.partition('.')[0] for alias in node.names}
            if isinstance(node, ast.ImportFrom): wanted.add(node.module.partition('.')[0])
of = metadata.packages_distributions()
print(*sorted(name for name in wanted - {'sicot'} if name in of and not needs & {each.lower() for each in of[name]}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_what_was_fetched_is_not_downloaded_again(
    job: Job, bundles: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    register(job, bundles[0])
    first = registry.fetch("models:/sicot/1", job.tracking_uri)
    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", lambda *_, **__: pytest.fail("downloaded again"))
    assert registry.fetch("models:/sicot@challenger", job.tracking_uri) == first


@pytest.mark.parametrize("damage", ["a file is cut short", "a file is gone", "bundle.json is changed"])
def test_a_damaged_copy_in_the_cache_is_fetched_anew(job: Job, bundles: list[str], damage: str) -> None:
    register(job, bundles[0])
    kept = Path(registry.fetch("models:/sicot/1", job.tracking_uri))
    whole = {path.name: path.read_bytes() for path in kept.iterdir()}
    if damage == "a file is cut short":
        os.truncate(kept / "weights.safetensors", 100)
    elif damage == "a file is gone":
        (kept / "vocabulary.parquet").unlink()
    else:
        (kept / "bundle.json").write_text("{}")
    assert registry.fetch("models:/sicot/1", job.tracking_uri) == str(kept)
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == whole
    assert [path.name for path in kept.parent.iterdir()] == [kept.name]  # nothing is left beside it


def test_a_version_that_does_not_say_what_it_holds_is_downloaded(job: Job, bundles: list[str]) -> None:
    register(job, bundles[0])
    track.connect(job.tracking_uri).delete_model_version_tag(NAME, "1", registry.BUNDLE)
    assert [registry.digest_of(registry.fetch("models:/sicot/1", job.tracking_uri)) for _ in range(2)] == ["0" * 64] * 2


def test_a_bundle_on_an_object_store_is_downloaded_once_until_it_changes(
    job: Job, bundles: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = "memory://shop/bundle"
    storage.replace_folder(bundles[0], uri)
    first = registry.fetch(uri, job.tracking_uri)
    with monkeypatch.context() as offline:
        offline.setattr(storage, "local_folder", lambda *_: pytest.fail("downloaded again"))
        assert registry.fetch(f"{uri}/", job.tracking_uri) == first
    annotate(uri, {"image": {"top1": 0.5}})
    second = registry.fetch(uri, job.tracking_uri)
    assert second != first
    assert Bundle.load(second).info.metrics == {"image": {"top1": 0.5}}


def test_fetching_runs_no_code_of_the_artifact(job: Job, bundles: list[str], tmp_path: Path) -> None:
    register(job, bundles[0])
    trap = "import pathlib; pathlib.Path({!r}).touch()\n".format(str(tmp_path / "sprung"))
    for code in Path(job.storage, "artifacts", "models").rglob("*.py"):
        code.write_text(trap)
    Bundle.load(registry.fetch("models:/sicot/1", job.tracking_uri))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("models:/sicot@nobody", "models:/sicot@nobody"),
        ("models:/sicot/9", "models:/sicot/9"),
        ("models:/nothing@champion", "models:/nothing@champion"),
        ("models:/sicot", "models:/name@alias"),
        ("runs:/0123456789abcdef/bundle", "0123456789abcdef"),
        ("no/such/bundle", "no/such/bundle"),
        ("memory://no/such/bundle", "memory://no/such/bundle"),
    ],
)
def test_a_model_that_is_not_there_is_one_line(job: Job, bundles: list[str], uri: str, says: str) -> None:
    register(job, bundles[0])
    with pytest.raises(UserError) as error:
        registry.fetch(uri, job.tracking_uri)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_needs_no_mlflow(tiny_bundle: str) -> None:
    assert registry.fetch(tiny_bundle, "http://127.0.0.1:1") == tiny_bundle


def test_the_first_champion_has_no_rival(job: Job, bundles: list[str]) -> None:
    register(job, bundles[0])
    assert registry.promote(NAME, 1, job.tracking_uri, scores()).promoted
    assert champion(job) == 1


@pytest.mark.parametrize(
    ("old", "new", "promoted"),
    [
        ((0.70, 0.50), (0.71, 0.52), True),
        ((0.70, 0.50), (0.70, 0.50), True),  # no worse
        ((0.70, 0.50), (0.70, 0.491), True),  # the tail within its tolerance
        ((0.70, 0.50), (0.80, 0.48), False),  # a better head does not buy off the tail
        ((0.70, 0.50), (0.69, 0.60), False),
        ((0.70, None), (0.71, None), True),  # no tail rows to ask
    ],
)
def test_the_gate(job: Job, bundles: list[str], old: Any, new: Any, promoted: bool) -> None:
    register(job, *bundles[:2])
    registry.crown(NAME, 1, job.tracking_uri)
    decision = registry.promote(NAME, 2, job.tracking_uri, scores(b0=old, b1=new), tail_tolerance=0.01)
    assert decision.promoted is promoted
    assert champion(job) == (2 if promoted else 1)
    if not promoted:
        assert "stays challenger" in decision.reason


def test_every_regime_has_to_pass() -> None:
    good, bad = {"top1": 0.8, "tail": 0.5}, {"top1": 0.6, "tail": 0.5}
    assert registry.gate({"image": good, "image_text": bad}, {"image": bad, "image_text": good}, 0.0) == [
        "image_text top1 0.6000 against 0.8000"
    ]
    assert registry.gate({"image": good, "image_text": bad}, {"image": bad}, 0.0) == []  # a visual-only champion


def test_a_visual_only_candidate_answers_words_by_the_photo() -> None:
    photo, both = {"top1": 0.7, "tail": 0.5}, {"top1": 0.8, "tail": 0.6}
    champion = {"image": photo, "image_text": both}
    assert registry.gate({"image": photo}, champion, 0.01) == [
        "image_text top1 0.7000 against 0.8000",
        "image_text tail 0.5000 against 0.6000",
    ]
    assert registry.gate({"image": both}, champion, 0.01) == []  # photos alone do as well


def test_rollback_goes_back_one_champion_at_a_time(job: Job, bundles: list[str]) -> None:
    register(job, *bundles)
    for version in (1, 2, 3):
        registry.crown(NAME, version, job.tracking_uri)
    assert registry.rollback(NAME, job.tracking_uri) == 2
    assert champion(job) == 2
    assert registry.rollback(NAME, job.tracking_uri) == 1
    with pytest.raises(UserError, match="nothing to roll back to"):
        registry.rollback(NAME, job.tracking_uri)
    assert champion(job) == 1


def test_what_was_rolled_back_challenges_nobody(job: Job, bundles: list[str]) -> None:
    register(job, *bundles)
    for version in (1, 3):
        registry.crown(NAME, version, job.tracking_uri)
    assert registry.find(f"models:/{NAME}@challenger", job.tracking_uri) == f"models:/{NAME}/3"
    registry.rollback(NAME, job.tracking_uri)
    assert registry.find(f"models:/{NAME}@challenger", job.tracking_uri) is None


def test_rollback_without_a_champion_is_one_line(job: Job, bundles: list[str]) -> None:
    register(job, bundles[0])
    with pytest.raises(UserError, match="has no champion"):
        registry.rollback(NAME, job.tracking_uri)


def test_the_pyfunc_answers_like_the_bundle(job: Job, bundles: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    register(job, bundles[0])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", job.tracking_uri)
    model = mlflow.pyfunc.load_model("models:/sicot/1")
    photo = builders.photo("red-bag", 1)
    asked = pd.DataFrame({"image": [photo, None], "title": ["red bag", "blue 杯子"], "tags": [["new"], []]})
    answered = model.predict(asked)
    query = builders.bundle.Query(photo, "red bag", ("new",))
    expected = Bundle.load(bundles[0]).predict([query])[0]
    assert answered["labels"][0] == [ranked.label for ranked in expected.ranked]
    assert answered["probabilities"][0] == pytest.approx([r.probability for r in expected.ranked], abs=1e-4)
    assert answered["unknown"].tolist() == [False, False]
    assert answered["words"][1] == ["blue", "杯子"]


# ---------------------------------------------------------------- a real server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, store: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(store, folder)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "kept")]
    with (folder / "log").open("wb") as out:
        process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=out, start_new_session=True)
    uri = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 240  # it takes seconds, minutes on a machine that is busy
    try:
        while True:
            try:
                if requests.get(f"{uri}/health", timeout=10).ok:
                    break
            except requests.RequestException:
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.3)
        yield uri, process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the server and its workers
        process.wait(20)


def test_the_whole_way_through_a_server(
    server: tuple[str, subprocess.Popen[bytes]], bundles: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, _ = server
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    job = Job(storage=str(tmp_path), track=Track(uri=uri))
    assert register(job, *bundles[:2]) == [1, 2]
    assert registry.promote(NAME, 1, uri, scores()).promoted
    asked = scores(b0=(0.7, 0.5), b1=(0.8, 0.5))
    assert registry.promote(NAME, 2, uri, asked).promoted
    assert registry.digest_of(registry.fetch("models:/sicot@champion", uri)) == "1" * 64
    assert registry.rollback(NAME, uri) == 1
    with track.run(job, "evaluate", "test") as run:
        registry.link(run, "models:/sicot@champion", bundles[0])
    tags = run.client.get_run(run.id).data.tags
    assert (tags["sicot.model_version"], tags["sicot.digest"]) == ("1", "0" * 64)


def test_a_server_that_dies_stops_no_job(
    server: tuple[str, subprocess.Popen[bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(track, "PATIENCE", 2.0)
    uri, process = server
    with track.run(Job(storage=str(tmp_path), track=Track(uri=uri)), "train", "test") as run:
        run.metrics({"loss": 1.0}, step=1)
        os.killpg(process.pid, signal.SIGKILL)
        started = time.monotonic()
        for step in range(50):
            run.metrics({"loss": 1.0}, step=step)
    assert time.monotonic() - started < 30
