"""Questions that wait together are answered together; each gets its own answer, or its own error."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest

from sicot.bundle import Answer, Item, Query, Ranked
from sicot.endpoint.batches import LARGE, Batches
from sicot.prepare.images import BadImage


class Model:
    """Answers with the question's title, over and over, once the gate is open; keeps how large its batches were."""

    def __init__(self) -> None:
        self.gate, self.begun = threading.Event(), threading.Event()
        self.sizes: list[int] = []
        self.gate.set()

    def decode(self, query: Query) -> Item:
        if query.title == "bad":
            raise BadImage("image_unreadable", "no photo")
        return Item(None, [query.title], [1])

    def answer(self, items: Sequence[Item], k: int) -> list[Answer]:
        self.begun.set()
        assert self.gate.wait(10)
        self.sizes.append(len(items))
        if any(item.tokens == ["bug"] for item in items):
            raise RuntimeError("bug")
        return [Answer([Ranked(item.tokens[0], 1 / k)] * k, 1.0, False, [], 1.0) for item in items]

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run(asyncio.wait_for(work, 20))


def test_a_lone_question_is_answered_at_once() -> None:
    model = Model()
    batches = Batches(model.decode, model.answer, most=8, threads=1)
    answer = model.run(batches.ask(Query(title="mug"), 3))
    assert [ranked.label for ranked in answer.ranked] == ["mug"] * 3
    assert model.sizes == [1]


def test_a_large_photo_holds_up_nobody_else() -> None:
    model, read = Model(), threading.Event()

    def decode(query: Query) -> Item:
        assert query.image is None or read.wait(10)
        return Item(None, [query.title], [1])

    batches = Batches(decode, model.answer, most=8, threads=1)

    async def conversation() -> None:
        large = asyncio.create_task(batches.ask(Query(b"\0" * LARGE, "large"), 1))
        await asyncio.sleep(0)  # it has asked
        assert (await batches.ask(Query(title="small"), 1)).ranked[0].label == "small"
        assert not large.done()
        read.set()
        assert (await large).ranked[0].label == "large"

    model.run(conversation())


@pytest.mark.parametrize("threads", [1, 2])
def test_those_that_wait_share_batches_and_each_gets_its_own_answer(threads: int) -> None:
    model = Model()
    batches = Batches(model.decode, model.answer, most=4, threads=threads)

    async def together() -> list[Answer]:
        model.gate.clear()
        asked = [asyncio.create_task(batches.ask(Query(title=str(n)), 1 + n % 5)) for n in range(20)]
        await asyncio.sleep(0)  # all have asked
        model.gate.set()
        return await asyncio.gather(*asked)

    for n, answer in enumerate(model.run(together())):
        assert [ranked.label for ranked in answer.ranked] == [str(n)] * (1 + n % 5)
    assert sum(model.sizes) == 20
    assert max(model.sizes) == 4


def test_a_bad_question_is_its_own_fault_and_a_bug_that_of_the_batch() -> None:
    model = Model()
    batches = Batches(model.decode, model.answer, most=8, threads=1)

    async def several(*titles: str) -> list[Any]:
        model.begun.clear()
        model.gate.clear()
        first = asyncio.create_task(batches.ask(Query(title="first"), 1))
        while not model.begun.is_set():
            await asyncio.sleep(0.001)
        asked = [asyncio.create_task(batches.ask(Query(title=title), 1)) for title in titles]
        await asyncio.sleep(0)  # all have asked
        model.gate.set()
        return (await asyncio.gather(first, *asked, return_exceptions=True))[1:]

    async def conversation() -> None:
        bad, good = await several("bad", "good")
        assert isinstance(bad, BadImage)
        assert good.ranked[0].label == "good"
        assert [type(each) for each in await several("bug", "with it")] == [RuntimeError, RuntimeError]
        assert [each.ranked[0].label for each in await several("later")] == ["later"]

    model.run(conversation())


def test_who_left_is_not_answered() -> None:
    model = Model()
    batches = Batches(model.decode, model.answer, most=8, threads=1)

    async def conversation() -> None:
        model.gate.clear()
        first = asyncio.create_task(batches.ask(Query(title="first"), 1))
        while not model.begun.is_set():
            await asyncio.sleep(0.001)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await batches.ask(Query(title="gone"), 1)
        last = asyncio.create_task(batches.ask(Query(title="last"), 1))
        await asyncio.sleep(0)  # all have asked
        model.gate.set()
        await asyncio.gather(first, last)

    model.run(conversation())
    assert sum(model.sizes) == 2


def test_what_waits_is_answered_before_the_threads_end() -> None:
    model = Model()
    batches = Batches(model.decode, model.answer, most=2, threads=2)

    async def conversation() -> list[Answer]:
        model.gate.clear()
        asked = [asyncio.create_task(batches.ask(Query(title=str(n)), 1)) for n in range(9)]
        await asyncio.sleep(0)  # all have asked
        batches.close()
        model.gate.set()
        return await asyncio.gather(*asked)

    assert len(model.run(conversation())) == 9
    for thread in batches.threads:
        thread.join(10)
        assert not thread.is_alive()
