"""The page in a real Chromium, on a real endpoint. Screenshots are left in runs/screenshots for people to look at."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect, sync_playwright

from tests.builders import photo

pytestmark = pytest.mark.system

SCREENSHOTS = Path(__file__).parents[2] / "runs" / "screenshots"
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]
PHOTO = {"name": "bag.jpg", "mimeType": "image/jpeg", "buffer": photo("red-bag", 1, size=240)}
CONTRAST = """chips => chips.map(chip => {
    const paint = (colour) => {
        const pen = new OffscreenCanvas(1, 1).getContext("2d");
        pen.fillStyle = colour;
        pen.fillRect(0, 0, 1, 1);
        const linear = [...pen.getImageData(0, 0, 1, 1).data].map(v => v / 255)
            .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
    };
    const style = getComputedStyle(chip), a = paint(style.color), b = paint(style.backgroundColor);
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
})"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium: apt-get install chromium fonts-noto-cjk")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(10_000)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext, endpoint: str) -> Iterator[Page]:
    """The page, loaded; afterwards nothing was fetched from elsewhere and no script had failed."""
    page, asked, failed = context.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: failed.append(str(error)))
    page.goto(endpoint)
    expect(page.locator("#model")).to_contain_text("products")
    yield page
    assert [url for url in asked if not url.startswith((endpoint, f"blob:{endpoint}"))] == []
    assert failed == []


def recognise(page: Page, title: str = "红色 包 red bag unheard") -> None:
    page.set_input_files("#photo", PHOTO)
    page.fill("#title", title)
    page.click("#go")
    expect(page.locator("#answer")).to_have_attribute("data-state", "result")


def shot(page: Page, name: str) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.wait_for_timeout(400)  # bars grow into place
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_photo_and_title_give_ranked_products_and_coloured_words(page: Page, scheme: str):
    console: list[str] = []
    page.on("console", lambda message: console.append(message.text))
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    recognise(page)
    expect(page.locator("#ranked > li")).to_have_count(5)
    shares = page.locator("#ranked strong").all_inner_texts()
    assert all(share.endswith("%") for share in shares)
    widths = page.locator("#ranked .bar:not(.alone) i").evaluate_all("bars => bars.map(bar => bar.offsetWidth)")
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > widths[-1]
    chips = page.locator("#words li")
    expect(chips).to_have_count(6)  # five words and the null word
    expect(page.locator("#words .unknown")).to_have_text("unheardunknown")
    colours = chips.evaluate_all("chips => chips.map(chip => getComputedStyle(chip).backgroundColor)")
    assert len(set(colours)) > 2
    assert min(chips.evaluate_all(CONTRAST)) >= 4.5
    expect(page.locator("#words .none")).to_contain_text("no word helped")
    expect(page.locator("#foot")).to_contain_text("ms")
    expect(page.locator("#status")).to_contain_text("Most likely")
    shot(page, f"desktop-{scheme}")
    assert console == []


def test_the_photo_alone_is_shown_beside_photo_and_words(page: Page):
    recognise(page)
    expect(page.locator("#legend")).to_be_visible()
    expect(page.locator("#ranked .bar.alone")).to_have_count(5)
    page.fill("#title", "")
    page.click("#go")
    expect(page.locator("#summary")).to_have_text("By the photo alone.")
    expect(page.locator("#legend")).to_be_hidden()
    expect(page.locator("#words-part")).to_be_hidden()


def test_an_answer_that_is_not_sure_says_so_above_the_ranking(page: Page):
    recognise(page)
    expect(page.locator("#unknown")).to_be_hidden()
    page.fill("#title", "")
    page.click("#go")
    expect(page.locator("#unknown")).to_have_text("No known product is sure enough. The nearest ones:")
    expect(page.locator("#ranked > li")).to_have_count(5)
    expect(page.locator("#status")).to_contain_text("No known product is sure enough. Nearest is")
    shot(page, "unknown")


def test_words_without_a_photo_are_a_question_too(page: Page):
    page.fill("#title", "blue mug")
    page.fill("#tags", "sale，new")
    page.fill("#k", "2")
    page.click("#go")
    expect(page.locator("#ranked > li")).to_have_count(2)
    expect(page.locator("#words li")).to_have_count(5)


def test_the_keyboard_is_enough(page: Page):
    focused = "document.activeElement.id || document.activeElement.textContent"
    reached = []
    for _ in range(4):
        page.keyboard.press("Tab")
        reached.append(page.evaluate(focused))
    assert reached == ["sicot", "API", "photo", "title"]
    page.keyboard.press("Shift+Tab")
    assert page.locator("#drop").evaluate("drop => getComputedStyle(drop).outlineStyle") == "solid"
    # Chromium reports its file chooser unreliably on a busy machine: the click that opens it is proof enough
    page.locator("#photo").evaluate("photo => photo.onclick = () => { photo.dataset.opened = 1; return false; }")
    page.keyboard.press("Enter")
    expect(page.locator("#photo")).to_have_attribute("data-opened", "1")
    page.set_input_files("#photo", PHOTO)  # type: ignore[arg-type]
    expect(page.locator("#preview")).to_be_visible()
    page.keyboard.press("Tab")
    assert page.evaluate(focused) == "remove"
    page.keyboard.press("Tab")
    page.keyboard.type("red bag")
    page.keyboard.press("Enter")
    expect(page.locator("#answer")).to_have_attribute("data-state", "result")


def test_dropped_pasted_and_removed(page: Page):
    give = """([kind, target]) => {
        const carried = new DataTransfer();
        carried.items.add(new File([new Uint8Array([255, 216, 255])], kind + ".jpg", { type: "image/jpeg" }));
        const event = kind === "drop" ? new DragEvent("drop", { dataTransfer: carried, bubbles: true })
            : new ClipboardEvent("paste", { clipboardData: carried, bubbles: true });
        document.querySelector(target).dispatchEvent(event);
    }"""
    for kind, target in (("drop", "#drop"), ("paste", "#title")):
        page.evaluate(give, [kind, target])
        expect(page.locator("#photo-name")).to_contain_text(f"{kind}.jpg")
    page.click("#remove")
    expect(page.locator("#photo-name")).to_be_hidden()
    page.click("#go")
    expect(page.locator("#error")).to_contain_text("Choose a photo, or type a title.")


@pytest.mark.parametrize("width", [360, 820])
def test_a_phone_shows_it_all_without_scrolling_sideways(page: Page, width: int):
    page.set_viewport_size({"width": width, "height": 740})
    recognise(page, "红色 包 red bag " + "averyveryverylongwordwithoutaspace" * 3)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("#go").bounding_box()["height"] >= 44  # type: ignore[index]
    shot(page, f"phone-{width}")


def test_a_broken_file_is_told_and_the_next_question_works(page: Page):
    page.set_input_files("#photo", {"name": "broken.jpg", "mimeType": "image/jpeg", "buffer": PHOTO["buffer"][:300]})  # type: ignore[index]
    page.click("#go")
    expect(page.locator("#error")).to_contain_text("This photo cannot be read")
    expect(page.locator("#result")).to_be_hidden()
    shot(page, "error")
    page.set_input_files("#photo", {"name": "note.svg", "mimeType": "image/svg+xml", "buffer": b"<svg/>"})
    page.click("#go")
    expect(page.locator("#error")).to_contain_text("This is not a photo")
    page.set_input_files("#photo", {"name": "huge.jpg", "mimeType": "image/jpeg", "buffer": b"x" * 300_001})
    page.click("#go")
    expect(page.locator("#error")).to_contain_text("This file is too large")
    recognise(page)


def test_busy_and_cut_off_are_shown(page: Page):
    held: list[Route] = []
    page.route("**/v1/recognize", lambda route: held.append(route))
    page.fill("#title", "red bag")
    page.click("#go")
    expect(page.locator("#ask")).to_have_attribute("aria-busy", "true")
    expect(page.locator("#go")).to_have_text("Looking…")
    held[0].abort()
    expect(page.locator("#error")).to_contain_text("No answer from the server")
    expect(page.locator("#ask")).to_have_attribute("aria-busy", "false")


def test_what_comes_from_outside_is_text_and_never_markup(page: Page):
    evil = "<img src=x onerror=alert(1)><b>bold</b>"
    answer = {
        "request_id": evil,
        "model": {"name": evil, "version": evil, "digest": evil},
        "ranked": [{"label": evil, "probability": 1}],
        "words": [{"token": evil, "weight": 0.5, "known": True}],
        "no_word": 0.5,
        "milliseconds": 1,
    }
    page.route("**/v1/recognize", lambda route: route.fulfill(body=json.dumps(answer), content_type="application/json"))
    page.fill("#title", "x")
    page.click("#go")
    expect(page.locator("#ranked .label")).to_have_text(evil)
    expect(page.locator("#words li").first).to_contain_text(evil)
    assert page.locator("#result img, #result b b").count() == 0


def test_the_description_of_the_api_is_readable(page: Page, endpoint: str):
    page.goto(f"{endpoint}/docs")
    expect(page.locator("h2")).to_have_count(4)
    expect(page.locator("main")).to_contain_text("ranked.probability")
    expect(page.locator("#curl")).to_contain_text(f"curl {endpoint}/v1/recognize -F image=@photo.jpg")
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    shot(page, "docs-phone")
