"""Feedback over HTTP: kept before it is acknowledged, refused when it cannot be, and never at the cost of answers."""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
import sqlalchemy as sa
import uvicorn
from hypothesis import HealthCheck, given
from hypothesis import settings as trying
from PIL import Image
from sqlalchemy.exc import OperationalError

from sicot import config, ports
from sicot.client import AsyncClient, Client, Refused
from sicot.endpoint import api, feedback, journal, schema
from sicot.endpoint.journal import Journal
from sicot.enrolled import SIDE
from sicot.feedback.store import ANSWER, FEEDBACK, Store
from tests.builders import photo
from tests.feedback.test_store import answered
from tests.serve.test_api import LIMITS, PAGE, Recorded, refusal, talk
from tests.serve.test_arms import Two, settings
from tests.serve.test_described import CHECKS

BAG = photo("red-bag", 1)
Say = Callable[..., httpx.Response]


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "PAUSE", 0.01)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/feedback.db"


@pytest.fixture
def limits(url: str) -> config.Serve:
    return LIMITS.model_copy(update={"feedback": url})


@pytest.fixture
def say(limits: config.Serve) -> Say:
    return lambda **request: talk(Recorded(), lambda client: client.post("/v1/feedback", **request), limits)


def rows(url: str, table: sa.Table = FEEDBACK) -> list[Any]:
    return list(Store.open(url).rows(sa.select(table).order_by(*table.primary_key)))


def eventually(true: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_is_acknowledged_is_in_the_database(say: Say, url: str) -> None:
    reply = say(data={"request_id": "r", "outcome": "accepted"})
    assert (reply.status_code, reply.json()) == (201, {"request_id": "r", "outcome": "accepted"})
    (row,) = rows(url)
    assert (row.request_id, row.outcome, row.label, row.image) == ("r", "accepted", None, None)
    assert abs(row.time - time.time()) < 60


def test_a_page_from_elsewhere_says_nothing(say: Say, url: str) -> None:
    said = {"request_id": "r", "outcome": "accepted"}
    reply = say(data=said, headers={"Origin": "https://elsewhere.example", "Sec-Fetch-Site": "cross-site"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (403, "no_right")
    assert not rows(url)


def test_a_correction_keeps_photo_and_words_small_and_without_where_it_was_taken(say: Say, url: str) -> None:
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x010F] = "my camera"
    Image.open(io.BytesIO(BAG)).resize((700, 600)).save(file, "JPEG", exif=exif, quality=30)
    said = {"request_id": "r", "outcome": "corrected", "label": " bag ", "title": "红 bag", "tags": "a,b"}
    assert say(data=said, files={"image": ("x.jpg", file.getvalue())}).status_code == 201
    (row,) = rows(url)
    assert (row.label, row.title, row.tags) == ("bag", "红 bag", '["a", "b"]')
    kept = Image.open(io.BytesIO(row.image))
    assert (kept.format, kept.size, dict(kept.getexif())) == ("JPEG", (SIDE, SIDE), {})


def test_a_photo_is_kept_with_a_correction_alone(say: Say, url: str) -> None:
    assert say(data={"request_id": "r", "outcome": "converted"}, files={"image": ("x.jpg", BAG)}).status_code == 201
    assert rows(url)[0].image is None


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ({"data": {"outcome": "accepted"}}, "request_id"),
        ({"data": {"request_id": "", "outcome": "accepted"}}, "request_id"),
        ({"data": {"request_id": "r" * 201, "outcome": "accepted"}}, "request_id"),
        ({"data": {"request_id": "r"}}, "outcome"),
        ({"data": {"request_id": "r", "outcome": "liked"}}, "outcome"),
        ({"data": {"request_id": "r", "outcome": "corrected"}}, "label"),
        ({"data": {"request_id": "r", "outcome": "corrected", "label": "  "}}, "label"),
        ({"data": {"request_id": "r", "outcome": "accepted", "label": "x" * 1001}}, "label"),
        ({"data": {"request_id": "r", "outcome": "accepted", "title": "x" * 2001}}, "title"),
        ({"data": {"request_id": "r", "outcome": "accepted", "stars": "5"}}, "stars"),
        ({"data": {"request_id": ["r", "s"], "outcome": "accepted"}}, "request_id"),
    ],
)
def test_a_bad_field_is_named_and_nothing_is_kept(say: Say, url: str, request_: dict[str, Any], field: str) -> None:
    reply = say(**request_)
    assert refusal(reply) == (422, "bad_field")
    assert reply.json()["error"]["message"].startswith(f"{field}: ")
    assert rows(url) == []


def test_a_photo_that_is_none_is_refused_and_so_is_a_body_that_is_no_form(say: Say, url: str) -> None:
    said = {"request_id": "r", "outcome": "corrected", "label": "bag"}
    assert refusal(say(data=said, files={"image": ("x.jpg", b"<svg/>" * 9)})) == (415, "image_type")
    assert refusal(say(data=said, files={"image": ("x.jpg", BAG[:200])})) == (400, "image_unreadable")
    assert refusal(say(data=said, files={"image": ("x.jpg", BAG * 100)})) == (413, "body_too_large")
    assert refusal(say(json=said)) == (415, "body_type")
    assert rows(url) == []


def test_without_a_database_there_is_no_such_route() -> None:
    reply = talk(Recorded(), lambda client: client.post("/v1/feedback", data={"request_id": "r"}))
    assert refusal(reply) == (404, "not_found")
    assert talk(Recorded(), lambda client: client.get("/v1/model")).json()["feedback"] is False


def test_answers_are_written_down_beside_the_answering(url: str) -> None:
    limits = settings(0.5, feedback=url)

    async def conversation(client: httpx.AsyncClient) -> dict[str, schema.Recognition]:
        given = {}
        for n in range(20):
            reply = await client.post("/v1/recognize", data={"title": "x"}, headers={"x-visitor-id": f"ann-{n % 10}"})
            said = schema.Recognition.model_validate(reply.json())
            given[said.request_id] = said
        await client.post("/v1/recognize", data={"k": "0"})  # no answer
        long = await client.post("/v1/recognize", data={"title": "x"}, headers={"x-request-id": "r" * 201})
        assert long.status_code == 200
        assert (await client.get("/v1/model")).json()["feedback"] is True
        return given

    given = talk(Two(), conversation, limits)
    eventually(lambda: len(rows(url, ANSWER)) == 20)
    for row in rows(url, ANSWER):
        said = given[row.request_id]
        assert (row.arm, row.version, row.label) == (said.arm, said.model.version, said.ranked[0].label)
        assert (row.score, row.unknown) == (pytest.approx(1.0), False)
    assert len({row.visitor for row in rows(url, ANSWER)}) == 10
    assert not any("ann" in (row.visitor or "") for row in rows(url, ANSWER))


class Away:
    """A database that answers when it is told to."""

    name = "sqlite:///away"

    def __init__(self) -> None:
        self.here, self.recorded, self.tries = False, [], 0

    def record(self, answers: list[Any]) -> None:
        self.tries += 1
        if not self.here:
            raise OperationalError("insert", {}, Exception("gone"))
        self.recorded += answers

    def close(self) -> None:
        """Nothing."""


def test_answers_wait_for_a_database_that_is_away_and_no_longer_than_there_is_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(journal, "LONGEST", 0.02)
    logged: list[str] = []
    monkeypatch.setattr(journal.log, "error", lambda text, *values: logged.append(text % values))
    away = Away()
    notes = Journal(away, most=5)  # type: ignore[arg-type]
    notes.put(answered("first"))
    eventually(lambda: away.tries > 1)  # it is being written, again and again
    began = time.monotonic()
    for n in range(8):
        notes.put(answered(str(n)))
    assert time.monotonic() - began < 1  # whoever is answered does not wait
    assert notes.dropped == 3
    away.here = True
    eventually(lambda: len(away.recorded) == 6)
    assert [each.request_id for each in away.recorded] == ["first", "0", "1", "2", "3", "4"]
    eventually(lambda: len(logged) == 2)
    waiting, dropped = logged  # each said once, however long it lasts
    assert waiting == "1 answers wait for sqlite:///away: gone"
    assert dropped == "3 answers were not written down: sqlite:///away is away or slow"
    notes.close()


def test_an_endpoint_deletes_what_is_older_than_it_should_keep(url: str) -> None:
    kept, day = Store.open(url), 24 * 3600.0
    now = time.time()
    kept.record([answered("old", time=now - 8 * day), answered("young", time=now - 6 * day)])
    notes = Journal(kept, days=7)
    deadline = time.monotonic() + 20
    while len(list(kept.rows(sa.select(ANSWER)))) > 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [row.request_id for row in kept.rows(sa.select(ANSWER))] == ["young"]
    notes.close()


def test_an_endpoint_that_ends_has_written_down_what_it_answered(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "PAUSE", 60)
    notes = Journal(Store(url))
    for n in range(1200):
        notes.put(answered(str(n)))
    notes.close()
    assert len(rows(url, ANSWER)) == 1200


def test_while_the_database_is_away_feedback_is_refused_and_answers_are_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "LONGEST", 0.05)
    place = tmp_path / "gone"
    limits = LIMITS.model_copy(update={"feedback": f"sqlite:///{place}/feedback.db"})

    async def conversation(client: httpx.AsyncClient) -> None:
        said = {"request_id": "r1", "outcome": "accepted"}
        refused = await client.post("/v1/feedback", data=said)
        assert refusal(refused) == (503, "away")
        assert refused.headers["retry-after"] == str(feedback.RETRY_AFTER)
        assert str(place) not in refused.text
        answer = await client.post("/v1/recognize", data={"title": "x"}, headers={"x-request-id": "r1"})
        assert answer.status_code == 200
        place.mkdir()
        assert (await client.post("/v1/feedback", data=said)).status_code == 201

    talk(Recorded(), conversation, limits)
    eventually(lambda: [row.request_id for row in rows(str(limits.feedback), ANSWER)] == ["r1"])
    assert [row.request_id for row in rows(str(limits.feedback))] == ["r1"]


def test_a_database_that_hangs_holds_no_more_feedback_than_there_are_places(
    limits: config.Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()
    monkeypatch.setattr(Store, "keep", lambda *_: over.wait(20))
    monkeypatch.setattr(feedback, "PLACES", 2)

    async def conversation(client: httpx.AsyncClient) -> None:
        said = {"request_id": "r", "outcome": "accepted"}
        try:
            waiting = [asyncio.create_task(client.post("/v1/feedback", data=said)) for _ in range(2)]
            await asyncio.sleep(0.1)
            assert refusal(await client.post("/v1/feedback", data=said)) == (503, "full")
            assert (await client.post("/v1/recognize", data={"title": "x"})).status_code == 200
            assert [refusal(reply) for reply in await asyncio.gather(*waiting)] == [(503, "away")] * 2
        finally:
            over.set()

    talk(Recorded(), conversation, limits.model_copy(update={"max_seconds": 0.5}))


@pytest.fixture
def served(limits: config.Serve) -> Iterator[str]:
    """The application on a port, without Ray."""
    (port,) = ports.free()
    app = api.create(Recorded(), limits, PAGE)
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", lifespan="on"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    eventually(lambda: server.started)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(10)


def test_every_reply_fits_the_description(served: str, url: str) -> None:
    operation = schemathesis.openapi.from_url(f"{served}/openapi.json")["/v1/feedback"]["POST"]
    met: set[int] = set()

    @trying(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(operation.as_strategy())
    def replies_fit(case: schemathesis.Case) -> None:
        met.add(case.call_and_validate(checks=list(CHECKS)).status_code)

    replies_fit()
    assert met >= {201, 422}
    assert rows(url)


def test_the_client_says_what_became_of_an_answer(served: str, url: str, tmp_path: Path) -> None:
    (tmp_path / "bag.jpg").write_bytes(BAG)
    with Client(served) as shop:
        answer = shop.recognize(title="x", visitor="ann")
        said = shop.feedback(answer.request_id, "corrected", "bag", tmp_path / "bag.jpg", "红 bag", ["a", "b"])
        assert (said.request_id, said.outcome) == (answer.request_id, "corrected")
        with pytest.raises(Refused, match="a correction names the right product"):
            shop.feedback(answer.request_id, "corrected")

    async def conversation() -> schema.Kept:
        async with AsyncClient(served) as shop:
            return await shop.feedback(answer.request_id, "converted")

    assert asyncio.run(conversation()).outcome == "converted"
    converted, corrected = rows(url)
    assert (converted.outcome, converted.label) == ("converted", None)
    assert (corrected.label, corrected.title, corrected.tags) == ("bag", "红 bag", '["a", "b"]')
    assert corrected.image
    eventually(lambda: [row.visitor is not None for row in rows(url, ANSWER)] == [True])
