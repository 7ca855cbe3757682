"""The endpoint by gRPC: the same answers and refusals as by HTTP, the same keys."""

from __future__ import annotations

import asyncio
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from sicot import bundle, config, ports
from sicot.endpoint import api, keys, rpc
from sicot.errors import UserError
from sicot.prepare.images import BadImage
from sicot.rpc.recognizer_pb2 import Query, Recognition
from sicot.rpc.recognizer_pb2_grpc import RecognizerStub
from tests.builders import photo
from tests.serve.conftest import SETTINGS
from tests.serve.test_api import ANSWER, LIMITS, PAGE, Recorded

ROOT = Path(__file__).parents[2]


class Call:
    """What Ray Serve tells of a call, and takes of its end."""

    def __init__(self, peer: str = "ipv4:127.0.0.1:5000", **metadata: str):
        self.given, self.caller, self.trailing = metadata, peer, [("request_id", "of-serve")]
        self.code = self.details = None

    def invocation_metadata(self) -> list[tuple[str, str]]:
        return [(name.replace("_", "-"), value) for name, value in self.given.items()]

    def peer(self) -> str:
        return self.caller

    def trailing_metadata(self) -> list[tuple[str, str]]:
        return self.trailing

    def set_trailing_metadata(self, items: list[tuple[str, str]]) -> None:
        self.trailing = items

    def set_code(self, code: grpc.StatusCode) -> None:
        self.code = code

    def set_details(self, details: str) -> None:
        self.details = details


def ask(model: Recorded, call: Call, limits: config.Serve = LIMITS, **query: Any) -> Recognition:
    app = api.create(model, limits, PAGE)
    return asyncio.run(rpc.recognize(app, Query(**query), call))  # type: ignore[arg-type]


def refused(call: Call) -> tuple[Any, str]:
    return call.code, dict(call.trailing)["x-error-code"]


def test_a_call_asks_what_a_request_asks() -> None:
    model, call = Recorded(), Call(x_request_id="mine", x_visitor_id="17")
    said = ask(model, call, image=b"photo", title="红 bag", tags=["a", "b,c"], k=2)
    assert model.asked == [(bundle.Query(b"photo", "红 bag", ("a", "b", "c")), 2)]
    assert (said.request_id, said.arm, said.model.version) == ("mine", "champion", "3")
    assert [(each.label, each.probability) for each in said.ranked] == [("包", 1.0)]
    assert [(word.token, word.weight, word.known) for word in said.words] == [("red", 0.25, True)]
    assert (said.unknown, said.no_word, call.code) == (False, ANSWER.no_word, None)


def test_words_alone_may_be_asked_about_with_the_usual_k() -> None:
    model = Recorded()
    ask(model, Call(), title="teapot & more=less", tags=["茶"])
    assert model.asked == [(bundle.Query(None, "teapot & more=less", ("茶",)), 5)]


@pytest.mark.parametrize(
    ("query", "outcome", "status", "code"),
    [
        ({}, ANSWER, "INVALID_ARGUMENT", "bad_field"),
        ({"title": "x", "k": 8}, ANSWER, "INVALID_ARGUMENT", "bad_field"),
        ({"title": "x", "k": 0}, ANSWER, "INVALID_ARGUMENT", "bad_field"),
        ({"title": "x", "tags": ["t"] * 65}, ANSWER, "INVALID_ARGUMENT", "bad_field"),
        ({"image": b"x" * 20_001}, ANSWER, "INVALID_ARGUMENT", "body_too_large"),
        ({"image": b"x"}, BadImage("decode", "damaged"), "INVALID_ARGUMENT", "image_unreadable"),
        ({"image": b"x"}, UserError("no such words"), "INVALID_ARGUMENT", "bad_field"),
        ({"image": b"x"}, ZeroDivisionError("a secret"), "INTERNAL", "internal"),
    ],
)
def test_what_is_refused_says_why(
    query: dict[str, Any], outcome: Exception | bundle.Answer, status: str, code: str
) -> None:
    call = Call()
    assert ask(Recorded(outcome), call, **query) == Recognition()
    assert refused(call) == (grpc.StatusCode[status], code)
    assert call.details
    assert "secret" not in call.details
    assert dict(call.trailing).keys() == {"request_id", "x-request-id", "x-error-code"}


def test_a_full_endpoint_is_unavailable() -> None:
    async def two() -> Call:
        model, late = Recorded(), Call()
        model.gate.clear()
        app = api.create(model, LIMITS, PAGE)
        first = [asyncio.create_task(rpc.recognize(app, Query(title="x"), Call())) for _ in range(2)]  # type: ignore[arg-type]
        while len(model.asked) < 2:
            await asyncio.sleep(0.01)
        await rpc.recognize(app, Query(title="x"), late)  # type: ignore[arg-type]
        model.gate.set()
        await asyncio.gather(*first)
        return late

    assert refused(asyncio.run(two())) == (grpc.StatusCode.UNAVAILABLE, "full")


@pytest.mark.parametrize("peer", ["ipv4:10.0.0.7:4711", "ipv6:[::ffff:10.0.0.7]:4711", "ipv6:%5B2001:db8::1%5D:4711"])
def test_without_keys_other_machines_are_not_answered(peer: str) -> None:
    call = Call(peer)
    ask(Recorded(), call, title="x")
    assert refused(call) == (grpc.StatusCode.PERMISSION_DENIED, "no_keys")


@pytest.mark.parametrize("peer", ["ipv4:127.0.0.1:9", "ipv6:[::1]:9", "ipv6:%5B::1%5D:9", "ipv6:[::ffff:127.0.0.1]:9"])
def test_this_machine_is(peer: str) -> None:
    assert ask(Recorded(), Call(peer), title="x").ranked


def test_with_keys_each_call_needs_one(tmp_path: Path) -> None:
    key = keys.add("shop", str(tmp_path / "keys.txt"))
    limits = LIMITS.model_copy(update={"keys": str(tmp_path / "keys.txt")})
    without, elsewhere = Call(), Call("ipv4:10.0.0.7:4711", authorization=f"Bearer {key}")
    ask(Recorded(), without, limits, title="x")
    assert refused(without) == (grpc.StatusCode.UNAUTHENTICATED, "unauthorized")
    assert ask(Recorded(), elsewhere, limits, title="x").ranked


@pytest.fixture(scope="module")
def both(ray_cluster: None, tiny_bundle: str) -> Iterator[tuple[str, str]]:
    """Address by HTTP and by gRPC of one endpoint."""
    from serve_apps import recognizer
    from sicot.endpoint import server

    port = ports.free()[0]
    settings = SETTINGS.model_copy(update={"model": tiny_bundle, "grpc_port": port})
    yield recognizer.start(settings, "sqlite:///unused.db"), f"127.0.0.1:{port}"
    server.stop()


def test_the_running_endpoint_answers_both_ways_alike(both: tuple[str, str]) -> None:
    url, address = both
    given = photo("red-bag", 3)
    with grpc.insecure_channel(address) as channel:
        stub = RecognizerStub(channel)
        said = stub.Recognize(Query(image=given, title="red bag", k=3), timeout=60, wait_for_ready=True)
        form = {"title": "red bag", "k": "3"}
        same = httpx.post(f"{url}/v1/recognize", files={"image": given}, data=form).json()
        assert [(each.label, each.probability) for each in said.ranked] == [
            (each["label"], each["probability"]) for each in same["ranked"]
        ]
        assert [(each.token, each.weight) for each in said.words] == [
            (each["token"], each["weight"]) for each in same["words"]
        ]
        assert said.model.digest == same["model"]["digest"]
        with pytest.raises(grpc.RpcError) as bad:
            stub.Recognize(Query(image=b"no photo"), timeout=60)
        error: Any = bad.value
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert dict(error.trailing_metadata())["x-error-code"] == "image_type"
        with pytest.raises(grpc.RpcError) as large:
            stub.Recognize(Query(image=b"x" * (SETTINGS.max_bytes + 1)), timeout=60)
        assert dict(large.value.trailing_metadata())["x-error-code"] == "body_too_large"  # type: ignore[attr-defined]


def test_an_endpoint_that_runs_says_that_it_cannot_begin_to_speak_grpc(both: tuple[str, str], tiny_bundle: str) -> None:
    from sicot.endpoint import server

    with pytest.raises(UserError, match="grpc_options"):
        server.listen(SETTINGS.model_copy(update={"grpc_port": ports.free()[0]}))


@pytest.mark.skipif(importlib.util.find_spec("grpc_tools") is None, reason="grpcio-tools is not installed")
def test_the_generated_files_are_those_of_the_protocol(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", "sicot/rpc/recognizer.proto"]
    command += [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    subprocess.run(command, cwd=ROOT / "platform", check=True)
    for made in (tmp_path / "sicot/rpc").iterdir():
        assert made.read_text() == (ROOT / "platform/sicot/rpc" / made.name).read_text(), f"{made.name}: make proto"
