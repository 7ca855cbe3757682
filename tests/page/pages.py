"""The page opened in a Chromium, and what several tests do there. Screenshots are left in runs/screenshots."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, Route, expect

from tests.builders import photo

SCREENSHOTS = Path(__file__).parents[2] / "runs" / "screenshots"
AXE = (files("axe_playwright_python") / "axe.min.js").read_text()


def jpeg(label: str = "red-bag", seed: int = 1) -> dict[str, Any]:
    """A photo as a file that is chosen."""
    return {"name": f"{label}-{seed}.jpg", "mimeType": "image/jpeg", "buffer": photo(label, seed, size=240)}


@contextmanager
def opened(browser: Browser, endpoint: str, feedback: bool = False, **how: Any) -> Iterator[Page]:
    """The page, loaded; afterwards nothing was fetched from elsewhere and no script had failed.

    ``how`` is what Playwright's contexts take; ``feedback`` makes the model say that it is kept.
    """
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, "locale": "en-GB", **how})
    context.set_default_timeout(10_000)
    page, asked, failed = context.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: failed.append(str(error)))
    if feedback:
        page.route("**/v1/model", keeping_feedback)
    page.goto(endpoint)
    expect(page.locator("#model")).to_contain_text("tiny")
    yield page
    assert [url for url in asked if not url.startswith((endpoint, f"blob:{endpoint}"))] == []
    assert failed == []
    context.close()


def keeping_feedback(route: Route) -> None:
    """The endpoint's own answer, that also keeps feedback."""
    reply = route.fetch()
    route.fulfill(response=reply, json={**reply.json(), "feedback": True})


def recognise(page: Page, title: str = "红色 包 red bag unheard") -> None:
    """Ask about one photo and wait for the answer."""
    if page.locator("#chosen li").count():
        page.click("#clear")
    page.set_input_files("#photo", [jpeg()])  # type: ignore[list-item]
    page.fill("#title", title)
    page.click("#go")
    answered(page)


def answered(page: Page, count: int = 1) -> None:
    """Wait until so many cards have an answer."""
    expect(page.locator(".result[data-state=done]")).to_have_count(count)
    expect(page.locator("#ask")).to_have_attribute("aria-busy", "false")


def shot(page: Page, name: str) -> None:
    """Leave a screenshot of the whole page."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.wait_for_timeout(400)  # bars grow into place
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)


def barriers(page: Page) -> list[str]:
    """What axe-core finds serious or critical, with where."""
    page.wait_for_timeout(400)  # colours are read when nothing moves
    page.evaluate(AXE)
    found = page.evaluate("axe.run()")["violations"]
    return [
        f"{each['id']}: {node['html']} {node['failureSummary']}"
        for each in found
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]
