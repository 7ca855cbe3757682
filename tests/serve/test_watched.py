"""A real Prometheus that watches the running endpoint: what we ship for it is understood, and shows something."""

from __future__ import annotations

import itertools
from typing import Any

import httpx
import pytest

from sicot.drift import ENOUGH
from tests.builders import photo
from tests.waiting import until
from tests.watching import answer, queries

QUERIES = queries("serving")
pytestmark = pytest.mark.system


def test_every_panel_shows_something_and_every_alert_is_watched(endpoint: str, prometheus: httpx.Client) -> None:
    seeds = itertools.count()
    with httpx.Client(base_url=endpoint, timeout=30) as client:

        def ask() -> None:
            fresh = photo("red-bag", next(seeds))  # what is kept goes through no stage
            client.post("/v1/recognize", files={"image": fresh}, data={"title": "red bag"})
            client.post("/v1/recognize", content=fresh, headers={"content-type": "image/jpeg"})
            for _ in range(ENOUGH // 10):
                client.post("/v1/recognize", data={"title": "red bag"})
            client.post("/v1/recognize", content=b"no photo", headers={"content-type": "image/jpeg"})

        def empty() -> list[Any]:
            ask()
            return [name for name, expression in QUERIES.items() if not answer(prometheus, expression)]

        until(lambda: not empty(), f"no series for {empty()}")
    shown = {name: answer(prometheus, expression) for name, expression in QUERIES.items()}
    (model,) = shown["Models", "A"]
    served = httpx.get(f"{endpoint}/v1/model").json()
    assert (model["metric"]["digest"], model["value"][1]) == (served["digest"][:12], "1")
    assert {each["metric"]["stage"] for each in shown["Stages, p99", "A"]} == {
        "read", "decode", "queue", "model", "search",
    }  # fmt: skip
    assert {each["metric"]["code"] for each in shown["Refused and failing", "A"]} >= {"image_type"}
    unknown = {each["metric"]["asked"]: float(each["value"][1]) for each in shown["Unknown products", "A"]}
    assert unknown == {"image": 1, "image_text": 0, "text": 0}  # as the tiny bundle's thresholds have it
    assert sum(float(each["value"][1]) for each in shown["First answers by group", "A"]) == pytest.approx(1)
    drift = {each["metric"]["asked"]: float(each["value"][1]) for each in shown["Drift of scores (PSI)", "A"]}
    assert drift["text"] > 0.25  # the same question over and over
    groups = prometheus.get("/api/v1/rules").json()["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert {rule["name"] for rule in rules} >= {"SicotDown", "SicotReplicaDown", "SicotErrors", "SicotDrift"}
    assert all(rule["health"] == "ok" for rule in rules), rules
    quiet = {rule["name"] for rule in rules if rule["state"] == "inactive"}
    assert quiet >= {"SicotDown", "SicotReplicaDown", "SicotErrors", "SicotFull", "SicotVersionsDiffer"}
    for rule in rules:
        answer(prometheus, rule["query"])
