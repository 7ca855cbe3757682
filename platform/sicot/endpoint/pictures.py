"""What the products look like: a small photo of each, for the page and for other people's."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response

from sicot.endpoint import errors, schema
from sicot.endpoint.errors import Problem

if TYPE_CHECKING:
    from sicot.endpoint.api import Models

FRESH = "private, max-age=600"
"""How long a client may show a photo without asking again; who asks with its ETag is told if it is still the one."""
LABEL = {"type": "string", "minLength": 1, "example": "red ceramic teapot"}
JPEG = {"schema": {"type": "string", "format": "binary"}}
TAG = {"ETag": {"description": "Names the photo.", "schema": {"type": "string"}}}
RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/jpeg": JPEG}, "headers": TAG, "description": "The photo, at most 96 pixels a side."},
    304: {"headers": TAG, "description": "The photo is still the one that If-None-Match names."},
    404: {"model": schema.Error, "description": "`no_photo`: there is no such product, or no photo of it."},
    **{status: errors.RESPONSES[status] for status in (401, 403, 422, 500)},
}


def add(app: FastAPI, models: Models) -> None:
    """Give the application its route for pictures."""

    @app.get(
        "/v1/classes/photo",
        tags=["classes"],
        response_class=Response,
        responses=RESPONSES,
        openapi_extra={"parameters": [{"name": "label", "in": "query", "required": True, "schema": LABEL}]},
    )
    def photo(request: Request) -> Response:
        """A small photo of a product: one that the model was trained on, or that was given when it was enrolled."""
        given = request.query_params.getlist("label")
        if len(given) != 1 or not given[0]:
            raise Problem(422, "bad_field", "label: give it once")
        found = models.now.thumbnail(given[0])
        if found is None:
            raise Problem(404, "no_photo", "there is no such product, or no photo of it")
        headers = {"ETag": f'"{hashlib.sha256(found).hexdigest()[:32]}"', "Cache-Control": FRESH}
        known = [each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")]
        if headers["ETag"] in known or "*" in known:
            return Response(status_code=304, headers=headers)
        return Response(found, media_type="image/jpeg", headers=headers)
