"""Products enrolled, found and withdrawn over HTTP, by replicas that share a teacher. No Ray here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error

from sicot import config, registry, track
from sicot.bundle import Bundle, Query
from sicot.endpoint import api, classes, keys, schema
from sicot.endpoint.replica import Replica
from sicot.endpoint.teacher import Teacher
from sicot.errors import UserError
from tests.builders import LABELS, bundle_folder, photo
from tests.serve.conftest import SETTINGS
from tests.serve.test_api import LIMITS, PAGE, Recorded, refusal, talk
from tests.serve.test_described import CHECKS

MUG = [("image", ("mug.jpg", photo("green-mug", n), "image/jpeg")) for n in range(3)]
ODD = "茶壶/红 色?a=b&c#../%2F \u202e🫖"


class Direct:
    """Stands for Ray Serve's handle: calls the teacher on a thread."""

    def __init__(self, teacher: Teacher):
        self.teacher = teacher

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=lambda *given: asyncio.to_thread(getattr(self.teacher, name), *given))


class Shop:
    """A registered model, and replicas that serve its champion."""

    def __init__(self, uri: str, name: str, bundle: str):
        self.uri, self.name, self.alias = uri, name, f"models:/{name}@champion"
        self.register(bundle)
        self.teacher = Teacher(self.alias, uri)

    def register(self, bundle: str) -> None:
        """Make this bundle the champion."""
        with track.run(config.Job(track=config.Track(uri=self.uri)), "register", "test") as run:
            registry.crown(self.name, registry.register(run, bundle, self.name), self.uri)

    def replica(self, **changes: object) -> TestClient:
        """One more replica, asked from this machine."""
        given = {"model": self.alias, "follow_seconds": 600.0, **changes}
        replica = Replica(SETTINGS.model_copy(update=given), self.uri, "serve_apps", Direct(self.teacher))
        return TestClient(replica.__serve_build_asgi_app__(), "http://localhost", client=("127.0.0.1", 1))

    def state(self) -> list[tuple[int, list[str]]]:
        return [(each.number, each.aliases) for each in registry.versions(self.name, self.uri)]

    @property
    def products(self) -> list[str]:
        """Those enrolled in the champion."""
        return Bundle.load(registry.fetch(self.alias, self.uri)).enrolled.labels


@pytest.fixture(scope="module")
def store(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """MLflow's store; Ray is up, else a replica would start one of its own."""
    root = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        yield f"sqlite:///{root}/mlflow.db"


@pytest.fixture(autouse=True)
def quiet_log() -> Iterator[None]:
    """A replica logs where Ray Serve does: not for ever, in this process."""
    log = logging.getLogger("sicot")
    before = list(log.handlers)
    yield
    log.handlers[:] = before


@pytest.fixture
def shop(store: str, tiny_bundle: str, request: pytest.FixtureRequest) -> Shop:
    return Shop(store, f"shop{abs(hash(request.node.name))}", tiny_bundle)


def enrol(replica: TestClient, label: str, **more: Any) -> httpx.Response:
    return replica.post("/v1/classes", data={"label": label, **more}, files=MUG)


def test_a_product_is_known_where_it_was_enrolled_when_the_answer_comes(shop: Shop) -> None:
    replica = shop.replica()
    before = replica.get("/v1/model").json()
    reply = enrol(replica, f" {ODD} ", title="green mug", tags="new,sale")
    assert reply.status_code == 201
    change = schema.Change.model_validate(reply.json())
    assert (change.label, change.enrolled, change.model.version) == (ODD, 1, "2")
    about = replica.get("/v1/model").json()
    assert (about["version"], about["digest"]) == ("2", change.model.digest)
    assert (about["classes"], about["threshold"]) == (7, before["threshold"])
    said = replica.post("/v1/recognize", files={"image": photo("green-mug", 9)}, data={"k": "7"}).json()
    assert ODD in {each["label"] for each in said["ranked"]}
    assert said["model"]["version"] == "2"
    kept = Bundle.load(registry.fetch(shop.alias, shop.uri)).enrolled.of(ODD)
    assert [row["image"] for row in kept] == [file[1] for _, file in MUG]
    assert kept[0]["title"], kept[0]["tags"] == ("green mug", ["new", "sale"])


def test_words_are_enough_and_a_product_can_be_taken_back(shop: Shop) -> None:
    replica = shop.replica()
    assert replica.post("/v1/classes", data={"label": ODD, "title": "green mug"}).json()["enrolled"] == 1
    assert enrol(replica, "other").json()["enrolled"] == 2
    reply = replica.delete("/v1/classes", params={"label": ODD})
    assert (reply.status_code, reply.json()["enrolled"], reply.json()["label"]) == (200, 1, ODD)
    assert replica.get("/v1/classes", params={"q": ODD}).json()["total"] == 0
    assert shop.products == ["other"]
    assert refusal(replica.delete("/v1/classes", params={"label": ODD})) == (404, "not_enrolled")
    assert refusal(replica.delete("/v1/classes", params={"label": LABELS[0]})) == (404, "not_enrolled")
    assert refusal(replica.delete("/v1/classes")) == (422, "bad_field")


def test_a_product_enrolled_again_is_known_by_what_is_new_and_the_same_twice_is_one_version(shop: Shop) -> None:
    replica = shop.replica()
    versions = [enrol(replica, "mug", title=title).json()["model"]["version"] for title in ("red", "green", "green")]
    assert versions == ["2", "3", "3"]
    assert shop.products == ["mug"]
    assert {row["title"] for row in Bundle.load(registry.fetch(shop.alias, shop.uri)).enrolled.of("mug")} == {"green"}


def test_products_enrolled_at_once_on_several_replicas_are_all_kept_and_reach_all(shop: Shop) -> None:
    replicas = [shop.replica(follow_seconds=0.1) for _ in range(2)]
    with ThreadPoolExecutor(4) as people:
        replies = list(people.map(lambda n: enrol(replicas[n % 2], f"mug {n}"), range(4)))
    assert [reply.status_code for reply in replies] == [201] * 4
    assert sorted(shop.products) == [f"mug {n}" for n in range(4)]
    for replica in replicas:
        for _ in range(100):
            found = replica.get("/v1/classes", params={"q": "MUG "}).json()
            if found["total"] == 4:
                break
            asyncio.run(asyncio.sleep(0.05))
        assert found["total"] == 4


def test_a_champion_crowned_meanwhile_gets_the_product_too(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica, other, given = shop.replica(), bundle_folder(tmp_path, dimension=8), registry.supersede
    assert enrol(replica, "before").status_code == 201

    def late(*arguments: Any) -> str | None:
        monkeypatch.setattr(registry, "supersede", given)
        shop.register(registry.carry(other, shop.name, shop.uri))
        return given(*arguments)

    monkeypatch.setattr(registry, "supersede", late)
    reply = enrol(replica, "mug")
    assert reply.status_code == 201
    champion = Bundle.load(registry.fetch(shop.alias, shop.uri))
    assert (champion.info.model.dimension, champion.enrolled.labels) == (8, ["before", "mug"])
    assert reply.json()["model"]["digest"] == champion.info.digest
    assert "challenger" in dict(shop.state())[3]  # a rival's alias stays where it was


def test_a_rollback_takes_an_enrolment_back(shop: Shop) -> None:
    enrol(shop.replica(), "mug")
    assert registry.rollback(shop.name, shop.uri) == 1
    assert shop.products == []


WRONG: list[tuple[dict[str, Any], tuple[int, str]]] = [
    ({"data": {"label": LABELS[0], "title": "red"}}, (409, "conflict")),
    ({"data": {"label": "mug"}}, (422, "bad_field")),
    ({"data": {"label": "mug", "title": "unheard of"}}, (422, "bad_field")),
    ({"data": {"label": "  ", "title": "red"}}, (422, "bad_field")),
    ({"data": {"label": "x" * 301, "title": "red"}}, (422, "bad_field")),
    ({"data": {"title": "red"}}, (422, "bad_field")),
    ({"data": {"label": "mug", "title": "red", "k": "5"}}, (422, "bad_field")),
    ({"data": {"label": "mug", "image": "text"}}, (422, "bad_field")),
    ({"data": {"label": "mug"}, "files": [*MUG, ("image", b"<html>" * 9)]}, (415, "image_type")),
    ({"data": {"label": "mug"}, "files": [*MUG, ("image", photo("green-mug", 4)[:400])]}, (400, "image_unreadable")),
    ({"data": {"label": "mug"}, "files": MUG * 7}, (400, "bad_body")),
    ({"data": {"label": "mug"}, "files": [("image", b"x" * 3_000_000)]}, (413, "body_too_large")),
    ({"content": b"{}", "headers": {"content-type": "application/json"}}, (415, "body_type")),
]


def test_what_cannot_be_enrolled_is_refused_and_leaves_nothing_behind(shop: Shop) -> None:
    replica, before = shop.replica(max_enrol_bytes=2_000_000), shop.state()
    for wrong, expected in WRONG:
        assert refusal(replica.post("/v1/classes", **wrong)) == expected, wrong
    assert shop.state() == before
    assert replica.get("/v1/model").json()["version"] == "1"


def test_what_never_changes_says_what_to_serve_instead(shop: Shop, tiny_bundle: str) -> None:
    for model in (f"models:/{shop.name}/1", tiny_bundle):
        fixed = Replica(SETTINGS.model_copy(update={"model": model}), shop.uri, "serve_apps")
        client = TestClient(fixed.__serve_build_asgi_app__(), "http://localhost", client=("127.0.0.1", 1))
        for reply in (enrol(client, "mug"), client.delete("/v1/classes", params={"label": "mug"})):
            assert refusal(reply) == (409, "conflict")
            assert "serve an alias, such as models:/sicot@champion" in reply.json()["error"]["message"]


def test_a_model_with_an_index_enrols_nothing(store: str, tmp_path: Path) -> None:
    shop = Shop(store, "indexed", bundle_folder(tmp_path, config.Index(candidates=3)))
    reply = enrol(shop.replica(), "mug")
    assert refusal(reply) == (409, "conflict")
    assert "index" in reply.json()["error"]["message"]


@pytest.mark.parametrize("where", ["set_registered_model_alias", "create_model_version", "log_model_artifacts"])
def test_a_registry_that_fails_on_the_way_leaves_nothing_half_registered(
    shop: Shop, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    def fails(*_: object, **__: object) -> None:
        raise MlflowException("postgresql://user:secret@db is away")

    replica, before = shop.replica(), shop.state()
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, where, fails)
        reply = enrol(replica, "mug")
    assert refusal(reply) == (503, "away")
    assert reply.headers["retry-after"] == "5"
    assert "secret" not in reply.text
    assert shop.state() == before
    assert replica.get("/v1/model").json()["version"] == "1"
    assert enrol(replica, "mug").status_code == 201


def test_a_version_that_cannot_be_taken_up_is_not_said_to_be(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    replica = shop.replica()

    def fails(*_: object) -> None:
        raise UserError("/secret/path is broken")

    with monkeypatch.context() as patch:
        patch.setattr("sicot.endpoint.replica.Served", fails)
        reply = enrol(replica, "mug")
    assert refusal(reply) == (503, "away")
    assert "secret" not in reply.text
    assert replica.get("/v1/model").json()["version"] == "1"
    assert enrol(replica, "mug").json()["model"]["version"] == "2"  # the one that was registered


# ---------------------------------------------------------------- who may


def asked(shop: Shop, place: Path, key: str, **headers: str) -> list[tuple[int, str]]:
    """What finding, enrolling and withdrawing are answered with this key from elsewhere: status and code."""
    replica = shop.replica(keys=str(place))
    replica.headers.update({"authorization": f"Bearer {key}", **headers})
    replies = [replica.get("/v1/classes"), enrol(replica, "mug"), replica.delete("/v1/classes?label=mug")]
    return [(each.status_code, each.json().get("error", {}).get("code", "")) for each in replies]


def test_only_a_key_with_the_right_changes_what_is_known(shop: Shop, tmp_path: Path) -> None:
    place = tmp_path / "keys.txt"
    plain, admin = keys.add("app", str(place)), keys.add("admin", str(place), ["enrol"])
    assert asked(shop, place, plain) == [(200, ""), (403, "no_right"), (403, "no_right")]
    assert shop.state() == [(1, ["challenger", "champion"])]
    assert asked(shop, place, admin) == [(200, ""), (201, ""), (200, "")]
    assert asked(shop, place, "wrong") == [(401, "unauthorized")] * 3
    notes = [track.connect(shop.uri).get_model_version(shop.name, str(n)).description for n in (2, 3)]
    assert notes == ["admin enrolled 'mug'", "admin withdrew 'mug'"]


@pytest.mark.parametrize(
    "headers", [{"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}, {"origin": "http://evil.example"},
                {"origin": "null"}, {"origin": "http://localhost:9999"}]
)  # fmt: skip
def test_a_page_from_elsewhere_changes_nothing_with_or_without_keys(
    shop: Shop, tmp_path: Path, headers: dict[str, str]
) -> None:
    admin = keys.add("admin", str(tmp_path / "keys.txt"), ["enrol"])
    assert asked(shop, tmp_path / "keys.txt", admin, **headers)[1:] == [(403, "no_right")] * 2
    replica = shop.replica()
    replica.headers.update(headers)
    assert refusal(enrol(replica, "mug")) == (403, "no_right")
    assert len(shop.state()) == 1


@pytest.mark.parametrize("headers", [{"sec-fetch-site": "same-origin"}, {"origin": "http://localhost"}])
def test_our_own_page_may(shop: Shop, headers: dict[str, str]) -> None:
    replica = shop.replica()
    replica.headers.update(headers)
    assert enrol(replica, "mug").status_code == 201


# ---------------------------------------------------------------- finding, and how much at once


def test_labels_are_found_by_a_part_of_them(shop: Shop) -> None:
    replica = shop.replica()
    enrol(replica, "My MUG 红")

    def found(**asked: object) -> tuple[int, list[str]]:
        reply = schema.Found.model_validate(replica.get("/v1/classes", params=asked).raise_for_status().json())
        return reply.total, [each.label for each in reply.classes]

    assert found() == (7, [*LABELS, "My MUG 红"])
    assert found(q="mug") == (3, ["blue-mug", "white-mug", "My MUG 红"])
    assert found(q="my m") == found(q="红") == (1, ["My MUG 红"])
    assert found(q="W") == (2, ["white-mug", "yellow-shoe"])  # begins with it
    assert found(q="mug", limit=2) == (3, ["blue-mug", "white-mug"])
    assert found(q=".*") == found(q="%") == (0, [])
    known = replica.get("/v1/classes", params={"q": "mug"}).json()["classes"]
    assert [(each["enrolled"], each["rows"] > 0) for each in known] == [(False, True), (False, True), (True, False)]
    for wrong in ({"limit": "0"}, {"limit": "101"}, {"limit": "x"}, {"q": "x" * 301}):
        reply = replica.get("/v1/classes", params=wrong)
        assert refusal(reply) == (422, "bad_field")
        assert reply.json()["error"]["message"].startswith(f"{next(iter(wrong))}: ")


class Learning(Recorded):
    """Stands for a replica that enrols when it is let to."""

    async def enrol(self, label: str, queries: list[Query], who: str) -> Recorded:
        await self.recognise(queries[0], 1)
        return self

    async def withdraw(self, label: str, who: str) -> Recorded:
        return await self.enrol(label, [Query()], who)

    def find(self, part: str, most: int) -> tuple[int, list[schema.Known]]:
        return 1, [schema.Known(label=part or "bag", enrolled=False, rows=3)][:most]


def test_changes_that_wait_are_few_and_answers_go_on_meanwhile() -> None:
    model = Learning()

    async def conversation(client: httpx.AsyncClient) -> None:
        model.gate.clear()
        change: Callable[[], Any] = lambda: client.post("/v1/classes", data={"label": "mug", "title": "x"})  # noqa: E731
        waiting = [asyncio.create_task(change()) for _ in range(classes.WAITING)]
        while len(model.asked) < classes.WAITING:
            await asyncio.sleep(0)
        full = await change()
        assert refusal(full) == (503, "full")
        assert full.headers["retry-after"] == "1"
        assert (await client.get("/readyz")).status_code == 200
        assert (await client.get("/v1/classes")).status_code == 200
        model.gate.set()
        assert (await client.post("/v1/recognize", data={"title": "x"})).status_code == 200
        assert [reply.status_code for reply in await asyncio.gather(*waiting)] == [201] * classes.WAITING
        assert (await change()).status_code == 201

    talk(model, conversation)


def test_who_waits_too_long_for_a_change_is_told_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Learning()
    monkeypatch.setattr(classes, "SECONDS", 0.02)

    async def conversation(client: httpx.AsyncClient) -> None:
        model.gate.clear()
        assert refusal(await client.delete("/v1/classes?label=mug")) == (503, "slow")

    talk(model, conversation)


@pytest.mark.parametrize("outcome", [None, UserError("no"), classes.Away("no")])
@pytest.mark.parametrize("method", ["get", "post", "delete"])
def test_every_reply_fits_the_description(method: str, outcome: Exception | None) -> None:
    app = api.create(Learning(outcome) if outcome else Learning(), LIMITS, PAGE)

    async def here(scope: Any, receive: Any, send: Any) -> None:
        """As if it was asked from this machine."""
        headers = [item for item in scope.get("headers", ()) if item[0] != b"host"] + [(b"host", b"localhost")]
        await app({**scope, "client": ("127.0.0.1", 1), "headers": headers}, receive, send)

    operation = schemathesis.openapi.from_asgi("/openapi.json", here)["/v1/classes"][method]

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(operation.as_strategy())
    def replies_fit(case: schemathesis.Case) -> None:
        case.call_and_validate(checks=[check for check in CHECKS if check is not not_a_server_error or not away])

    away = isinstance(outcome, classes.Away)

    replies_fit()


@given(st.text(max_size=30))
def test_any_words_can_be_looked_for(part: str) -> None:
    import pyarrow as pa

    from sicot.prepare.prepared import CLASSES, Classes

    labels = ["Straße", "红色 茶壶", "a.b*c", part]
    table = {"label": labels, "count": [1] * 4, "prior": [0.25] * 4, "group": ["head"] * 4}
    total, found = Classes(pa.table(table, CLASSES)).find(part, 4)
    assert total == len(found)
    assert 3 in found
