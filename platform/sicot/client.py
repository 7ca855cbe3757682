"""Asking an endpoint from Python.

    from sicot.client import Client

    with Client("http://127.0.0.1:8000", key="...") as shop:
        answer = shop.recognize("photo.jpg", title="red ceramic teapot")
        print(answer.ranked[0].label, answer.model.version)

:class:`AsyncClient` has the same methods, to be awaited. Both ask again, after a while that grows, where the endpoint
is full or away; a question changes nothing there, and to enrol the same product twice is to enrol it once, so asking
twice does no harm. To withdraw one is asked once. Needs no PyTorch and no Ray.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from sicot.endpoint.schema import VISITOR, About, Change, Error, Found, Kept, Recognition
from sicot.feedback import Outcome

AGAIN = (429, 502, 503, 504)
"""Answers that say: later."""
SHORT = 1000
"""Bytes of words that go into the address; more, each of which takes three there, are sent as a form."""
PATIENCE = 150.0
"""Seconds that a change may take: it waits for others, and all replicas share what makes it."""
LONGEST = 10.0
"""Seconds that are waited at most before asking again."""


class Refused(Exception):
    """The endpoint does not answer the question: HTTP ``status``, a ``code`` for programs, its ``request_id``."""

    def __init__(self, status: int, code: str, message: str, request_id: str = "") -> None:
        super().__init__(f"{message} ({code}, HTTP {status})")
        self.status, self.code, self.request_id = status, code, request_id


class _Asking:
    """What both clients share: how a question is put, and what an answer means."""

    def __init__(
        self, url: str = "http://127.0.0.1:8000", key: str | None = None, timeout: float = 30.0, retries: int = 4
    ):
        """
        Args:
            url: of the endpoint.
            key: one of its keys, where it has any.
            timeout: seconds for each attempt.
            retries: further attempts where it is full or away.
        """
        self.retries = retries
        self.settings: dict[str, Any] = {
            "base_url": url,
            "timeout": timeout,
            "headers": {"Authorization": f"Bearer {key}"} if key else {},
        }

    def _question(
        self, image: bytes | str | Path | None, title: str, tags: Sequence[str], k: int, visitor: str
    ) -> dict[str, Any]:
        if image is None and not title and not tags:
            raise ValueError("give a photo, a title or tags")
        fields = {"title": title, "tags": list(tags), "k": str(k)}
        headers: dict[str, Any] = {VISITOR: visitor.encode()} if visitor else {}
        question: dict[str, Any] = {"method": "POST", "url": "/v1/recognize", "headers": headers}
        if image is None:
            return {**question, "data": fields}
        photo = _read_photo(image)
        if len(str(fields).encode()) > SHORT:
            return {**question, "data": fields, "files": {"image": ("photo", photo)}}
        # the photo as the body takes the endpoint less time than a form
        headers["Content-Type"] = "application/octet-stream"
        return {**question, "params": fields, "content": photo}

    def _feedback(self, image: bytes | str | Path | None, **fields: str | list[str]) -> dict[str, Any]:
        said: dict[str, Any] = {"method": "POST", "url": "/v1/feedback", "data": fields}
        if image is None:
            return said
        return {**said, "files": {"image": ("photo", _read_photo(image))}}

    def _product(
        self, label: str, photos: Sequence[bytes | str | Path], title: str, tags: Sequence[str]
    ) -> dict[str, Any]:
        if not photos and not title and not tags:
            raise ValueError("give photos, a title or tags")
        fields = {"label": label, "title": title, "tags": list(tags)}
        files = [("image", ("photo", _read_photo(each))) for each in photos]
        return {"method": "POST", "url": "/v1/classes", "data": fields, "files": files, "timeout": PATIENCE}

    def _gone(self, label: str) -> dict[str, Any]:
        return {"method": "DELETE", "url": "/v1/classes", "params": {"label": label}, "timeout": PATIENCE}

    def _attempts(self, question: dict[str, Any]) -> int:
        """Before the last; a product that was withdrawn by an answer that got lost would be missing the next time."""
        return 0 if question["method"] == "DELETE" else self.retries

    def _search(self, q: str, limit: int) -> dict[str, Any]:
        return {"method": "GET", "url": "/v1/classes", "params": {"q": q, "limit": limit}}


def _read_photo(given: bytes | str | Path) -> bytes:
    return given if isinstance(given, bytes) else Path(given).read_bytes()


def _pause(attempt: int, wished: str = "") -> float:
    """Seconds to wait before asking again: longer each time, and as long as the endpoint wishes."""
    grown = random.uniform(0.5, 1.0) * 0.2 * 2**attempt  # not all clients at once
    return min(max(grown, float(wished) if wished.isdecimal() else 0.0), LONGEST)


def _read(reply: httpx.Response) -> bytes:
    """The body of an answer. :class:`Refused` if it is none."""
    if reply.is_success:
        return reply.content
    try:
        said = Error.model_validate_json(reply.content)
    except ValueError:  # not from the endpoint itself
        raise Refused(reply.status_code, "no_answer", reply.text[:200] or reply.reason_phrase) from None
    raise Refused(reply.status_code, said.error.code, said.error.message, said.request_id)


class Client(_Asking):
    """Asks, and waits for the answer. Use it with ``with``, or :meth:`close` it."""

    @cached_property
    def http(self) -> httpx.Client:
        """The connections."""
        return httpx.Client(**self.settings)

    def recognize(
        self,
        image: bytes | str | Path | None = None,
        title: str = "",
        tags: Sequence[str] = (),
        k: int = 5,
        visitor: str = "",
    ) -> Recognition:
        """The ``k`` most likely products for a photo (its bytes or file), for words, or for both.

        A ``visitor``, called as you like, is always answered by the same model where a challenger is tried.

        Raises:
            Refused: the endpoint says why not.
            httpx.TransportError: it does not answer at all.
            ValueError: there is nothing to ask about.
        """
        return Recognition.model_validate_json(self._ask(self._question(image, title, tags, k, visitor)))

    def feedback(
        self,
        request_id: str,
        outcome: Outcome,
        label: str = "",
        image: bytes | str | Path | None = None,
        title: str = "",
        tags: Sequence[str] = (),
    ) -> Kept:
        """Say what became of the answer with this ``request_id``; saying it twice does no harm.

        A correction names the right ``label``; with the photo (its bytes or file), title and tags that were asked
        about, the next model can learn from it. Raises what :meth:`recognize` raises, ValueError apart.
        """
        question = self._feedback(
            image, request_id=request_id, outcome=outcome, label=label, title=title, tags=list(tags)
        )
        return Kept.model_validate_json(self._ask(question))

    def model(self) -> About:
        """The model that is served. Raises what :meth:`recognize` raises."""
        return About.model_validate_json(self._ask({"method": "GET", "url": "/v1/model"}))

    def enrol(
        self, label: str, photos: Sequence[bytes | str | Path] = (), title: str = "", tags: Sequence[str] = ()
    ) -> Change:
        """Enrol a product by photos (their bytes or files), words, or both; the key needs the right `enrol`.

        Raises what :meth:`recognize` raises.
        """
        return Change.model_validate_json(self._ask(self._product(label, photos, title, tags)))

    def withdraw(self, label: str) -> Change:
        """Take an enrolled product back; the key needs the right `enrol`. Raises what :meth:`recognize` raises."""
        return Change.model_validate_json(self._ask(self._gone(label)))

    def classes(self, q: str = "", limit: int = 20) -> Found:
        """The products whose label has ``q`` in it, at most 100 of them. Raises what :meth:`recognize` raises."""
        return Found.model_validate_json(self._ask(self._search(q, limit)))

    def _ask(self, question: dict[str, Any]) -> bytes:
        for attempt in range(self._attempts(question)):
            with suppress(httpx.TransportError):
                reply = self.http.request(**question)
                if reply.status_code not in AGAIN:
                    return _read(reply)
                time.sleep(_pause(attempt, reply.headers.get("retry-after", "")))
                continue
            time.sleep(_pause(attempt))
        return _read(self.http.request(**question))

    def close(self) -> None:
        """Close the connections."""
        self.http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class AsyncClient(_Asking):
    """:class:`Client` for ``asyncio``. Use it with ``async with``, or :meth:`close` it."""

    @cached_property
    def http(self) -> httpx.AsyncClient:
        """The connections."""
        return httpx.AsyncClient(**self.settings)

    async def recognize(
        self,
        image: bytes | str | Path | None = None,
        title: str = "",
        tags: Sequence[str] = (),
        k: int = 5,
        visitor: str = "",
    ) -> Recognition:
        """See :meth:`Client.recognize`."""
        return Recognition.model_validate_json(await self._ask(self._question(image, title, tags, k, visitor)))

    async def feedback(
        self,
        request_id: str,
        outcome: Outcome,
        label: str = "",
        image: bytes | str | Path | None = None,
        title: str = "",
        tags: Sequence[str] = (),
    ) -> Kept:
        """See :meth:`Client.feedback`."""
        question = self._feedback(
            image, request_id=request_id, outcome=outcome, label=label, title=title, tags=list(tags)
        )
        return Kept.model_validate_json(await self._ask(question))

    async def model(self) -> About:
        """See :meth:`Client.model`."""
        return About.model_validate_json(await self._ask({"method": "GET", "url": "/v1/model"}))

    async def enrol(
        self, label: str, photos: Sequence[bytes | str | Path] = (), title: str = "", tags: Sequence[str] = ()
    ) -> Change:
        """See :meth:`Client.enrol`."""
        return Change.model_validate_json(await self._ask(self._product(label, photos, title, tags)))

    async def withdraw(self, label: str) -> Change:
        """See :meth:`Client.withdraw`."""
        return Change.model_validate_json(await self._ask(self._gone(label)))

    async def classes(self, q: str = "", limit: int = 20) -> Found:
        """See :meth:`Client.classes`."""
        return Found.model_validate_json(await self._ask(self._search(q, limit)))

    async def _ask(self, question: dict[str, Any]) -> bytes:
        for attempt in range(self._attempts(question)):
            with suppress(httpx.TransportError):
                reply = await self.http.request(**question)
                if reply.status_code not in AGAIN:
                    return _read(reply)
                await asyncio.sleep(_pause(attempt, reply.headers.get("retry-after", "")))
                continue
            await asyncio.sleep(_pause(attempt))
        return _read(await self.http.request(**question))

    async def close(self) -> None:
        """Close the connections."""
        await self.http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()
