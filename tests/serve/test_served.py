"""What a served model keeps: answers that are asked for again."""

from __future__ import annotations

import asyncio

import pytest

from sicot.bundle import Answer, Query
from sicot.endpoint.served import Served
from tests.builders import photo
from tests.serve.conftest import SETTINGS


def asked(served: Served, questions: list[tuple[Query, int]], monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """How many of these questions, asked one after the other, reached the model; how many answers are kept."""
    reached = []
    ask = served.batches.ask

    async def counted(query: Query, k: int) -> Answer:
        reached.append(query)
        return await ask(query, k)

    monkeypatch.setattr(served.batches, "ask", counted)

    async def conversation() -> None:
        for query, k in questions:
            assert len((await served.recognise(query, k)).ranked) == k

    asyncio.run(conversation())
    return len(reached), len(served.answered or ())


def test_what_is_asked_again_is_not_computed_again(tiny_bundle: str, monkeypatch: pytest.MonkeyPatch) -> None:
    served = Served(tiny_bundle, SETTINGS, "")
    bag, mug = photo("red-bag", 1), photo("blue-mug", 1)
    differing = [
        (Query(bag), 2),
        (Query(mug), 2),
        (Query(bag), 3),
        (Query(bag, "bag"), 2),
        (Query(bag, "", ("bag",)), 2),
    ]
    assert asked(served, differing * 3, monkeypatch) == (5, 5)


def test_no_more_answers_are_kept_than_allowed(tiny_bundle: str, monkeypatch: pytest.MonkeyPatch) -> None:
    questions = [(Query(photo("red-bag", n)), 1) for n in range(4)] * 2
    for most, kept in ((3, 3), (0, 0)):
        served = Served(tiny_bundle, SETTINGS.model_copy(update={"cache": most}), "")
        assert asked(served, questions, monkeypatch) == (8, kept)
