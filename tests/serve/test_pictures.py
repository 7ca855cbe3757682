"""The pictures of products: what is shown, what is not there, and how often it travels. No Ray here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import schemathesis
from fastapi.testclient import TestClient

from sicot import config, enrol
from sicot.bundle import Bundle, Query
from sicot.endpoint import api
from sicot.endpoint.served import Served
from sicot.prepare.images import BadImage
from tests.builders import photo
from tests.serve.test_api import LIMITS, PAGE, refusal


class Models:
    """One model for good."""

    def __init__(self, now: Served):
        self.now = now


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: str) -> Iterator[Served]:
    """The tiny bundle, with an enrolled product that has a photo and one that has none."""
    folder = tmp_path_factory.mktemp("served") / "bundle"
    given = {"绿色 / green-mug": [Query(photo("green-mug", 1, 200))], "told": [Query(title="red bag")]}
    enrol.save(enrol.enrol(Bundle.load(tiny_bundle), given), str(folder))
    model = Served(str(folder), config.Serve(threads=1), "sqlite:///unused.db")
    yield model
    model.batches.close()


@pytest.fixture
def client(served: Served) -> TestClient:
    app = api.create(Models(served), LIMITS, PAGE)
    return TestClient(app, base_url="http://localhost", client=("127.0.0.1", 5000))


@pytest.mark.parametrize("label", ["red-bag", "绿色 / green-mug"])
def test_a_trained_and_an_enrolled_product_have_a_picture(client: TestClient, served: Served, label: str) -> None:
    reply = client.get("/v1/classes/photo", params={"label": label})
    assert (reply.status_code, reply.headers["content-type"]) == (200, "image/jpeg")
    assert reply.content == served.bundle.thumbnail(label)
    assert reply.headers["cache-control"].startswith("private, max-age=")


@pytest.mark.parametrize("label", ["told", "nothing", "\x00", "x" * 5000])
def test_no_picture_is_said_in_json(client: TestClient, label: str) -> None:
    reply = client.get("/v1/classes/photo", params={"label": label})
    assert refusal(reply) == (404, "no_photo")
    assert reply.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("query", ["", "label=", "label=a&label=b"])
def test_one_label_must_be_given(client: TestClient, query: str) -> None:
    reply = client.get(f"/v1/classes/photo?{query}")
    assert refusal(reply) == (422, "bad_field")
    assert reply.json()["error"]["message"].startswith("label: ")


def test_a_picture_that_one_has_does_not_travel_again(client: TestClient) -> None:
    first = client.get("/v1/classes/photo?label=red-bag")
    for known in (first.headers["etag"], f'"other", W/{first.headers["etag"]}', "*"):
        again = client.get("/v1/classes/photo?label=red-bag", headers={"if-none-match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
    other = client.get("/v1/classes/photo?label=blue-mug", headers={"if-none-match": first.headers["etag"]})
    assert other.status_code == 200


def test_a_kept_photo_is_decoded_once_and_one_that_is_too_large_is_not_shown(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def thumbnail(label: str) -> bytes:
        asked.append(label)
        if label == "large":
            raise BadImage("image_too_large", "9 x 9")
        return b"jpeg"

    monkeypatch.setattr(served.bundle, "thumbnail", thumbnail)
    monkeypatch.setattr(served, "_photos", {})
    assert [served.thumbnail("a"), served.thumbnail("a"), served.thumbnail("large")] == [b"jpeg", b"jpeg", None]
    assert asked == ["a", "large"]


def test_every_reply_fits_the_description(client: TestClient) -> None:
    described = client.get("/openapi.json").json()["paths"]["/v1/classes/photo"]["get"]
    assert set(described["responses"]) == {"200", "304", "401", "403", "404", "422", "500"}
    assert list(described["responses"]["200"]["content"]) == ["image/jpeg"]
    operation = schemathesis.openapi.from_dict(client.get("/openapi.json").json())["/v1/classes/photo"]["get"]
    for label in ("red-bag", "nothing", ""):
        reply = client.get("/v1/classes/photo", params={"label": label})
        operation.validate_response(schemathesis.Response.from_httpx(reply, verify=True))
