"""How a request goes wrong: one shape for every error, with a word for programs and a sentence for people."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from sicot.endpoint.schema import Error
from sicot.errors import UserError
from sicot.prepare.images import BadImage

ERRORS: dict[int, str] = {
    400: "`image_unreadable`: the photo is damaged or empty. `bad_body`: the form cannot be parsed.",
    401: "`unauthorized`: the endpoint has keys, and the request none of them.",
    403: "`no_keys`: the endpoint has no keys and answers its own machine alone. `no_right`: the key may "
    "not do this, or a page from elsewhere asked.",
    408: "`timeout`: the body did not arrive in time.",
    413: "`body_too_large` or `image_too_large`: more bytes or pixels than `/v1/model` allows.",
    415: "`image_type`: no photo format the model reads. `body_type`: neither a form nor an image.",
    422: "`bad_field`: a field is unknown, missing or out of range; the message names it.",
    500: "`internal`: a bug of ours; `request_id` finds it in the log.",
    503: "`full`: too many requests are waiting. `slow`: no answer in time. Try again after `Retry-After` seconds.",
}
STATUS = {"image_too_large": 413, "image_type": 415}
"""HTTP status of a bad photo by its reason; 400 for the others."""
RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": Error, "description": text} for status, text in ERRORS.items()
}


class Problem(HTTPException):
    """A request that cannot be answered: HTTP status, a code for programs, a message for people."""

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(status, message, headers)
        self.code = code


class Refusal(JSONResponse):
    """An error as a response; leaves its code in the request's state, for who counts them."""

    def __init__(self, request_id: str, status: int, code: str, message: str, headers: Any = None):
        super().__init__({"request_id": request_id, "error": {"code": code, "message": message}}, status, headers)
        self.code = code

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        scope["state"]["code"] = self.code
        await super().__call__(scope, receive, send)


def bad_field(error: ValidationError, names: Iterable[str]) -> Problem:
    """The first thing that is wrong with the fields, of which there are these."""
    first = error.errors()[0]
    if not first["loc"]:  # ours, and it names the field
        return Problem(422, "bad_field", first["msg"].removeprefix("Value error, "))
    name = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        return Problem(422, "bad_field", f"{name}: there is no such field; there are image, {', '.join(names)}")
    return Problem(422, "bad_field", f"{name}: {first['msg']}")


def bad_query(error: BadImage | UserError) -> Problem:
    """What the model cannot make anything of."""
    if isinstance(error, UserError):
        return Problem(422, "bad_field", str(error))
    code = error.reason if error.reason in STATUS else "image_unreadable"
    return Problem(STATUS.get(error.reason, 400), code, f"image: {error}")


def answer(request_id: str, status: int, code: str, message: str, headers: Any = None) -> JSONResponse:
    """The error as a response."""
    return Refusal(request_id, status, code, message, headers)


def install(app: FastAPI) -> None:
    """Make every error of ``app`` JSON, those of the framework too; requests have their id in ``state``."""

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        code = error.code if isinstance(error, Problem) else HTTPStatus(error.status_code).name.lower()
        return answer(request.state.request_id, error.status_code, code, str(error.detail), error.headers)

    @app.exception_handler(RequestValidationError)
    async def _parameter(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return answer(request.state.request_id, 422, "bad_field", f"{first['loc'][-1]}: {first['msg']}")
