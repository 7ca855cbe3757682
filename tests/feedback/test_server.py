"""PostgreSQL is killed under an endpoint that answers: nothing that was acknowledged is lost, and answers go on."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter

import httpx
import pytest
import sqlalchemy as sa

from sicot.endpoint import journal
from sicot.feedback.store import ANSWER, FEEDBACK, Store
from tests.feedback.conftest import Server
from tests.serve.test_api import LIMITS, Recorded, refusal, talk

pytestmark = pytest.mark.system


def test_a_server_that_is_killed_costs_errors_while_it_is_down_and_nothing_that_was_acknowledged(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "LONGEST", 0.5)
    monkeypatch.setattr(journal, "PAUSE", 0.05)
    url = server.fresh("killed")
    kept: set[str] = set()
    answered: set[str] = set()

    async def one(client: httpx.AsyncClient, name: str) -> int:
        answer = await client.post("/v1/recognize", data={"title": "x"}, headers={"x-request-id": name})
        assert answer.status_code == 200  # whatever becomes of the database
        answered.add(name)
        reply = await client.post("/v1/feedback", data={"request_id": name, "outcome": "accepted"})
        if reply.status_code == 201:
            kept.add(name)
        else:
            assert refusal(reply) == (503, "away")
        return reply.status_code

    async def some(client: httpx.AsyncClient, name: str, count: int) -> Counter[int]:
        met: Counter[int] = Counter()
        for n in range(0, count, 2):
            met.update(await asyncio.gather(*(one(client, f"{name}-{n + m}") for m in range(2))))
        return met

    async def conversation(client: httpx.AsyncClient) -> None:
        for round in range(3):
            assert await some(client, f"before-{round}", 20) == {201: 20}
            under_way = asyncio.create_task(some(client, f"meanwhile-{round}", 60))
            await asyncio.sleep(0.05)
            await asyncio.to_thread(server.stop, signal.SIGKILL)
            assert (await some(client, f"down-{round}", 4))[503] == 4
            await asyncio.to_thread(server.start)
            await under_way
            assert await some(client, f"after-{round}", 20) == {201: 20}
        for _ in range(200):
            if not missing(url, ANSWER, answered):
                break
            await asyncio.sleep(0.1)

    talk(Recorded(), conversation, LIMITS.model_copy(update={"feedback": url, "max_queue": 50}))
    assert missing(url, FEEDBACK, kept) == set()
    assert missing(url, ANSWER, answered) == set()


def missing(url: str, table: sa.Table, names: set[str]) -> set[str]:
    store = Store(url)
    found = {row.request_id for row in store.rows(sa.select(table.c.request_id))}
    store.close()
    return names - found
