"""The page for everybody: Chinese and English, dark and light, by keyboard, on a phone, read aloud."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.page.pages import answered, barriers, jpeg, opened, recognise, shot
from tests.page.test_batch import BROKEN

pytestmark = pytest.mark.system

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@pytest.mark.parametrize("locale", ["en-GB", "zh-CN"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", ["desk", "phone"])
def test_nothing_stands_in_anybodys_way(browser: Browser, endpoint: str, locale: str, scheme: str, device: str):
    how = {"locale": locale, "color_scheme": scheme, **(PHONE if device == "phone" else {})}
    with opened(browser, endpoint, feedback=True, **how) as page:
        name = f"{device}-{locale[:2]}-{scheme}"
        assert barriers(page) == []
        shot(page, f"{name}-empty")
        recognise(page)
        assert barriers(page) == []
        shot(page, f"{name}-answer")
        page.locator(".feedback button").last.click()  # a field to name the product
        assert barriers(page) == []
        page.keyboard.press("Escape")
        page.click("#over")
        page.set_input_files("#photo", [jpeg(), jpeg("blue-mug", 3), BROKEN])  # type: ignore[list-item]
        page.click("#go")
        answered(page, 2)
        page.locator(".feedback button").first.click()
        assert barriers(page) == []
        shot(page, f"{name}-batch")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_stands_in_the_way_of_who_reads_the_description(page: Page, endpoint: str, scheme: str):
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.goto(f"{endpoint}/docs")
    expect(page.locator("h2").first).to_be_visible()
    assert barriers(page) == []


def test_the_page_speaks_the_browsers_language_until_told_otherwise(browser: Browser, endpoint: str):
    with opened(browser, endpoint, locale="zh-CN") as page:
        expect(page.locator("h1")).to_have_text("这是哪件商品？")
        expect(page.locator("html")).to_have_attribute("lang", "zh-Hans")
        recognise(page)
        expect(page.locator("#status")).to_contain_text("最可能是")
        page.get_by_role("button", name="English").click()
        expect(page.locator("h1")).to_have_text("Which product is this?")
        expect(page.locator(".words-part h4")).to_have_text("Where the attention went")
        page.reload()
        expect(page.locator("h1")).to_have_text("Which product is this?")
        page.get_by_role("button", name="中文").click()
        expect(page).to_have_title("这是哪件商品？ · sicot")


def test_all_that_is_said_is_said_in_both_languages(page: Page):
    english, chinese = page.evaluate("import('/page/words.js').then(m => [m.LANGUAGES.en, m.LANGUAGES.zh])")
    assert english.keys() == chinese.keys()
    placeholder = "{"
    for key, text in english.items():
        held = sorted(part.partition("}")[0] for part in text.split(placeholder)[1:])
        assert sorted(part.partition("}")[0] for part in chinese[key].split(placeholder)[1:]) == held, key


def test_the_page_is_as_dark_as_the_system_until_told_otherwise(page: Page):
    def ground() -> str:
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    page.emulate_media(color_scheme="light")
    light = ground()
    page.emulate_media(color_scheme="dark")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    dark = ground()
    assert light != dark
    switch = page.get_by_role("button", name="Dark colours")
    expect(switch).to_have_attribute("aria-pressed", "true")
    switch.click()
    assert ground() == light
    page.reload()
    assert ground() == light
    expect(switch).to_have_attribute("aria-pressed", "false")


def test_the_keyboard_is_enough(page: Page):
    focused = "document.activeElement.id || document.activeElement.textContent"
    reached = []
    for _ in range(6):
        page.keyboard.press("Tab")
        reached.append(page.evaluate(focused))
    assert reached == ["sicot", "language", "theme", "API", "photo", "title"]
    page.keyboard.press("Shift+Tab")
    assert page.locator("label[for=photo]").evaluate("label => getComputedStyle(label).outlineStyle") == "solid"
    # Chromium reports its file chooser unreliably on a busy machine: the click that opens it is proof enough
    page.locator("#photo").evaluate("photo => photo.onclick = () => { photo.dataset.opened = 1; return false; }")
    page.keyboard.press("Enter")
    expect(page.locator("#photo")).to_have_attribute("data-opened", "1")
    page.set_input_files("#photo", [jpeg()])  # type: ignore[list-item]
    expect(page.locator("#chosen img")).to_be_visible()
    page.locator("#chosen button").focus()
    page.keyboard.press("Enter")
    assert page.evaluate(focused) == "photo"
    page.locator("#title").focus()
    page.keyboard.type("red bag")
    page.keyboard.press("Enter")
    answered(page)


def test_a_phone_takes_the_photo_with_its_camera(browser: Browser, endpoint: str, page: Page):
    expect(page.locator("label[for=camera]")).to_be_hidden()
    with opened(browser, endpoint, **PHONE) as phone:
        expect(phone.locator("label[for=camera]")).to_be_visible()
        assert phone.locator("#camera").evaluate("input => [input.getAttribute('capture'), input.accept]") == [
            "environment",
            "image/*",
        ]
        for seed in (1, 2):
            phone.set_input_files("#camera", [jpeg(seed=seed)])  # type: ignore[list-item]
        phone.click("#go")
        answered(phone, 2)
        expect(phone.locator("#go")).not_to_be_in_viewport()  # the answers were scrolled to
        expect(phone.locator("#progress-text")).to_be_in_viewport()


@pytest.mark.parametrize("width", [360, 820])
def test_a_phone_shows_it_all_without_scrolling_sideways(browser: Browser, endpoint: str, width: int):
    with opened(browser, endpoint, feedback=True, viewport={"width": width, "height": 740}) as page:
        recognise(page, "红色 包 red bag " + "averyveryverylongwordwithoutaspace" * 3)
        page.locator(".feedback button").nth(1).click()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for each in ("#go", "label[for=photo]", "#language", "#theme", "#over"):
            assert page.locator(each).bounding_box()["height"] >= 44, each  # type: ignore[index]
        shot(page, f"phone-{width}")


def test_nothing_moves_for_who_wants_that(page: Page):
    page.emulate_media(reduced_motion="reduce")
    recognise(page)
    assert page.locator(".bar i").first.evaluate("bar => getComputedStyle(bar).transitionDuration") == "0s"
    assert page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
