"""What a process of the endpoint keeps: answers that are asked for again."""

from __future__ import annotations

import asyncio

import pytest

from sicot.bundle import Answer, Query
from sicot.endpoint.replica import Replica
from tests.builders import photo
from tests.serve.conftest import SETTINGS


def asked(replica: Replica, questions: list[tuple[Query, int]], monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """How many of these questions, asked one after the other, reached the model; how many answers are kept."""
    reached = []
    ask = replica.batches.ask

    async def counted(query: Query, k: int) -> Answer:
        reached.append(query)
        return await ask(query, k)

    monkeypatch.setattr(replica.batches, "ask", counted)

    async def conversation() -> None:
        for query, k in questions:
            assert len((await replica.recognise(query, k)).ranked) == k

    asyncio.run(conversation())
    return len(reached), len(replica.answered)


def test_what_is_asked_again_is_not_computed_again(tiny_bundle: str, monkeypatch: pytest.MonkeyPatch) -> None:
    replica = Replica(SETTINGS.model_copy(update={"model": tiny_bundle}), "", page="serve_apps")
    bag, mug = photo("red-bag", 1), photo("blue-mug", 1)
    differing = [
        (Query(bag), 2),
        (Query(mug), 2),
        (Query(bag), 3),
        (Query(bag, "bag"), 2),
        (Query(bag, "", ("bag",)), 2),
    ]
    assert asked(replica, differing * 3, monkeypatch) == (5, 5)


def test_no_more_answers_are_kept_than_allowed(tiny_bundle: str, monkeypatch: pytest.MonkeyPatch) -> None:
    questions = [(Query(photo("red-bag", n)), 1) for n in range(4)] * 2
    for most, kept in ((3, 3), (0, 0)):
        settings = SETTINGS.model_copy(update={"model": tiny_bundle, "cache": most})
        assert asked(Replica(settings, "", page="serve_apps"), questions, monkeypatch) == (8, kept)
