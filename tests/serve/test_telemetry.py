"""What an operator sees: figures that are right, labels that strangers cannot add to, a log without secrets."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sicot import config
from sicot.bundle import Query, Ranked
from sicot.drift import ENOUGH, Scores
from sicot.endpoint import api, keys, telemetry
from sicot.endpoint.served import Served
from sicot.endpoint.telemetry import Telemetry
from sicot.export import Metric
from tests.builders import photo
from tests.serve.conftest import SETTINGS
from tests.serve.test_api import ANSWER, INFO, JPEG, LIMITS, PAGE, Recorded


class Seen:
    """Keeps what it is handed."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, ...], list[float]] = defaultdict(list)
        self.totals: Counter[tuple[str, ...]] = Counter()
        self.gauges: dict[tuple[str, ...], float] = {}

    def observe(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        assert tuple(labels) == metric.labels
        self.values[metric.name, *labels.values()].append(value)

    def add(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        assert tuple(labels) == metric.labels
        self.totals[metric.name, *labels.values()] += value

    def set(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        assert tuple(labels) == metric.labels
        self.gauges[metric.name, *labels.values()] = value


def watched(limits: config.Serve = LIMITS) -> tuple[Telemetry, Seen]:
    seen = Seen()
    return Telemetry(limits, seen), seen


def asked(
    noted: Telemetry, *requests: dict[str, Any], model: Any = None, limits: config.Serve = LIMITS
) -> list[httpx.Response]:
    """The answers to requests, one after the other."""
    app = api.create(model or Recorded(), limits, PAGE, noted)

    async def run() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return [await client.request(**{"method": "POST", "url": "/v1/recognize", **each}) for each in requests]

    return asyncio.run(run())


def counted(noted: Telemetry, seen: Seen, name: str) -> dict[tuple[str, ...], float]:
    """Totals of a counter by its labels."""
    noted.flush(INFO, "3")
    return {labels[1:]: total for labels, total in seen.totals.items() if labels[0] == name}


PHOTO = {"content": b"photo", "headers": JPEG}


def test_requests_are_counted_by_route_status_and_code() -> None:
    noted, seen = watched()
    asked(
        noted,
        *[PHOTO] * 3,
        {"content": b"x" * 20_001, "headers": JPEG},
        {"json": {}},
        {"data": {"title": "a", "k": "x"}},
        {"method": "GET", "url": "/nothing"},
        {"method": "GET"},
        {"method": "GET", "url": "/v1/model"},
    )
    expected = {
        ("/v1/recognize", "200", ""): 3,
        ("/v1/recognize", "413", "body_too_large"): 1,
        ("/v1/recognize", "415", "body_type"): 1,
        ("/v1/recognize", "422", "bad_field"): 1,
        ("other", "404", "not_found"): 1,
        ("/v1/recognize", "405", "method_not_allowed"): 1,
        ("/v1/model", "200", ""): 1,
    }
    assert counted(noted, seen, "sicot_requests") == expected
    assert counted(noted, seen, "sicot_requests") == expected  # each is handed over once
    assert len(seen.values["sicot_request_seconds", "/v1/recognize"]) == 3  # those that were answered


def test_who_is_sent_away_who_leaves_and_a_bug_of_ours_are_counted() -> None:
    noted, seen = watched(LIMITS)
    model = Recorded()

    async def run() -> None:
        transport = httpx.ASGITransport(api.create(model, LIMITS, PAGE, noted), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            model.gate.clear()
            held = [asyncio.create_task(client.post("/v1/recognize", **PHOTO)) for _ in range(api.places(LIMITS))]
            while len(model.asked) < len(held):
                await asyncio.sleep(0.001)
            assert (await client.post("/v1/recognize", **PHOTO)).status_code == 503
            held[0].cancel()
            await asyncio.wait(held[:1])
            model.gate.set()
            await asyncio.gather(*held[1:])

    asyncio.run(run())
    asked(noted, PHOTO, model=Recorded(RuntimeError("bug")))
    assert counted(noted, seen, "sicot_requests") == {
        ("/v1/recognize", "503", "full"): 1,
        ("/v1/recognize", "499", ""): 1,
        ("/v1/recognize", "200", ""): api.places(LIMITS) - 1,
        ("/v1/recognize", "500", "internal"): 1,
    }


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["GET", "POST", "PUT", "DELETE", "OPTIONS", "BREW"]),
            st.one_of(st.text("abc/%{}.-_", max_size=30), st.sampled_from(["v1/recognize", "page/app.js", "v1/model"])),
            st.dictionaries(st.sampled_from(["title", "tags", "k", "image", "code"]), st.text(max_size=9), max_size=3),
            st.text("0123456789abcdef", min_size=1, max_size=40),
        ),
        max_size=10,
    )
)
def test_strangers_add_no_label(requests: list[tuple[str, str, dict[str, str], str]]) -> None:
    noted, seen = watched()
    asked(
        noted,
        *(
            {
                "method": method,
                "url": f"http://localhost/{path}",
                "params": fields,
                "data": fields,
                "headers": {"x-request-id": name},
            }
            for method, path, fields, name in requests
        ),
    )
    paths = {"other", "/", "/docs", "/openapi.json", "/healthz", "/readyz", "/v1/recognize", "/v1/model"}
    codes = {"", "not_found", "method_not_allowed", "bad_field", "body_type", "bad_body", "bad_request"}
    for path, status, code in counted(noted, seen, "sicot_requests"):
        assert path in paths
        assert 200 <= int(status) < 500
        assert code in codes
    assert {labels[1] for labels in seen.values if labels[0] == "sicot_request_seconds"} <= paths


def ask(served: Served, *queries: Query) -> float:
    """Seconds that these questions take, one after the other."""

    async def run() -> float:
        begun = time.perf_counter()
        for query in queries:
            await served.recognise(query, 2)
        return time.perf_counter() - begun

    return asyncio.run(run())


def test_stages_are_told_apart_and_add_up(tiny_bundle: str, monkeypatch: pytest.MonkeyPatch) -> None:
    noted, seen = watched()
    served = Served(tiny_bundle, SETTINGS, "", noted)

    def slower(name: str, seconds: float) -> None:
        work = getattr(served.bundle, name)

        def slow(*given: Any) -> Any:
            time.sleep(seconds)
            return work(*given)

        monkeypatch.setattr(served.bundle, name, slow)

    for name, seconds in (("encode", 0.05), ("see", 0.1), ("top", 0.15)):
        slower(name, seconds)
    whole = ask(served, Query(photo("red-bag", 1)))
    took = {stage: seen.values["sicot_stage_seconds", stage] for stage in ("decode", "queue", "model", "search")}
    assert {stage: len(each) for stage, each in took.items()} == dict.fromkeys(took, 1)
    for stage, least in (("decode", 0.05), ("model", 0.1), ("search", 0.15)):
        assert took[stage][0] >= least
    assert 0.9 * whole < sum(each[0] for each in took.values()) <= whole
    assert seen.values["sicot_batch_size",] == [1]


def test_questions_that_wait_show_so_in_the_queue(tiny_bundle: str, monkeypatch: pytest.MonkeyPatch) -> None:
    noted, seen = watched()
    served = Served(tiny_bundle, SETTINGS.model_copy(update={"threads": 1, "max_batch": 1}), "", noted)
    see = served.bundle.see
    monkeypatch.setattr(served.bundle, "see", lambda images: (time.sleep(0.1), see(images))[1])

    async def together() -> None:
        await asyncio.gather(*(served.recognise(Query(photo("red-bag", n)), 1) for n in range(3)))

    asyncio.run(together())
    waited = sorted(seen.values["sicot_stage_seconds", "queue"])
    assert len(waited) == 3
    assert waited[1] > 0.05
    assert waited[2] > 0.15


def test_stages_are_timed_some_times_a_second_however_many_answers_there_are() -> None:
    noted, seen = watched()
    begun = time.perf_counter()
    while (over := time.perf_counter() - begun) < 0.5:
        noted.took("model", 0.1)
        noted.took("read", 0.1)
    for stage in ("model", "read"):
        assert 1 < len(seen.values["sicot_stage_seconds", stage]) <= 1 + over / telemetry.STAGE_SECONDS


def test_answers_are_counted_by_group_and_way_of_asking_kept_ones_too(tiny_bundle: str) -> None:
    noted, seen = watched()
    served = Served(tiny_bundle, SETTINGS, "", noted)
    queries = [Query(photo("red-bag", 1)), Query(photo("red-bag", 1), "red bag"), Query(None, "yellow shoe")]
    ask(served, *queries, queries[0])
    first = [served.bundle.predict([query])[0] for query in queries]
    groups = dict(zip(served.bundle.classes.labels, served.bundle.classes.group, strict=True))
    expected: Counter[tuple[str, ...]] = Counter()
    for regime, answer in zip(("image", "image_text", "text", "image"), [*first, first[0]], strict=True):
        expected[regime, groups[answer.ranked[0].label], str(answer.unknown).lower()] += 1
    assert counted(noted, seen, "sicot_answers") == expected
    assert counted(noted, seen, "sicot_cache") == {("miss",): 3, ("hit",): 1}
    assert seen.values["sicot_score", "text"] == [pytest.approx(first[2].score)]


def told(noted: Telemetry, scores: np.ndarray, digest: str = INFO.digest) -> None:
    for score in scores:
        noted.answer(replace(ANSWER, ranked=[Ranked("包", score)], score=score, regime="image", group="tail"), digest)


def test_drift_shows_once_there_is_enough_to_tell_and_begins_anew_with_the_model() -> None:
    noted, seen = watched()
    validation = np.linspace(0.2, 1, 1000)
    info = INFO.model_copy(update={"scores": {"image": Scores.of(validation)}})
    noted.flush(info, "3")
    assert math.isnan(seen.gauges["sicot_score_psi", "image"])
    told(noted, validation[:: 1000 // ENOUGH])
    noted.flush(info, "3")
    assert seen.gauges["sicot_score_psi", "image"] == pytest.approx(0, abs=0.02)
    told(noted, validation / 2, digest="f" * 64)  # a challenger's are not the champion's
    noted.flush(info, "3")
    assert seen.gauges["sicot_score_psi", "image"] == pytest.approx(0, abs=0.02)
    told(noted, validation / 2)
    noted.flush(info, "3")
    assert seen.gauges["sicot_score_psi", "image"] > 0.25
    old, new = ("sicot_model_info", "m", "3", "d" * 12), ("sicot_model_info", "m", "4", "e" * 12)
    assert seen.gauges[old] == 1
    noted.flush(info.model_copy(update={"digest": "e" * 64}), "4")
    assert math.isnan(seen.gauges[old])  # else each champion there ever was would stay on the dashboards
    assert seen.gauges[new] == 1
    assert math.isnan(seen.gauges["sicot_score_psi", "image"])


def test_a_bundle_of_before_has_no_drift_and_what_it_did_is_still_counted() -> None:
    noted, seen = watched()
    noted.flush(INFO, "3")
    told(noted, np.linspace(0, 1, 2 * ENOUGH))
    assert counted(noted, seen, "sicot_answers") == {("image", "tail", "false"): 2 * ENOUGH}
    assert not any(labels[0] == "sicot_score_psi" for labels in seen.gauges)
    assert seen.gauges["sicot_replicas",] == LIMITS.replicas


def test_refusals_are_logged_at_a_bounded_rate_and_name_no_secret(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(monotonic=lambda: clock.now, perf_counter=time.perf_counter)
    monkeypatch.setattr(telemetry, "time", clock)
    monkeypatch.setenv(keys.VARIABLE, f"shop sha256:{keys.digest('the-key')}")
    noted, _ = watched()
    secret = {"x-request-id": "mine", "authorization": "Bearer the-key"}
    title = {"data": {"title": "secret title", "k": "0"}, "headers": secret}
    with caplog.at_level(logging.INFO):
        for clock.now in np.arange(0, 2.5, 0.125):
            asked(noted, title)
        asked(noted, {"headers": {"authorization": "Bearer wrong-key"}})
    lines = [record for record in caplog.records if getattr(record, "event", "") == "refused"]
    assert [(line.status, line.code) for line in lines] == [(422, "bad_field")] * 3 + [(401, "unauthorized")]  # type: ignore[attr-defined]
    assert [line.unsaid for line in lines] == [0, 7, 7, 0]  # type: ignore[attr-defined]
    assert lines[0].request_id == "mine"  # type: ignore[attr-defined]
    said = json.dumps([{**vars(record), "text": record.getMessage()} for record in lines], default=str)
    assert not any(word in said for word in ("secret title", "the-key", "wrong-key"))


def test_who_watches_nothing_pays_for_nothing() -> None:
    noted = Telemetry(LIMITS)
    told(noted, np.linspace(0, 1, 100))
    noted.flush(INFO, "3")
    assert not noted.counts


def test_an_answer_costs_little() -> None:
    noted, _ = watched()
    noted.flush(INFO.model_copy(update={"scores": {"image": Scores.of(np.linspace(0, 1, 100))}}), "3")
    answer = replace(ANSWER, regime="image", group="tail")
    scope = {"state": {"request_id": "x"}, "route": SimpleNamespace(path="/v1/recognize")}
    best = math.inf
    for _ in range(20):
        begun = time.perf_counter()
        for _ in range(100):
            for stage in telemetry.STAGES:
                noted.took(stage, 0.01)
            noted.cache(hit=False)
            noted.answer(answer, INFO.digest)
            noted.request(scope, 200, 0.05)
        best = min(best, (time.perf_counter() - begun) / 100)
    assert best < 100e-6  # of the 2600 that a request takes of a core
