"""What a training looks like in Ray's dashboard, on a head node that asks for a token."""

from __future__ import annotations

import httpx
import pytest
from playwright.sync_api import Browser, expect

from tests.jobs.conftest import head
from tests.jobs.test_submit import submit
from tests.page.conftest import browser
from tests.page.pages import shot

__all__ = ["browser", "head"]

SMALL = [
    *("--preset", "demo", "--catalogue.synthetic.rows", "120", "--catalogue.synthetic.classes", "6"),
    *("--catalogue.synthetic.image_size", "32", "--prepare.images.size", "32", "--prepare.word2vec.dimension", "8"),
    *("--model.dimension", "16", "--model.visual.trunk", "squeezenet1_1", "--model.visual.weights", "none"),
    *("--train.loader_threads", "0", "--train.batch_size", "16", "--train.epochs", "2", "--train.workers", "1"),
]

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def trained(head: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """Submission id of a training that has succeeded."""
    storage = tmp_path_factory.mktemp("runs")
    for job in ("prepare", "train"):
        done = submit(head, "python", "-m", f"jobs.{job}", *SMALL, "--storage", str(storage))
        assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.split("Job '")[1].split("'")[0]


def test_ray_trains_own_state_knows_the_run(trained: str, head: dict[str, str]) -> None:
    """Which the driver alone switches on: nothing of sicot is in the environment of the head node."""
    token = {"Authorization": f"Bearer {head['RAY_AUTH_TOKEN']}"}
    said = httpx.get(f"{head['RAY_API_SERVER_ADDRESS']}/api/train/v2/runs/v1", headers=token, timeout=60)
    assert said.status_code == 200, said.text
    (run,) = said.json()["train_runs"]
    assert (run["name"], run["status"]) == ("train", "FINISHED")
    assert len(run["attempts"]) == 1


def test_the_page_of_the_job_shows_its_end_and_its_log(browser: Browser, trained: str, head: dict[str, str]) -> None:
    context = browser.new_context(
        viewport={"width": 1600, "height": 1300},
        extra_http_headers={"Authorization": f"Bearer {head['RAY_AUTH_TOKEN']}"},
    )
    context.set_default_timeout(60_000)
    page = context.new_page()
    page.goto(f"{head['RAY_API_SERVER_ADDRESS']}/#/jobs/{trained}")
    expect(page.get_by_text("SUCCEEDED").first).to_be_visible(timeout=60_000)
    expect(page.get_by_text("jobs.train").first).to_be_visible(timeout=60_000)
    expect(page.get_by_text("epoch 2/2").first).to_be_visible(timeout=60_000)
    shot(page, "ray-job")
    context.close()


def test_nobody_sees_it_without_the_token(trained: str, head: dict[str, str]) -> None:
    assert httpx.get(f"{head['RAY_API_SERVER_ADDRESS']}/api/jobs/", timeout=30).status_code == 401
