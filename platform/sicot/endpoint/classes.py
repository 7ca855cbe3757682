"""The products that the model knows: find them, enrol new ones while it is served, withdraw them again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import FastAPI, Query, Request

from sicot import bundle, config, enrol
from sicot.endpoint import body, errors, keys, schema
from sicot.endpoint.errors import Problem
from sicot.errors import UserError
from sicot.model.imprint import PER_CLASS
from sicot.prepare.images import BadImage

if TYPE_CHECKING:
    from sicot.endpoint.api import Model, Models, Places

WAITING = 4
"""Changes that a process holds at a time, the one that is made among them, and searches; more are answered 503."""
SECONDS = 120.0
"""Changes are made one after the other, for all processes; who has waited so long is answered 503."""
RETRY_AFTER = 5


class Away(UserError):
    """What registers models does not answer."""


def add(app: FastAPI, models: Models, settings: config.Serve, changes: Places, searches: Places) -> None:
    """Add the routes; there are so many places for changes and for searches."""
    replies: dict[int | str, dict[str, Any]] = {
        status: errors.RESPONSES[status] for status in (401, 403, 422, 500, 503)
    }
    told = replies | _described(
        {
            403: "`no_right`: the key may not enrol, or a page from elsewhere asked. `no_keys`: as everywhere.",
            409: "`conflict`: the model was trained on this label, looks its classes up in an index, or knows as many "
            "products as it can; or what is served is a folder or a fixed version instead of an alias.",
            503: "`full`: too many changes are waiting. `slow`: it may still be made. `away`: the registry of models "
            "does not answer. Try again after `Retry-After` seconds: to enrol the same twice does no harm.",
        }
    )

    @app.post(
        "/v1/classes",
        tags=["classes"],
        status_code=201,
        responses=told | {status: errors.RESPONSES[status] for status in (400, 408, 413, 415)},
        openapi_extra=_form(settings),
    )
    async def enrol_product(request: Request) -> schema.Change:
        """Enrol a product by a few photos, words, or both, without training. Needs the right `enrol`.

        Send a form with `label`, `image` for each photo, `title` and `tags`. When the answer comes, this replica knows
        the product, the others within seconds. A product that was enrolled before is known by what is given now.
        """
        keys.require(request, "enrol")
        async with changes.take():
            photos, product = await body.read_form(request, settings.max_enrol_bytes, schema.Product, PER_CLASS)
            said = [bundle.Query(photo, product.title, tuple(product.tags)) for photo in photos or (None,)]
            change = models.enrol(product.label, said, _who(request))
            return _changed(product.label, await _made(change))

    @app.delete(
        "/v1/classes",
        tags=["classes"],
        responses=told | _described({404: "`not_enrolled`: there is no such product, or the model was trained on it."}),
    )
    async def withdraw_product(
        request: Request, label: Annotated[schema.Label, Query(description="The product.")]
    ) -> schema.Change:
        """Take an enrolled product back. Needs the right `enrol`."""
        keys.require(request, "enrol")
        async with changes.take():
            return _changed(label, await _made(models.withdraw(label, _who(request))))

    @app.get("/v1/classes", tags=["classes"], responses=replies)
    async def find_classes(
        q: Annotated[str, Query(max_length=300, description="A part of the label; none finds all.")] = "",
        limit: Annotated[int, Query(ge=1, le=schema.MAX_CLASSES, description="Most to answer with.")] = 20,
    ) -> schema.Found:
        """The products whose label has `q` in it, in either case: those that begin with it, then the others."""
        async with searches.take():
            model = models.now
            total, found = await asyncio.to_thread(model.find, q, limit)
            return schema.Found(model=named(model), total=total, classes=found)


def named(model: Model) -> schema.Model:
    """The model as answers name it."""
    return schema.Model(name=model.info.name, version=model.version, digest=model.info.digest)


def _changed(label: str, model: Model) -> schema.Change:
    return schema.Change(label=label, model=named(model), enrolled=model.info.enrolled)


def _who(request: Request) -> str:
    """The name of the key, for the registry; without keys it is this machine."""
    return getattr(request.state, "holder", "this machine")


async def _made(change: Awaitable[Model]) -> Model:
    """The model after a change. :class:`Problem` if it was not made, or not in time."""
    try:
        async with asyncio.timeout(SECONDS):
            return await change
    except TimeoutError as error:
        raise _later("slow", f"not done within {SECONDS:g} seconds: try again in a moment") from error
    except Away as error:
        raise _later("away", str(error)) from error
    except enrol.Absent as error:
        raise Problem(404, "not_enrolled", str(error)) from error
    except enrol.Conflict as error:
        raise Problem(409, "conflict", str(error)) from error
    except (BadImage, UserError) as error:
        raise errors.bad_query(error) from error


def _later(code: str, message: str) -> Problem:
    return Problem(503, code, message, {"Retry-After": str(RETRY_AFTER)})


def _described(texts: dict[int, str]) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": schema.Error, "description": text} for status, text in texts.items()}


def _form(settings: config.Serve) -> dict[str, Any]:
    """The OpenAPI description of the form."""
    photo = {"type": "string", "format": "binary"}
    photos = {"type": "array", "items": photo, "maxItems": PER_CLASS, "description": "The field once for each photo."}
    fields = {"image": photos, **schema.Product.model_json_schema()["properties"]}
    form = {
        "type": "object",
        "properties": fields,
        "required": ["label"],
        "description": f"At most {settings.max_enrol_bytes:,} bytes.",
    }
    words = {**form, "properties": {name: field for name, field in fields.items() if name != "image"}}
    content = {"multipart/form-data": {"schema": form}, "application/x-www-form-urlencoded": {"schema": words}}
    return {"requestBody": {"required": True, "content": content}}
