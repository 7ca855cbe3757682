"""The route that takes what people say of answers, and keeps it before it says so."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from sqlalchemy.exc import SQLAlchemyError

from sicot import config
from sicot.endpoint import body, errors, keys, schema
from sicot.endpoint.errors import Problem
from sicot.endpoint.journal import Journal
from sicot.enrolled import SIDE
from sicot.feedback import store
from sicot.feedback.store import Feedback, Store
from sicot.prepare import images

if TYPE_CHECKING:
    from sicot.endpoint.api import Models, Places

log = logging.getLogger(__name__)

PLACES = 16
"""Pieces of feedback a replica deals with at a time: a database that hangs must not hold more."""
RETRY_AFTER = 5
RESPONSES: dict[int | str, dict[str, Any]] = {
    **{status: told for status, told in errors.RESPONSES.items() if status != 503},
    503: {
        "model": schema.Error,
        "description": "`away`: the database does not take it now. `full`: too much feedback is waiting. Nothing was "
        "kept, or it was and nobody can tell: send the same again after `Retry-After` seconds, it counts once.",
    },
}


def add(app: FastAPI, models: Models, settings: config.Serve, journal: Journal | None, free: Places) -> None:
    """Give the application the route, where answers are kept."""
    if journal is None:
        return
    kept = journal.store

    @app.post(
        "/v1/feedback", tags=["feedback"], status_code=201, openapi_extra=_request_body(settings), responses=RESPONSES
    )
    async def feedback(request: Request) -> schema.Kept:
        """Say what became of an answer.

        Of one answer counts the last verdict, `accepted` or `corrected`, and whether it was `converted`; the same
        said twice counts once. Feedback may come before the answer itself is in the database, and counts from then on.
        A photo is kept with a correction, made small and without its metadata.
        """
        keys.require_here(request, "say what became of answers")
        async with free.take():
            photos, said = await body.read_form(request, settings.max_bytes, schema.Feedback, 1)
            photo = photos[0] if photos else None
            told = Feedback(said.request_id, time.time(), said.outcome, said.label.strip() or None)
            try:
                async with asyncio.timeout(settings.max_seconds):
                    await asyncio.to_thread(_keep, kept, told, photo, said, models.now.info.images)
            except images.BadImage as error:
                raise errors.bad_query(error) from error
            except (SQLAlchemyError, TimeoutError) as error:
                why = store.line(error) if isinstance(error, SQLAlchemyError) else "no answer in time"
                log.error("feedback on %s is not kept: %s: %s", request.state.request_id, kept.name, why)
                message = "the database of feedback does not answer: send the same again in a moment"
                raise Problem(503, "away", message, {"Retry-After": str(RETRY_AFTER)}) from error
        return schema.Kept(request_id=said.request_id, outcome=said.outcome)


def _keep(kept: Store, told: Feedback, photo: bytes | None, said: schema.Feedback, read: config.Images) -> None:
    """Beside the event loop. Raises BadImage or SQLAlchemyError."""
    if said.outcome == "corrected":
        square = images.decode(photo, read.model_copy(update={"size": SIDE})) if photo is not None else None
        shown = images.encode(square, read.quality) if square is not None else None
        told = Feedback(told.request_id, told.time, told.outcome, told.label, shown, said.title, tuple(said.tags))
    kept.keep(told)


def _request_body(settings: config.Serve) -> dict[str, Any]:
    """The OpenAPI description of the form."""
    described = schema.Feedback.model_json_schema()
    photo = {"type": "string", "format": "binary", "description": f"The photo, at most {settings.max_bytes:,} bytes."}
    form = {
        "type": "object",
        "properties": {"image": photo, **described["properties"]},
        "required": described["required"],
    }
    example = {"request_id": schema.EXAMPLE["request_id"], "outcome": "corrected", "label": "red enamel kettle"}
    content = {kind: {"schema": {**form, "example": example}} for kind in body.FORMS}
    return {"requestBody": {"required": True, "content": content}}
