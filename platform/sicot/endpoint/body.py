"""Reading a request: never more of it than allowed, and in time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from pydantic import ValidationError
from starlette.datastructures import ImmutableMultiDict, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from sicot.endpoint.errors import Problem, bad_field
from sicot.endpoint.schema import Fields, Words

SECONDS = 30.0
"""A body that takes longer to arrive is given up: slow senders must not keep others out."""
FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")
Read = TypeVar("Read")
Said = TypeVar("Said", bound=Words)


async def read(request: Request, max_bytes: int) -> tuple[bytes | None, Fields]:
    """Photo and fields of a request: a form, or the photo as the body with the fields in the query.

    :class:`Problem` 400, 408, 413, 415 or 422. Reading stops at ``max_bytes``, whatever the header promised.
    """
    counted = _limited(request, max_bytes)

    async def photo_and_fields() -> tuple[bytes | None, Fields]:
        kind = _kind(request)
        if kind in FORMS:
            photos, fields = await _form(counted, Fields, 1)
            return photos[0] if photos else None, fields
        if kind.startswith("image/") or kind == "application/octet-stream":
            return await counted.body(), _fields(request.query_params, Fields)
        raise Problem(415, "body_type", "send multipart/form-data with an image, or the photo itself as image/jpeg")

    return await _in_time(photo_and_fields)


async def read_form(request: Request, max_bytes: int, kind: type[Said], max_photos: int) -> tuple[list[bytes], Said]:
    """Photos and fields of a form; :class:`Problem` as by :func:`read`."""
    if _kind(request) not in FORMS:
        raise Problem(415, "body_type", "send a form: multipart/form-data, or urlencoded where there is no photo")
    counted = _limited(request, max_bytes)
    return await _in_time(lambda: _form(counted, kind, max_photos))


def _kind(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _in_time(read: Callable[[], Awaitable[Read]]) -> Read:
    try:
        async with asyncio.timeout(SECONDS):
            return await read()
    except TimeoutError as error:
        raise Problem(408, "timeout", f"the body did not arrive within {SECONDS:g} seconds") from error
    except ClientDisconnect as error:
        raise Problem(400, "bad_body", "the body ended early") from error


def _limited(request: Request, max_bytes: int) -> Request:
    """The same request, whose body cannot be read beyond ``max_bytes``."""
    problem = Problem(413, "body_too_large", f"the body is larger than the {max_bytes:,} bytes allowed")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > max_bytes:
        raise problem
    seen = 0

    async def receive() -> Message:
        nonlocal seen
        message = await request.receive()
        seen += len(message.get("body", b""))
        if seen > max_bytes:
            raise problem
        return message

    return Request(request.scope, receive)


async def _form(request: Request, kind: type[Said], max_photos: int) -> tuple[list[bytes], Said]:
    try:
        async with request.form(max_files=max_photos, max_fields=100) as form:
            photos = []
            for photo in form.getlist("image"):
                if isinstance(photo, UploadFile):
                    if photo.filename or photo.size:  # else it is a browser's file field that was left empty
                        photos.append(await photo.read())
                elif photo:
                    raise Problem(422, "bad_field", "image: must be a file")
            return photos, _fields(
                ImmutableMultiDict([item for item in form.multi_items() if item[0] != "image"]), kind
            )
    except Problem:
        raise
    except (MultiPartException, HTTPException) as error:
        raise Problem(400, "bad_body", "the form cannot be parsed, or has too many parts") from error


def _fields(given: ImmutableMultiDict[str, Any], kind: type[Said]) -> Said:
    """Validated fields; 422 for one that is unknown, given twice, a file, or out of range."""
    values: dict[str, Any] = {}
    for name in given:
        several = given.getlist(name)
        if name != "tags" and len(several) > 1:
            raise Problem(422, "bad_field", f"{name}: given more than once")
        if any(isinstance(value, UploadFile) for value in several):
            raise Problem(422, "bad_field", f"{name}: must be text, not a file")
        values[name] = several if name == "tags" else several[0]
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise bad_field(error, kind.model_fields) from error
