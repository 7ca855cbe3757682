"""A new champion is taken up while the endpoint answers: no request fails, and each says which version answered it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from sicot import registry, track
from sicot.bundle import Bundle, Query
from sicot.endpoint import server
from tests.builders import LABELS, photo
from tests.serve.conftest import NAME, SETTINGS

SWITCHES = 20


@pytest.fixture(scope="module")
def followed(ray_cluster: None, versions: tuple[str, dict[str, Bundle]]) -> Iterator[str]:
    """URL of an endpoint that serves the champion, whoever that is."""
    from serve_apps import recognizer

    changes = {"model": f"models:/{NAME}@champion", "follow_seconds": 0.1, "max_seconds": 5.0, "cache": 8}
    yield recognizer.start(SETTINGS.model_copy(update=changes), versions[0])
    server.stop()


def served(url: str) -> str:
    return httpx.get(f"{url}/v1/model", timeout=30).raise_for_status().json()["version"]


def test_champions_change_under_load(followed: str, versions: tuple[str, dict[str, Bundle]]) -> None:
    uri, bundles = versions
    photos = [photo(label, n) for n, label in enumerate(LABELS * 3)]
    right = {
        version: [bundle.predict([Query(each)])[0].ranked[0] for each in photos] for version, bundle in bundles.items()
    }
    over, wrong, counted = threading.Event(), [], Counter[str]()

    def client(first: int) -> None:
        with httpx.Client(base_url=followed, timeout=30) as http:
            turn = first
            while not over.is_set():
                turn = (turn + 1) % len(photos)
                reply = http.post("/v1/recognize", content=photos[turn], headers={"content-type": "image/jpeg"})
                if reply.status_code != 200:
                    wrong.append(reply.text)
                    continue
                said = reply.json()
                version, best = said["model"]["version"], said["ranked"][0]
                counted[version] += 1
                meant = right[version][turn]
                if abs(best["probability"] - meant.probability) > 1e-3 or best["label"] != meant.label:
                    wrong.append(f"version {version}: {best} where {meant} was meant")

    with ThreadPoolExecutor(3) as pool:
        clients = [pool.submit(client, 5 * n) for n in range(3)]
        try:
            for switch in range(SWITCHES):
                champion = list(bundles)[(switch + 1) % 2]
                registry.crown(NAME, int(champion), uri)
                deadline = time.monotonic() + 30
                while served(followed) != champion:
                    assert time.monotonic() < deadline, f"version {champion} was not taken up"
                    time.sleep(0.05)
        finally:
            over.set()
        for each in clients:
            each.result()
    assert wrong == []
    assert min(counted[version] for version in bundles) > 10


def test_a_rollback_is_followed_and_a_champion_that_cannot_be_loaded_is_not(
    followed: str, versions: tuple[str, dict[str, Bundle]], tmp_path: Path
) -> None:
    uri, bundles = versions
    first, second = bundles
    registry.crown(NAME, int(second), uri)
    while served(followed) != second:
        time.sleep(0.05)
    assert str(registry.rollback(NAME, uri)) == first
    deadline = time.monotonic() + 30
    while served(followed) != first:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    client = track.connect(uri)
    broken = client.create_model_version(NAME, f"{tmp_path}/nothing")
    client.set_registered_model_alias(NAME, registry.CHAMPION, broken.version)
    for _ in range(20):
        assert served(followed) == first
        reply = httpx.post(f"{followed}/v1/recognize", data={"title": "red bag"}, timeout=30)
        time.sleep(0.05)
    assert reply.json()["model"]["version"] == first
