"""Saying whether an answer was right, where the endpoint keeps that. Its route is stood for here."""

from __future__ import annotations

import email
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.page.pages import opened, recognise, shot

pytestmark = pytest.mark.system

Form = dict[str, bytes]


@pytest.fixture
def asks(browser: Browser, endpoint: str) -> Iterator[Page]:
    """The page on an endpoint that keeps feedback."""
    with opened(browser, endpoint, feedback=True) as page:
        yield page


@pytest.fixture
def told(asks: Page) -> list[Form]:
    """What the endpoint was told."""
    forms: list[Form] = []

    def keep(route: Route) -> None:
        head = f"Content-Type: {route.request.headers['content-type']}\r\n\r\n"
        form = email.message_from_bytes(head.encode() + (route.request.post_data_buffer or b""))
        fields = {part.get_param("name", header="content-disposition"): part for part in form.get_payload()}  # type: ignore[union-attr]
        forms.append({str(name): part.get_payload(decode=True) for name, part in fields.items()})  # type: ignore[misc, union-attr]
        route.fulfill(status=201, json={"request_id": forms[-1]["request_id"].decode(), "outcome": "accepted"})

    asks.route("**/v1/feedback", keep)
    return forms


def test_an_endpoint_that_keeps_no_feedback_is_told_none(page: Page):
    recognise(page)
    expect(page.locator(".feedback")).to_have_count(0)


def test_an_answer_that_is_right_is_said_to_be_right(asks: Page, told: list[Form]):
    with asks.expect_response("**/v1/recognize") as reply:
        recognise(asks)
    label = asks.locator(".match h3").inner_text()
    asks.get_by_role("button", name="Right", exact=True).click()
    expect(asks.locator(".thanks")).to_have_text(f"Thank you. Noted as right: {label}.")
    expect(asks.locator("#status")).to_have_text(f"Thank you. Noted as right: {label}.")
    expect(asks.locator(".thanks")).to_be_focused()
    (form,) = told
    assert form["outcome"] == b"accepted"
    assert form["label"].decode() == label
    assert set(form) == {"request_id", "outcome", "label"}
    assert reply.value.ok


def test_the_right_product_is_chosen_among_the_ranked_and_the_photo_goes_with_it(asks: Page, told: list[Form]):
    recognise(asks, "red bag")
    asks.get_by_role("button", name="Choose the right one").click()
    expect(asks.locator(".this-one")).to_have_count(5)
    expect(asks.locator(".this-one").first).to_be_focused()
    shot(asks, "choose")
    label = asks.locator(".ranked .label").nth(1).inner_text()
    asks.get_by_role("button", name=f"This one: {label}").press("Enter")
    expect(asks.locator(".thanks")).to_have_text(f"Thank you. Noted: it is {label}.")
    expect(asks.locator(".this-one")).to_have_count(0)
    (form,) = told
    assert (form["outcome"], form["label"].decode(), form["title"]) == (b"corrected", label, b"red bag")
    assert form["image"].startswith(b"\xff\xd8\xff")
    asks.click("#language")
    expect(asks.locator(".thanks")).to_have_text(f"谢谢，已记录：这是 {label}。")  # it is not asked again


def test_a_product_that_is_not_among_them_is_named_with_the_help_of_those_known(asks: Page, told: list[Form]):
    asked: list[str] = []

    def known(route: Route) -> None:
        asked.append(route.request.url)
        route.fulfill(json={"classes": [{"label": "red teapot"}, {"label": "red <b>kettle"}]})

    asks.route("**/v1/classes?*", known)
    recognise(asks)
    asks.get_by_role("button", name="Not among them").click()
    asks.keyboard.type("red t")
    expect(asks.locator("datalist option")).to_have_count(2)
    assert asked[-1].endswith("/v1/classes?q=red+t&limit=8")
    asks.get_by_label("Which product is it?").fill("red teapot")
    shot(asks, "name")
    asks.keyboard.press("Enter")
    expect(asks.locator(".thanks")).to_have_text("Thank you. Noted: it is red teapot.")
    assert (told[0]["outcome"], told[0]["label"]) == (b"corrected", b"red teapot")


def test_escape_goes_back_to_the_question_by_keyboard(asks: Page, told: list[Form]):
    recognise(asks)
    for name in ("Choose the right one", "Not among them"):
        asks.get_by_role("button", name=name).press("Enter")
        asks.keyboard.press("Escape")
        expect(asks.get_by_role("button", name=name)).to_be_focused()
    expect(asks.locator(".this-one")).to_have_count(0)
    assert told == []


def test_what_could_not_be_sent_is_said_and_can_be_sent_again(asks: Page, told: list[Form]):
    recognise(asks)
    refusal = {"request_id": "x", "error": {"code": "internal", "message": "the book is full"}}
    asks.route("**/v1/feedback", lambda route: route.fulfill(status=500, json=refusal), times=1)
    asks.get_by_role("button", name="Right", exact=True).click()
    expect(asks.locator(".not-sent")).to_have_text("That could not be sent: the book is full")
    asks.get_by_role("button", name="Right", exact=True).click()
    expect(asks.locator(".thanks")).to_be_visible()
    assert len(told) == 1


def test_an_unknown_product_cannot_be_right_but_can_be_named(asks: Page, told: list[Form]):
    recognise(asks, "")
    expect(asks.locator(".unsure")).to_be_visible()
    expect(asks.locator(".feedback button")).to_have_text(["Choose the right one", "Not among them"])
    asks.get_by_role("button", name="Choose the right one").click()
    asks.locator(".this-one").first.click()
    expect(asks.locator(".thanks")).to_be_visible()
    assert told[0]["outcome"] == b"corrected"  # the endpoint had said that it does not know it
