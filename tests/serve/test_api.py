"""The web application by itself: what it reads, what it refuses, and how it says so. No Ray here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sicot import bundle, config
from sicot.endpoint import api, body, errors, schema
from sicot.errors import UserError
from sicot.prepare.images import BadImage

PAGE = Path(__file__).parents[2] / "serve_apps" / "page"
LIMITS = config.Serve(threads=1, max_batch=1, max_queue=1, max_bytes=20_000, max_k=7)
INFO = bundle.Info(
    name="m", digest="d" * 64, created="2025-01-01", model=config.Model(), images=config.Images(), text=config.Text(),
    classes=3, vocabulary=2, word_dimension=4, temperature=dict.fromkeys(("image", "image_text", "text"), 1.0),
    threshold={"image": 0.5, "image_text": 0.4, "text": 0.3},
    data_digest="d", training={}, metrics={}, files={},
)  # fmt: skip
ANSWER = bundle.Answer([bundle.Ranked("包", 1.0000001)], 1.0000001, False, [bundle.Word("red", 0.25, True)], 0.75)
JPEG = {"content-type": "image/jpeg"}


class Recorded:
    """Stands for the model: keeps what it was asked, answers or raises what it was told to."""

    info, version = INFO, "3"
    now = property(lambda self: self)

    def __init__(self, outcome: Exception | bundle.Answer = ANSWER):
        self.outcome, self.asked = outcome, []
        self.gate = asyncio.Event()
        self.gate.set()

    async def recognise(self, query: bundle.Query, k: int) -> bundle.Answer:
        self.asked.append((query, k))
        await self.gate.wait()
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


def talk(
    model: api.Models,
    conversation: Callable[[httpx.AsyncClient], Coroutine[Any, Any, Any]],
    limits: config.Serve = LIMITS,
) -> Any:
    """Run a conversation with the application over ASGI."""

    async def run() -> Any:
        transport = httpx.ASGITransport(api.create(model, limits, PAGE), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await conversation(client)

    return asyncio.run(run())


def post(model: Recorded, **request: Any) -> httpx.Response:
    return talk(model, lambda client: client.post("/v1/recognize", **request))


def refusal(response: httpx.Response) -> tuple[int, str]:
    """Status and code of an error; its body has nothing but the request's id, a code and a message."""
    schema.Error.model_validate(response.json())
    return response.status_code, response.json()["error"]["code"]


def test_a_form_and_a_plain_body_ask_the_same():
    form, plain = Recorded(), Recorded()
    first = post(form, files={"image": ("x.jpg", b"photo")}, data={"title": "红 bag", "tags": ["a", "b,c"], "k": "2"})
    query = {"title": "红 bag", "tags": ["a,b", "c"], "k": "2"}
    second = post(plain, content=b"photo", headers=JPEG, params=query)
    assert form.asked == plain.asked == [(bundle.Query(b"photo", "红 bag", ("a", "b", "c")), 2)]
    assert first.status_code == second.status_code == 200


def test_an_answer_names_its_request_its_model_and_its_words():
    response = post(Recorded(), data={"title": "red"}, headers={"x-request-id": "my-id"})
    said = schema.Recognition.model_validate(response.json())
    assert said.request_id == "my-id"
    assert said.model == schema.Model(name="m", version="3", digest="d" * 64)
    assert said.ranked == [schema.Class(label="包", probability=1.0)]  # float32's 1.0000001 is 1
    assert (said.score, said.unknown) == (1.0, False)
    assert (said.words[0].token, said.words[0].weight, said.no_word) == ("red", 0.25, 0.75)


def test_an_unknown_product_is_said_to_be_one_and_still_ranked():
    unsure = replace(ANSWER, ranked=[bundle.Ranked("包", 0.2)], score=0.2, unknown=True)
    said = post(Recorded(unsure), data={"title": "red"}).json()
    assert (said["score"], said["unknown"], said["ranked"]) == (0.2, True, [{"label": "包", "probability": 0.2}])
    about = talk(Recorded(), lambda client: client.get("/v1/model")).json()
    assert about["threshold"] == {"image": 0.5, "image_text": 0.4, "text": 0.3}


def test_a_model_that_looks_classes_up_says_so_and_ranks_no_more_than_its_candidates():
    model, about = Recorded(), {"kind": "lists", "candidates": 2, "recall": 0.992, "ms": 1.4}
    model.info = INFO.model_copy(update={"index": about})
    told = talk(model, lambda client: client.get("/v1/model")).json()
    assert (told["index"], told["limits"]["max_k"]) == (about, 2)
    assert refusal(post(model, data={"title": "red", "k": "3"})) == (422, "bad_field")
    assert talk(Recorded(), lambda client: client.get("/v1/model")).json()["index"] is None


def test_an_empty_file_field_of_a_browser_is_no_photo():
    model = Recorded()
    boundary = "--b\r\nContent-Disposition: form-data; name="
    form = f'{boundary}"image"; filename=""\r\n\r\n\r\n{boundary}"title"\r\n\r\nred\r\n--b--\r\n'
    response = post(model, content=form.encode(), headers={"content-type": "multipart/form-data; boundary=b"})
    assert response.status_code == 200
    assert model.asked[0][0].image is None


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ({"data": {"k": "2"}}, "image"),
        ({"data": {"title": "  ", "tags": " , ,"}}, "image"),
        ({"data": {"title": "x", "k": "0"}}, "k"),
        ({"data": {"title": "x", "k": "8"}}, "k"),
        ({"data": {"title": "x", "k": "many"}}, "k"),
        ({"data": {"title": "x", "k": ["1", "2"]}}, "k"),
        ({"data": {"title": "x" * 2001}}, "title"),
        ({"data": {"title": "x", "tags": "t" * 201}}, "tags"),
        ({"data": {"title": "x", "tags": ["t"] * 65}}, "tags"),
        ({"data": {"title": "x", "titel": "y"}}, "titel"),
        ({"data": {"image": "no file"}, "files": {"x": b""}}, "image"),
        ({"files": {"title": ("t.txt", b"x")}}, "title"),
        ({"content": b"photo", "headers": JPEG, "params": {"k": "9"}}, "k"),
    ],
)
def test_a_bad_field_is_named(request_: dict[str, Any], field: str):
    model = Recorded()
    response = post(model, **request_)
    assert refusal(response) == (422, "bad_field")
    assert response.json()["error"]["message"].startswith(f"{field}: ")
    assert not model.asked


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (BadImage("image_unreadable", "cut off"), (400, "image_unreadable")),
        (BadImage("no_image", "empty"), (400, "image_unreadable")),
        (BadImage("image_too_large", "9 x 9"), (413, "image_too_large")),
        (BadImage("image_type", "no photo"), (415, "image_type")),
        (UserError("nothing to go by"), (422, "bad_field")),
    ],
)
def test_what_the_model_cannot_answer_is_the_clients_error(error: Exception, expected: tuple[int, str]):
    response = post(Recorded(error), content=b"photo", headers=JPEG)
    assert refusal(response) == expected
    assert str(error) in response.json()["error"]["message"]


@pytest.mark.parametrize("given", ["my-id", None])
def test_a_bug_of_ours_tells_nothing_but_where_the_log_has_it(given: str | None, caplog: pytest.LogCaptureFixture):
    bug = Recorded(RuntimeError("/secret/path"))
    response = post(bug, content=b"photo", headers={**JPEG, **({"x-request-id": given} if given else {})})
    assert refusal(response) == (500, "internal")
    assert "secret" not in response.text
    assert "Traceback" not in response.text
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert response.headers["cache-control"] == "no-store"
    request_id = response.json()["request_id"]
    assert request_id == (given or response.headers["x-request-id"])
    (line,) = [line for line in caplog.text.splitlines() if request_id in line]
    assert "POST '/v1/recognize'" in line
    assert "RuntimeError: /secret/path" in caplog.text


def test_a_request_has_one_id_whatever_becomes_of_it():
    async def conversation(client: httpx.AsyncClient) -> None:
        for request in (client.get("/"), client.get("/nothing"), client.post("/v1/recognize", data={"title": "x"})):
            response = await request
            assert len(response.headers["x-request-id"]) == 36
            if response.headers["content-type"] == "application/json":
                assert response.json()["request_id"] == response.headers["x-request-id"]
        told = await client.post("/v1/recognize", data={"k": "0"}, headers={"x-request-id": "my-id"})
        assert told.json()["request_id"] == "my-id"

    talk(Recorded(), conversation)


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "video/mp4", ""])
def test_a_body_of_another_kind_is_refused(kind: str):
    assert refusal(post(Recorded(), content=b"{}", headers={"content-type": kind})) == (415, "body_type")


@pytest.mark.parametrize(
    "broken", [b"", b"--b\r\n", b"no form at all", b"--b\r\nContent-Disposition: x\r\n\r\n1\r\n--b--"]
)
def test_a_broken_form_is_refused(broken: bytes):
    response = post(Recorded(), content=broken, headers={"content-type": "multipart/form-data; boundary=b"})
    assert refusal(response)[0] in (400, 422)


def test_a_body_is_read_no_further_than_allowed():
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1000
            yield b"x" * 1000

    assert refusal(post(Recorded(), content=endless(), headers=JPEG)) == (413, "body_too_large")
    assert sent <= LIMITS.max_bytes + 2000
    form = {"content-type": "multipart/form-data; boundary=b"}
    assert refusal(post(Recorded(), content=endless(), headers=form))[0] in (400, 413)
    assert refusal(post(Recorded(), content=b"x" * 20_001, headers=JPEG)) == (413, "body_too_large")
    assert post(Recorded(), content=b"x" * 20_000, headers=JPEG).status_code == 200


def test_a_body_that_does_not_arrive_is_given_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(body, "SECONDS", 0.05)

    async def stalled() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.sleep(10)

    assert refusal(post(Recorded(), content=stalled(), headers=JPEG)) == (408, "timeout")


def test_a_model_that_went_while_the_body_came_is_not_asked():
    first, second = Recorded(), Recorded()
    second.version = "4"
    models = SimpleNamespace(now=first)

    async def slowly() -> AsyncIterator[bytes]:
        yield b"pho"
        models.now = second
        yield b"to"

    reply = talk(models, lambda client: client.post("/v1/recognize", content=slowly(), headers=JPEG))
    assert (reply.json()["model"]["version"], first.asked, len(second.asked)) == ("4", [], 1)


def test_who_is_not_answered_in_time_is_told_to_come_again():
    model = Recorded()

    async def conversation(client: httpx.AsyncClient) -> None:
        model.gate.clear()
        late = await client.post("/v1/recognize", data={"title": "x"})
        assert refusal(late) == (503, "slow")
        assert late.headers["retry-after"] == "1"
        assert (await client.get("/readyz")).json() == {"status": "ready"}

    talk(model, conversation, LIMITS.model_copy(update={"max_seconds": 0.02}))


def test_who_finds_no_place_is_told_to_come_again_and_places_are_given_back():
    model = Recorded()

    async def conversation(client: httpx.AsyncClient) -> None:
        model.gate.clear()
        waiting = [asyncio.create_task(client.post("/v1/recognize", data={"title": "x"})) for _ in range(2)]
        while len(model.asked) < 2:
            await asyncio.sleep(0)
        full = await client.post("/v1/recognize", data={"title": "x"})
        assert refusal(full) == (503, "full")
        assert full.headers["retry-after"] == "1"
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.get("/healthz")).status_code == 200
        model.gate.set()
        assert [response.status_code for response in await asyncio.gather(*waiting)] == [200, 200]
        for outcome in (RuntimeError(), BadImage("image_type", ""), ANSWER):  # whatever the outcome
            model.outcome = outcome
            for _ in range(3):
                await client.post("/v1/recognize", data={"title": "x"})
        assert (await client.get("/readyz")).json() == {"status": "ready"}

    talk(model, conversation)


@pytest.mark.parametrize(
    ("verb", "path", "expected"),
    [
        ("GET", "/nothing", (404, "not_found")),
        ("GET", "/page/nothing.js", (404, "not_found")),
        ("GET", "/page/../recognizer.py", (404, "not_found")),
        ("GET", "/page/%2e%2e/recognizer.py", (404, "not_found")),
        ("GET", "/v1/recognize", (405, "method_not_allowed")),
        ("DELETE", "/v1/model", (405, "method_not_allowed")),
    ],
)
def test_wrong_addresses_are_answered_in_json(verb: str, path: str, expected: tuple[int, str]):
    assert refusal(talk(Recorded(), lambda client: client.request(verb, path))) == expected


def test_every_response_carries_the_headers_that_keep_a_page_safe():
    for path in ("/", "/docs", "/page/app.js", "/v1/model", "/nothing"):
        headers = talk(Recorded(), lambda client, path=path: client.get(path)).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


def test_the_page_asks_nobody_else():
    for file in PAGE.iterdir():
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text, file.name
        assert "https://" not in text, file.name
        assert "innerHTML" not in text, file.name
        assert 'style="' not in text, file.name  # the content policy would ignore it


def test_the_description_tells_every_error_and_its_example_is_an_answer():
    described = talk(Recorded(), lambda client: client.get("/openapi.json")).json()
    operation = described["paths"]["/v1/recognize"]["post"]
    assert set(operation["responses"]) == {"200", *map(str, errors.ERRORS)}
    schema.Recognition.model_validate(operation["responses"]["200"]["content"]["application/json"]["example"])
    form = operation["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    assert set(form) == {"image", "title", "tags", "k"}
    assert form["k"]["maximum"] == LIMITS.max_k


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=20), max_size=6))
def test_tags_are_the_same_repeated_or_in_one_list(tags: list[str]):
    together = schema.Fields.model_validate({"tags": [",".join(tags)]}).tags
    assert together == schema.Fields.model_validate({"tags": tags}).tags
    assert all(tag == tag.strip() != "" and "," not in tag for tag in together)
