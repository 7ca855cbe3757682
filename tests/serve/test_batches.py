"""Questions that wait together are answered together; each gets its own answer, or its own error."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest

from sicot.bundle import Answer, Item, Query, Ranked
from sicot.endpoint import turns
from sicot.endpoint.batches import LARGE, Batches
from sicot.endpoint.turns import OnThreads
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
        return await asyncio.gather(*(batches.ask(Query(title=each), 1) for each in titles), return_exceptions=True)

    async def conversation() -> None:
        bad, good = await several("bad", "good")
        assert isinstance(bad, BadImage)
        assert good.ranked[0].label == "good"
        assert [type(each) for each in await several("bug", "with it")] == [RuntimeError, RuntimeError]
        assert [each.ranked[0].label for each in await several("later")] == ["later"]

    model.run(conversation())


@pytest.mark.parametrize("threads", [1, 2])
def test_who_left_is_not_answered(threads: int) -> None:
    model = Model()
    batches = Batches(model.decode, model.answer, most=8, threads=threads)

    async def conversation() -> None:
        asked = []
        if threads > 1:  # the loop answers nothing meanwhile in any case
            model.gate.clear()
            for n in range(threads):
                model.begun.clear()
                asked.append(asyncio.create_task(batches.ask(Query(title=str(n)), 1)))
                while not model.begun.is_set():
                    await asyncio.sleep(0.001)
        gone = asyncio.create_task(batches.ask(Query(title="gone"), 1))
        asked.append(asyncio.create_task(batches.ask(Query(title="last"), 1)))
        await asyncio.sleep(0)  # all have asked
        gone.cancel()
        await asyncio.sleep(0)
        model.gate.set()
        await asyncio.gather(*asked)
        assert sum(model.sizes) == len(asked)

    model.run(conversation())


def test_the_loop_is_never_held_for_long() -> None:
    class Slow(Model):
        def answer(self, items: Sequence[Item], k: int) -> list[Answer]:
            time.sleep(0.02 * len(items))
            return super().answer(items, k)

    model = Slow()
    batches = Batches(model.decode, model.answer, most=16, threads=1)

    async def conversation() -> float:
        await batches.ask(Query(title="first"), 1)  # after this it knows how long one takes
        asked = [asyncio.create_task(batches.ask(Query(title="x"), 1)) for _ in range(40)]
        longest = 0.0
        while not all(each.done() for each in asked):
            begun = time.perf_counter()
            await asyncio.sleep(0)
            longest = max(longest, time.perf_counter() - begun)
        return longest

    longest = model.run(conversation())
    assert sum(model.sizes) == 41
    assert max(model.sizes) == 1
    assert longest < 0.16  # a full batch takes twice as long


def test_as_many_as_last_time_are_waited_for_but_not_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model()
    batches = Batches(model.decode, model.answer, most=8, threads=1)

    async def conversation() -> list[float]:
        monkeypatch.setattr(turns, "WAIT", 10.0)
        for late in (False, True):  # those that were answered together ask again, some of them a little later
            asked = []
            for n in range(4):
                asked.append(asyncio.create_task(batches.ask(Query(title="x"), 1)))
                for _ in range(10 if late and n == 2 else 0):
                    await asyncio.sleep(0)
            await asyncio.gather(*asked)
        monkeypatch.setattr(turns, "WAIT", 0.2)
        took = []
        for _ in range(2):
            begun = time.perf_counter()
            await batches.ask(Query(title="alone"), 1)
            took.append(time.perf_counter() - begun)
        return took

    first, second = model.run(conversation())
    assert model.sizes == [4, 4, 1, 1]
    assert second < 0.15 < first


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
    assert isinstance(batches.turns, OnThreads)
    for thread in batches.turns.threads:
        thread.join(10)
        assert not thread.is_alive()
