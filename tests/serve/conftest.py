"""An endpoint for the tests of a module, with limits small enough to run into."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sicot import config

SETTINGS = config.Serve(
    port=0, replicas=1, threads=2, max_batch=2, max_queue=4, max_bytes=300_000, max_pixels=1_000_000, max_k=10
)


@pytest.fixture(scope="module")
def endpoint(ray_cluster: None, tiny_bundle: str) -> Iterator[str]:
    """URL of the tiny bundle's endpoint, by Ray Serve on a free port."""
    from serve_apps import recognizer
    from sicot.endpoint import server

    yield recognizer.start(SETTINGS.model_copy(update={"model": tiny_bundle}), "sqlite:///unused.db")
    server.stop()
