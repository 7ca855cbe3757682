"""Who meets the challenger: the same visitors every time, as many as was asked for."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from dataclasses import replace
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from sicot import config
from sicot.bundle import Ranked
from sicot.endpoint import arms, schema
from tests.serve.test_api import ANSWER, LIMITS, Recorded, refusal, talk

TRIED = "models:/m@challenger"


class Two:
    """A champion of version 3, and a challenger of version 4 that can be away."""

    def __init__(self, challenger: bool = True):
        self.now = Recorded()
        self.challenger = Recorded(replace(ANSWER, ranked=[Ranked("杯", 0.8)])) if challenger else None
        if self.challenger:
            self.challenger.version = "4"


def settings(share: float, **changes: Any) -> config.Serve:
    return LIMITS.model_copy(update={"challenger": TRIED, "challenger_share": share, "cache": 0, **changes})


def ask(models: Two, limits: config.Serve, headers: list[dict[str, str]]) -> list[schema.Recognition]:
    async def conversation(client: httpx.AsyncClient) -> list[schema.Recognition]:
        replies = [await client.post("/v1/recognize", data={"title": "x"}, headers=each) for each in headers]
        return [schema.Recognition.model_validate(reply.raise_for_status().json()) for reply in replies]

    return talk(models, conversation, limits)


@given(st.text(max_size=50), st.text(max_size=20), st.floats(0, 1), st.floats(0, 1))
def test_a_visitor_stays_and_who_was_in_stays_in_when_the_share_grows(name: str, tried: str, a: float, b: float):
    small, large = sorted((a, b))
    assert arms.challenged(name, tried, small) == arms.challenged(name, tried, small)
    assert arms.challenged(name, tried, small) <= arms.challenged(name, tried, large)
    assert not arms.challenged(name, tried, 0.0)
    assert arms.challenged(name, tried, 1.0)


@given(st.floats(0, 1), st.text(max_size=20), st.integers(0, 10**6))
def test_the_share_of_visitors_is_what_was_asked_for(share: float, tried: str, first: int):
    met = sum(arms.challenged(f"visitor-{first + n}", tried, share) for n in range(2000))
    assert abs(met / 2000 - share) < 5 * (0.25 / 2000) ** 0.5  # one in millions of draws is further off


def test_every_process_deals_alike():
    dealt = "".join("01"[arms.challenged(f"visitor-{n}", TRIED, 0.5)] for n in range(40))
    script = (
        "import sys; from sicot.endpoint.arms import challenged; "
        "print(*[int(challenged(f'visitor-{n}', sys.argv[1], 0.5)) for n in range(40)], sep='')"
    )
    done = subprocess.run([sys.executable, "-c", script, TRIED], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == dealt


def test_another_challenger_meets_other_visitors():
    first, second = ({n for n in range(2000) if arms.challenged(str(n), tried, 0.5)} for tried in ("a", "b"))
    assert 400 < len(first & second) < 600


def test_an_answer_names_its_arm_and_its_version_and_a_visitor_keeps_both():
    visitors = [{"x-visitor-id": f"v{n}"} for n in range(60)]
    answers = ask(Two(), settings(0.4), visitors * 2)
    assert [each.arm for each in answers[:60]] == [each.arm for each in answers[60:]]
    made = {("champion", "3", "包"), ("challenger", "4", "杯")}
    assert {(each.arm, each.model.version, each.ranked[0].label) for each in answers} == made
    assert 10 <= Counter(each.arm for each in answers[:60])["challenger"] <= 38


def test_a_request_without_a_visitor_is_dealt_by_its_own_id():
    requests = [{"x-request-id": f"r{n}"} for n in range(60)]
    answers = ask(Two(), settings(0.4), requests * 2)
    assert [each.arm for each in answers[:60]] == [each.arm for each in answers[60:]]
    assert {each.arm for each in answers} == {"champion", "challenger"}


@pytest.mark.parametrize(
    ("models", "limits"), [(Two(challenger=False), settings(1.0)), (Two(), LIMITS), (Two(), settings(0.0))]
)
def test_without_a_challenger_the_champion_answers_everyone(models: Two, limits: config.Serve):
    answers = ask(models, limits, [{"x-visitor-id": f"v{n}"} for n in range(20)])
    assert {(each.arm, each.model.version) for each in answers} == {("champion", "3")}


def test_who_is_tried_is_told():
    about = talk(Two(), lambda client: client.get("/v1/model"), settings(0.5)).json()
    assert (about["version"], about["challenger"]["version"], about["feedback"]) == ("3", "4", False)
    assert talk(Two(), lambda client: client.get("/v1/model")).json()["challenger"] is None


def test_a_visitor_may_be_called_in_any_language():
    name = "客户 17"
    assert arms.visitor(Headers(raw=[(b"x-visitor-id", name.encode())])) == name
    answers = ask(Two(), settings(0.4), [{"x-visitor-id": f"{name}{n}".encode()} for n in range(60)])
    assert {each.arm for each in answers} == {"champion", "challenger"}


def test_a_visitors_name_has_an_end():
    named = {"x-visitor-id": "v" * (arms.MAX_VISITOR + 1)}
    reply = talk(Two(), lambda client: client.post("/v1/recognize", data={"title": "x"}, headers=named), settings(0.5))
    assert refusal(reply) == (422, "bad_field")
    assert "X-Visitor-ID" in reply.json()["error"]["message"]
