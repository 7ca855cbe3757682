"""The challenger's alias is followed like the champion's, whatever happens to either, and visitors keep their arm."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import pytest

from jobs import register
from serve_apps import recognizer
from sicot import config, registry, track
from sicot.client import AsyncClient, Client
from sicot.endpoint import replica as module
from sicot.endpoint import schema, server
from sicot.endpoint.replica import Replica
from sicot.endpoint.served import Served
from sicot.endpoint.turns import OnThreads
from sicot.errors import UserError
from sicot.feedback import figures
from sicot.feedback.store import Store
from tests.builders import bundle_folder
from tests.serve.conftest import SETTINGS

NAME = "tried"
MODELS = {"model": f"models:/{NAME}@champion", "challenger": f"models:/{NAME}@challenger"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> config.Job:
    """A job whose MLflow has versions 1 to 3 of a model."""
    root = tmp_path_factory.mktemp("tried")
    job = config.Job(storage=str(root / "runs"))
    with track.run(job, "register", "test") as run:
        for size in (16, 8, 4):
            registry.register(run, bundle_folder(root / str(size), dimension=size), NAME)
    return job


@pytest.fixture
def made(
    ray_cluster: None, store: config.Job, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], Replica]]:  # a replica would start a Ray of its own
    """Makes the replica that tries version 2 beside the champion, version 1."""
    over = threading.Event()

    def sleep(seconds: float) -> None:
        if over.wait(min(seconds, 0.05)):
            threading.Event().wait()  # its thread does nothing more

    registry.crown(NAME, 1, store.tracking_uri)
    registry.challenge(NAME, 2, store.tracking_uri)
    monkeypatch.setattr(logging.getLogger("sicot"), "handlers", [])  # a replica adds Ray Serve's
    monkeypatch.setattr(module, "time", SimpleNamespace(sleep=sleep))
    yield lambda: Replica(SETTINGS.model_copy(update={**MODELS, "threads": 2}), store.tracking_uri, "serve_apps")
    over.set()


def versions(replica: Replica) -> tuple[str, str | None]:
    return replica.now.version, replica.challenger.version if replica.challenger else None


def threads(model: Served) -> list[Thread]:
    assert isinstance(model.batches.turns, OnThreads)
    return model.batches.turns.threads


def becomes(replica: Replica, champion: str, challenger: str | None) -> None:
    deadline = time.monotonic() + 20
    while versions(replica) != (champion, challenger):
        assert time.monotonic() < deadline, versions(replica)
        time.sleep(0.02)


def test_another_challenger_is_taken_up_and_none_where_the_alias_is_gone(
    store: config.Job, made: Callable[[], Replica]
) -> None:
    replica = made()
    assert versions(replica) == ("1", "2")
    registry.challenge(NAME, 3, store.tracking_uri)
    becomes(replica, "1", "3")
    registry.challenge(NAME, 0, store.tracking_uri)
    becomes(replica, "1", None)
    registry.challenge(NAME, 2, store.tracking_uri)
    becomes(replica, "1", "2")


def test_a_challenger_that_wins_is_champion_without_being_loaded_again(
    store: config.Job, made: Callable[[], Replica]
) -> None:
    replica = made()
    won = replica.challenger
    registry.crown(NAME, 2, store.tracking_uri)
    becomes(replica, "2", None)
    assert replica.now is won
    time.sleep(0.2)  # what no longer answers has been closed
    assert all(thread.is_alive() for thread in threads(replica.now))


def test_two_that_change_places_are_not_loaded_again(store: config.Job, made: Callable[[], Replica]) -> None:
    replica = made()
    old, new = replica.now, replica.challenger
    with replica._taking_up:  # so that it meets both at once
        registry.crown(NAME, 2, store.tracking_uri)
        registry.challenge(NAME, 1, store.tracking_uri)
    becomes(replica, "2", "1")
    assert (replica.now, replica.challenger) == (new, old)
    time.sleep(0.2)  # what no longer answers has been closed
    assert all(thread.is_alive() for each in (old, replica.now) for thread in threads(each))


def test_without_the_alias_an_endpoint_starts_and_takes_one_up_later(
    store: config.Job, made: Callable[[], Replica]
) -> None:
    registry.challenge(NAME, 0, store.tracking_uri)
    replica = made()
    assert versions(replica) == ("1", None)
    registry.challenge(NAME, 2, store.tracking_uri)
    becomes(replica, "1", "2")


def test_a_challenger_that_cannot_be_loaded_keeps_nobody_from_being_answered(
    store: config.Job, made: Callable[[], Replica], tmp_path: Path
) -> None:
    broken = int(track.connect(store.tracking_uri).create_model_version(NAME, f"{tmp_path}/nothing").version)
    replica = made()
    registry.challenge(NAME, broken, store.tracking_uri)
    time.sleep(0.3)
    assert versions(replica) == ("1", "2")
    registry.crown(NAME, 3, store.tracking_uri)  # the champion is followed all the same
    becomes(replica, "3", "2")
    restarted = made()
    assert versions(restarted) == ("3", None)
    registry.challenge(NAME, 2, store.tracking_uri)
    becomes(restarted, "3", "2")


def test_the_job_names_a_challenger_and_takes_it_away(
    store: config.Job, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> str:
        where = ["--storage", store.storage, "--registry.name", NAME]
        monkeypatch.setattr("sys.argv", ["jobs.register", *arguments, *where])
        register.main()
        return capsys.readouterr().out

    def challenger(said: str) -> list[str]:
        return [line.split()[0] for line in said.splitlines() if "challenger" in line]

    assert challenger(run("--challenger", "3")) == ["3"]
    assert challenger(run("--challenger", "0")) == []
    assert challenger(run("--challenger", "0")) == []
    with pytest.raises(UserError, match="99"):
        run("--challenger", "99")
    with pytest.raises(UserError, match="give one of"):
        run("--challenger", "3", "--list")


@pytest.fixture
def endpoint(ray_cluster: None, store: config.Job, tmp_path: Path) -> Iterator[str]:
    """URL of two replicas that try version 2 on half of the visitors and keep what they answer."""
    registry.crown(NAME, 1, store.tracking_uri)
    registry.challenge(NAME, 2, store.tracking_uri)
    changes = {"replicas": 2, "threads": 1, "challenger_share": 0.5, "follow_seconds": 0.2, "max_queue": 64}
    database = {"feedback": f"sqlite:///{tmp_path}/feedback.db"}
    yield recognizer.start(SETTINGS.model_copy(update={**MODELS, **changes, **database}), store.tracking_uri)
    server.stop()


def test_a_shop_tries_a_challenger_and_reads_what_came_of_it(endpoint: str, store: config.Job, tmp_path: Path) -> None:
    visitors = [f"visitor-{n}" for n in range(20)]

    async def visit() -> list[schema.Recognition]:
        async with AsyncClient(endpoint) as shop:
            asked = [shop.recognize(title="red bag", visitor=visitor) for visitor in visitors * 3]
            answers = await asyncio.gather(*asked)
            await asyncio.gather(*(shop.feedback(each.request_id, "accepted") for each in answers[:20]))
            return answers

    answers = asyncio.run(visit())
    met = {(each.arm, each.model.version) for each in answers}
    assert met == {("champion", "1"), ("challenger", "2")}
    arms = [each.arm for each in answers]
    assert arms[:20] == arms[20:40] == arms[40:]  # in whichever of the two processes
    with Client(endpoint) as shop:
        about = shop.model()
        assert (about.feedback, about.challenger and about.challenger.version) == (True, "2")
        registry.crown(NAME, 2, store.tracking_uri)
        deadline = time.monotonic() + 60
        while {shop.recognize(title="red bag", visitor=each).model.version for each in visitors} != {"2"}:
            assert time.monotonic() < deadline
    server.stop()
    champion, *_, challenger = figures.collect(Store.existing(f"sqlite:///{tmp_path}/feedback.db"))["versions"]
    for version, arm in ((champion, "champion"), (challenger, "challenger")):
        assert version["measures"]["acceptance"]["all"]["count"] == arms[:20].count(arm)
        assert version["visitors"] == arms[:20].count(arm) or arm == "champion"
        assert version["answers"] >= arms.count(arm)
