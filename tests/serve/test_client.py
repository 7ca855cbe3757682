"""The Python client, against the endpoint itself and against a server that is full, broken or away."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from sicot import client as module
from sicot.bundle import Bundle, Query
from sicot.client import AsyncClient, Client, Refused
from sicot.endpoint import schema
from tests.builders import photo

BAG = photo("red-bag", 1)


class Script(ThreadingHTTPServer):
    """Answers with these statuses, one after the other, the last again and again; notes who asked."""

    def __init__(self, *statuses: int, wait: str = ""):
        self.statuses, self.wait, self.asked = list(statuses), wait, []
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Script

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        script = self.server
        script.asked.append((time.monotonic(), self.headers.get("authorization")))
        status = script.statuses.pop(0) if len(script.statuses) > 1 else script.statuses[0]
        if not status:  # hang up
            return self.connection.close()
        error = schema.Error(request_id="r", error=schema.Detail(code="full", message="too many"))
        body = (schema.Recognition.model_validate(ANSWER) if status == 200 else error).model_dump_json().encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        if self.server.wait:
            self.send_header("retry-after", self.server.wait)
        self.end_headers()
        self.wfile.write(body)
        return None

    def log_message(self, *_: object) -> None:
        """Nothing."""


ANSWER = {**schema.EXAMPLE, "model": {"name": "m", "version": "3", "digest": "d"}}


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.random, "uniform", lambda *_: 0.05)


def test_its_answers_are_the_endpoints(endpoint: str, tiny_bundle: str, tmp_path: Path) -> None:
    (tmp_path / "bag.jpg").write_bytes(BAG)
    bundle = Bundle.load(tiny_bundle)
    long = "红色 包 " * 300
    with Client(endpoint) as shop:
        assert shop.model().digest == bundle.info.digest
        for image, title, tags in (
            (BAG, "red bag", ["sale", "新"]),
            (tmp_path / "bag.jpg", "", []),
            (str(tmp_path / "bag.jpg"), long, []),
            (None, "blue mug", []),
        ):
            said = shop.recognize(image, title, tags, k=3)
            (meant,) = bundle.predict([Query(BAG if image else None, title, tuple(tags))], 3)
            assert [each.label for each in said.ranked] == [each.label for each in meant.ranked]
            assert said.score == pytest.approx(meant.score, abs=1e-4)
            assert [word.token for word in said.words] == [word.token for word in meant.words]
        with pytest.raises(Refused) as refused:
            shop.recognize(b"no photo at all, but long enough")
        assert (refused.value.status, refused.value.code) == (415, "image_type")
        assert refused.value.request_id
        with pytest.raises(ValueError, match="give a photo"):
            shop.recognize()


def test_many_can_be_asked_at_once(endpoint: str) -> None:
    async def conversation() -> list[schema.Recognition]:
        async with AsyncClient(endpoint) as shop:
            assert (await shop.model()).classes == 6
            return await asyncio.gather(*(shop.recognize(BAG, k=1 + n % 3) for n in range(20)))

    assert [len(answer.ranked) for answer in asyncio.run(conversation())] == [1 + n % 3 for n in range(20)]


def ask(kind: type[Client] | type[AsyncClient], url: str, **settings: object) -> schema.Recognition:
    if kind is Client:
        with Client(url, **settings) as shop:  # type: ignore[arg-type]
            return shop.recognize(BAG)

    async def conversation() -> schema.Recognition:
        async with AsyncClient(url, **settings) as shop:  # type: ignore[arg-type]
            return await shop.recognize(BAG)

    return asyncio.run(conversation())


@pytest.fixture(params=[Client, AsyncClient])
def kind(request: pytest.FixtureRequest) -> Iterator[type[Client] | type[AsyncClient]]:
    return request.param


@pytest.mark.parametrize("statuses", [(503, 429, 200), (0, 502, 0, 200), (504, 200)])
def test_who_is_full_or_away_is_asked_again(kind: type[Client], statuses: tuple[int, ...]) -> None:
    script = Script(*statuses)
    assert ask(kind, script.url, key="secret").model.version == "3"
    assert [authorization for _, authorization in script.asked] == ["Bearer secret"] * len(statuses)


def test_the_endpoints_wish_to_wait_is_heeded(kind: type[Client]) -> None:
    script = Script(503, 200, wait="1")
    ask(kind, script.url)
    assert script.asked[1][0] - script.asked[0][0] >= 0.95


def test_it_gives_up_after_so_many_attempts(kind: type[Client]) -> None:
    script = Script(503)
    with pytest.raises(Refused) as refused:
        ask(kind, script.url, retries=2)
    assert (refused.value.status, refused.value.code, len(script.asked)) == (503, "full", 3)
    gone = Script(0)
    with pytest.raises(httpx.TransportError):
        ask(kind, gone.url, retries=1)
    assert len(gone.asked) == 2


@pytest.mark.parametrize("status", [400, 401, 404, 413, 415, 422, 500])
def test_what_will_not_change_is_not_asked_again(kind: type[Client], status: int) -> None:
    script = Script(status)
    with pytest.raises(Refused, match="too many"):
        ask(kind, script.url)
    assert len(script.asked) == 1


def test_it_needs_neither_pytorch_nor_ray() -> None:
    script = "import sicot.client, sys; print(sorted({'torch', 'ray', 'mlflow', 'openvino'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
