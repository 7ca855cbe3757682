"""An endpoint for the tests of a module, with limits small enough to run into."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sicot import config, registry, track
from sicot.bundle import Bundle
from tests.builders import bundle_folder

NAME = "followed"
SETTINGS = config.Serve(
    port=0, replicas=1, threads=1, max_batch=2, max_queue=4, max_bytes=300_000, max_pixels=1_000_000, max_k=10
)


@pytest.fixture(scope="module")
def endpoint(ray_cluster: None, tiny_bundle: str) -> Iterator[str]:
    """URL of the tiny bundle's endpoint, by Ray Serve on a free port."""
    from serve_apps import recognizer
    from sicot.endpoint import server

    yield recognizer.start(SETTINGS.model_copy(update={"model": tiny_bundle}), "sqlite:///unused.db")
    server.stop()


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Bundle]]:
    """MLflow's store with two versions of a model, the first of them champion, and the bundles they are of."""
    root = tmp_path_factory.mktemp("versions")
    (root / "runs").mkdir()
    job = config.Job(storage=str(root / "runs"))
    folders = [bundle_folder(root / name, dimension=size) for name, size in (("one", 16), ("two", 8))]
    with track.run(job, "register", "test") as run:
        numbers = [registry.register(run, folder, NAME) for folder in folders]
    registry.crown(NAME, numbers[0], job.tracking_uri)
    return job.tracking_uri, {str(n): Bundle.load(folder) for n, folder in zip(numbers, folders, strict=True)}
