"""One question and its answer, in a real Chromium, on a real endpoint."""

from __future__ import annotations

import json

import httpx
import pytest
from playwright.sync_api import Page, Route, expect

from tests.page.pages import answered, jpeg, recognise, shot

pytestmark = pytest.mark.system

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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_photo_and_title_give_ranked_products_and_coloured_words(page: Page, scheme: str):
    console: list[str] = []
    page.on("console", lambda message: console.append(message.text))
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    recognise(page)
    expect(page.locator(".match h3")).not_to_be_empty()
    expect(page.locator(".ranked > li")).to_have_count(4)
    shares = page.locator(".share strong").all_inner_texts()
    assert len(shares) == 5
    assert all(share.endswith("%") for share in shares)
    widths = page.locator(".bar:not(.alone) i").evaluate_all("bars => bars.map(bar => bar.style.cssText.split(':')[1])")
    assert [float(width.rstrip(";")) for width in widths] == sorted(map(float, (w.rstrip(";") for w in widths)))[::-1]
    chips = page.locator(".words li")
    expect(chips).to_have_count(6)  # five words and the null word
    expect(page.locator(".words .unknown")).to_have_text("unheardunknown")
    colours = chips.evaluate_all("chips => chips.map(chip => getComputedStyle(chip).backgroundColor)")
    assert len(set(colours)) > 2
    assert min(chips.evaluate_all(CONTRAST)) >= 4.5
    expect(page.locator(".words .none")).to_contain_text("no word helped")
    expect(page.locator(".foot")).to_contain_text("ms")
    expect(page.locator("#status")).to_contain_text("Most likely")
    shot(page, f"desktop-{scheme}")
    assert console == []


def test_each_product_is_shown_by_its_picture_or_else_by_its_first_letter(page: Page):
    recognise(page)
    shown = page.locator(".match .tile img, .ranked .tile img")
    expect(shown).to_have_count(5)
    for place in range(5):
        expect(shown.nth(place)).to_have_js_property("naturalWidth", 96)
    page.route("**/v1/classes/photo?*", lambda route: route.fulfill(status=404))
    recognise(page)
    expect(page.locator(".tile img")).to_have_count(0)
    label = page.locator(".match h3").inner_text()
    expect(page.locator(".match .tile")).to_have_text(label[0].upper())


def test_the_photo_alone_is_shown_beside_photo_and_words(page: Page):
    recognise(page)
    expect(page.locator(".legend")).to_be_visible()
    expect(page.locator(".bar.alone")).to_have_count(5)
    page.fill("#title", "")
    page.click("#go")
    expect(page.locator(".summary")).to_have_text("By the photo alone.")
    expect(page.locator(".legend")).to_have_count(0)
    expect(page.locator(".words-part")).to_have_count(0)


def test_an_answer_that_is_not_sure_says_so_above_the_ranking(page: Page):
    recognise(page)
    expect(page.locator(".unsure")).to_have_count(0)
    page.fill("#title", "")
    page.click("#go")
    expect(page.locator(".match h3")).to_have_text("Unknown product")
    expect(page.locator(".match")).to_contain_text("No known product is sure enough. These come nearest:")
    expect(page.locator(".ranked > li")).to_have_count(5)
    expect(page.locator("#status")).to_contain_text("Unknown product. Nearest is")
    shot(page, "unknown")


def test_words_without_a_photo_are_a_question_too(page: Page):
    page.fill("#title", "blue mug")
    page.fill("#tags", "sale，new")
    page.fill("#k", "2")
    page.click("#go")
    answered(page)
    expect(page.locator(".share strong")).to_have_count(2)
    expect(page.locator(".words li")).to_have_count(5)
    expect(page.locator(".summary")).to_have_text("By the words alone.")
    expect(page.locator(".asked")).to_have_text("blue mug · sale，new")


def test_dropped_pasted_and_removed(page: Page):
    give = """([kind, target]) => {
        const carried = new DataTransfer();
        carried.items.add(new File([new Uint8Array([255, 216, 255])], kind + ".jpg", { type: "image/jpeg" }));
        const event = kind === "drop" ? new DragEvent("drop", { dataTransfer: carried, bubbles: true })
            : new ClipboardEvent("paste", { clipboardData: carried, bubbles: true });
        document.querySelector(target).dispatchEvent(event);
    }"""
    page.evaluate(give, ["drop", "#drop"])
    expect(page.locator("#chosen-text")).to_contain_text("drop.jpg")
    page.evaluate(give, ["paste", "#title"])
    expect(page.locator("#chosen-text")).to_contain_text("2 photos")
    page.get_by_role("button", name="Remove drop.jpg").click()
    expect(page.locator("#chosen-text")).to_contain_text("paste.jpg")
    page.click("#clear")
    expect(page.locator("#chosen-line")).to_be_hidden()
    page.click("#go")
    expect(page.locator("#amiss")).to_have_text("Choose a photo, or type a title.")
    page.fill("#title", "red bag")
    page.fill("#k", "11")
    page.click("#go")
    expect(page.locator("#amiss")).to_have_text("Ranks must be between 1 and 10.")


def test_a_broken_file_is_told_and_the_next_question_works(page: Page):
    def asked(name: str, kind: str, content: bytes, says: str) -> None:
        page.set_input_files("#photo", {"name": name, "mimeType": kind, "buffer": content})
        page.click("#go")
        expect(page.locator(".error")).to_contain_text(says)
        page.click("#clear")

    asked("broken.jpg", "image/jpeg", jpeg()["buffer"][:300], "This photo cannot be read")
    shot(page, "error")
    asked("note.svg", "image/svg+xml", b"<svg/>", "This is not a photo")
    asked("huge.jpg", "image/jpeg", b"x" * 300_001, "This file is too large")
    recognise(page)


def test_busy_and_cut_off_are_shown(page: Page):
    held: list[Route] = []
    page.route("**/v1/recognize", lambda route: held.append(route))
    page.fill("#title", "red bag")
    page.click("#go")
    expect(page.locator("#ask")).to_have_attribute("aria-busy", "true")
    expect(page.locator("#go")).to_have_text("Looking…")
    held[0].abort()
    expect(page.locator(".error")).to_contain_text("No answer from the server")
    expect(page.locator("#ask")).to_have_attribute("aria-busy", "false")


def test_what_comes_from_outside_is_text_and_never_markup(page: Page):
    evil = "<img src=x onerror=alert(1)><b>bold</b>"
    answer = {
        "request_id": evil,
        "model": {"name": evil, "version": evil, "digest": evil},
        "ranked": [{"label": evil, "probability": 1}, {"label": f"{evil}2", "probability": 0}],
        "unknown": False,
        "words": [{"token": evil, "weight": 0.5, "known": True}],
        "no_word": 0.5,
        "milliseconds": 1,
    }
    page.route("**/v1/recognize", lambda route: route.fulfill(body=json.dumps(answer), content_type="application/json"))
    page.fill("#title", evil)
    page.click("#go")
    expect(page.locator(".match h3")).to_have_text(evil)
    expect(page.locator(".ranked .label")).to_have_text(f"{evil}2")
    expect(page.locator(".asked")).to_have_text(evil)
    expect(page.locator(".words li").first).to_contain_text(evil)
    expect(page.locator("#results img")).to_have_count(0)  # no product has this name, so none has a picture
    assert page.locator("#results b b").count() == 0


def test_a_browser_says_that_it_is_the_same_one_each_time(page: Page, endpoint: str):
    names = []
    page.on(
        "request",
        lambda request: names.append(request.headers.get("x-visitor-id")) if request.method == "POST" else None,
    )
    for _ in range(2):
        page.goto(endpoint)
        page.fill("#title", "red bag")
        page.click("#go")
        expect(page.locator(".match")).to_be_visible()
    assert len(set(names)) == 1
    assert len(names[0]) > 16


def test_the_description_of_the_api_is_readable(page: Page, endpoint: str):
    page.goto(f"{endpoint}/docs")
    paths = httpx.get(f"{endpoint}/openapi.json").json()["paths"]
    expect(page.locator("h2")).to_have_count(sum(len(operations) for operations in paths.values()))
    expect(page.locator("main")).to_contain_text("ranked.probability")
    expect(page.locator("#curl")).to_contain_text(f"curl {endpoint}/v1/recognize -F image=@photo.jpg")
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    shot(page, "docs-phone")
