"""Several photos at once: each has a result of its own, and a busy endpoint is asked again."""

from __future__ import annotations

import io
import time

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, Route, expect

from tests.builders import LABELS
from tests.page.pages import answered, jpeg, recognise, shot

pytestmark = pytest.mark.system

BROKEN = {"name": "broken.jpg", "mimeType": "image/jpeg", "buffer": jpeg()["buffer"][:300]}
FULL = '{"request_id": "x", "error": {"code": "full", "message": "too many requests are waiting"}}'


def full(route: Route, seconds: str = "1") -> None:
    route.fulfill(status=503, headers={"Retry-After": seconds, "Content-Type": "application/json"}, body=FULL)


def test_each_photo_has_its_own_result_and_a_broken_one_spoils_no_other(page: Page):
    page.set_input_files("#photo", [*(jpeg(label) for label in LABELS), BROKEN])  # type: ignore[misc]
    expect(page.locator("#chosen li")).to_have_count(7)
    page.fill("#tags", "sale")
    page.click("#go")
    answered(page, 6)
    expect(page.locator(".result")).to_have_count(7)
    expect(page.locator(".result").last.locator(".error")).to_contain_text("This photo cannot be read")
    names = [f"Your photo: {label}-1.jpg" for label in LABELS]
    assert page.locator(".result .shot img[alt]:not([alt=''])").evaluate_all("all => all.map(i => i.alt)") == names
    unknown = page.locator(".result .unsure").count()
    told = f"7 photos: {6 - unknown} recognised, {unknown} unknown, 1 failed."
    expect(page.locator("#progress-text")).to_have_text(told)
    expect(page.locator("#status")).to_have_text(told)
    shot(page, "batch")


def test_few_are_asked_at_the_same_time_and_the_progress_is_told(page: Page):
    held: list[Route] = []
    page.route("**/v1/recognize", lambda route: held.append(route))
    page.set_input_files("#photo", [jpeg(seed=seed) for seed in range(5)])  # type: ignore[misc]
    page.click("#go")
    expect(page.locator(".result[data-state=asking]")).to_have_count(3)
    expect(page.locator(".result[data-state=waiting]")).to_have_count(2)
    page.wait_for_timeout(200)
    assert len(held) == 3
    held[1].continue_()
    answered_one = page.locator(".result").nth(1)
    expect(answered_one).to_have_attribute("data-state", "done")
    expect(page.locator("#progress-text")).to_have_text("1 of 5")
    assert page.locator("#progress").evaluate("bar => [bar.value, bar.max]") == [1, 5]
    while len(held) < 4:
        page.wait_for_timeout(50)
    for route in (held[0], held[2], held[3]):
        route.continue_()
    while len(held) < 5:
        page.wait_for_timeout(50)
    held[4].continue_()
    answered(page, 5)


def test_who_is_sent_away_is_asked_again_after_the_time_told(page: Page):
    times: list[float] = []

    def busy_at_first(route: Route) -> None:
        times.append(time.monotonic())
        full(route, "2") if len(times) == 1 else route.continue_()

    page.route("**/v1/recognize", busy_at_first)
    page.set_input_files("#photo", [jpeg()])  # type: ignore[list-item]
    page.click("#go")
    expect(page.locator(".pending")).to_have_text("Busy just now: asks again in 2 s")
    answered(page)
    assert 2 <= times[1] - times[0] < 5


def test_an_endpoint_that_stays_full_is_given_up_and_can_be_tried_again(page: Page):
    times: list[float] = []
    page.route("**/v1/recognize", lambda route: (times.append(0), full(route))[1])
    page.fill("#title", "red bag")
    page.click("#go")
    expect(page.locator(".error")).to_contain_text("Busy just now", timeout=20_000)
    assert len(times) == 6
    page.unroute("**/v1/recognize")
    page.get_by_role("button", name="Try again").click()
    answered(page)


def test_a_batch_can_be_stopped_and_taken_up_again(page: Page):
    page.route("**/v1/recognize", lambda route: None)
    page.set_input_files("#photo", [jpeg(seed=seed) for seed in range(4)])  # type: ignore[misc]
    page.click("#go")
    expect(page.locator(".result[data-state=asking]")).to_have_count(3)
    page.click("#stop")
    expect(page.locator(".result .error h3")).to_have_text(["Stopped"] * 4)
    page.unroute("**/v1/recognize")
    page.get_by_role("button", name="Try 4 again").click()
    answered(page, 4)
    expect(page.locator("#again")).to_be_hidden()


def test_one_photo_is_tried_again_while_the_others_go_on(page: Page):
    held: list[Route] = []
    page.route("**/v1/recognize", lambda route: held.append(route) if len(held) < 3 else route.continue_())
    page.set_input_files("#photo", [jpeg(seed=seed) for seed in range(3)])  # type: ignore[misc]
    page.click("#go")
    expect(page.locator(".result[data-state=asking]")).to_have_count(3)
    held[1].abort()
    page.locator(".result").nth(1).get_by_role("button", name="Try again").click()
    expect(page.locator(".result").nth(1)).to_have_attribute("data-state", "done")
    expect(page.locator("#ask")).to_have_attribute("aria-busy", "true")
    for route in (held[0], held[2]):
        route.continue_()
    answered(page, 3)


def test_a_photo_that_is_too_large_is_made_smaller_first(page: Page):
    noise = np.random.default_rng(0).integers(0, 256, (900, 1400, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    sent: list[bytes] = []

    def kept(route: Route) -> None:
        sent.append(route.request.post_data_buffer or b"")
        route.continue_()

    page.route("**/v1/recognize", kept)
    page.set_input_files("#photo", {"name": "large.png", "mimeType": "image/png", "buffer": file.getvalue()})
    page.click("#go")
    answered(page)
    body = sent[0]
    small = Image.open(io.BytesIO(body[body.index(b"\xff\xd8\xff") :]))
    assert len(file.getvalue()) > 300_000 > len(body)
    assert small.size[0] / small.size[1] == pytest.approx(1400 / 900, rel=0.01)


def test_photos_gather_until_they_are_asked_about_and_the_next_one_begins_anew(page: Page):
    for seed in (1, 2):
        page.set_input_files("#photo", [jpeg(seed=seed)])  # type: ignore[list-item]
    expect(page.locator("#go")).to_have_text("Recognise 2 photos")
    page.click("#go")
    answered(page, 2)
    page.set_input_files("#photo", [jpeg(seed=3)])  # type: ignore[list-item]
    expect(page.locator("#chosen li")).to_have_count(1)
    expect(page.locator(".result .shot img").first).to_have_js_property("naturalWidth", 240)  # answers stay
    page.click("#go")
    answered(page, 1)


def test_more_photos_than_fit_are_left_out_and_that_is_told(page: Page):
    page.set_input_files("#photo", [jpeg()] * 51)  # type: ignore[list-item]
    expect(page.locator("#chosen li")).to_have_count(50)
    expect(page.locator("#crowded")).to_have_text("At most 50 photos at once: the first 50 are kept.")


def test_the_next_photo_begins_with_an_empty_form(page: Page):
    recognise(page)
    page.click("#over")
    expect(page.locator("#chosen li")).to_have_count(0)
    expect(page.locator("#title")).to_have_value("")
    assert page.evaluate("document.activeElement.id") == "photo"
