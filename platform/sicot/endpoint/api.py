"""The web application: routes, admission, headers. It knows nothing of Ray; :class:`Model` does the work."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol, cast

from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse
from fastapi.routing import APIRoute
from fastapi.staticfiles import StaticFiles
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sicot import __version__, bundle, config
from sicot.endpoint import arms, body, classes, errors, feedback, journal, pictures, schema
from sicot.endpoint.errors import Problem
from sicot.endpoint.keys import Gate, Keys
from sicot.endpoint.telemetry import Telemetry
from sicot.errors import UserError
from sicot.prepare.images import BadImage

log = logging.getLogger(__name__)

HEADERS = [
    (name.lower().encode(), value.encode())
    for name, value in {
        "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "geolocation=(), microphone=()",
    }.items()
]
RETRY_AFTER = 1


class Model(Protocol):
    """A model that answers."""

    info: bundle.Info
    version: str
    """Version in the registry, or ""."""

    async def recognise(self, query: bundle.Query, k: int) -> bundle.Answer:
        """Raises BadImage, or UserError where there is nothing to go by."""
        ...

    def find(self, part: str, most: int) -> tuple[int, list[schema.Known]]:
        """How many labels have this in them, and the first of those."""
        ...

    def thumbnail(self, label: str) -> bytes | None:
        """A small photo of a class, JPEG; None if there is none."""
        ...


class Models(Protocol):
    """What the application asks of the model's side."""

    @property
    def now(self) -> Model:
        """The model that answers now; another one may at any time."""
        ...

    @property
    def challenger(self) -> Model | None:
        """The one that is tried now, if there is one; asked for where the settings name one."""
        ...

    async def enrol(self, label: str, queries: Sequence[bundle.Query], who: str) -> Model:
        """The model that also knows a product, once it answers; see :func:`sicot.enrol.enrol` for what is raised.

        Conflict also where the model cannot change, Away where the registry does not answer.
        """
        ...

    async def withdraw(self, label: str, who: str) -> Model:
        """The model without an enrolled product, once it answers. Raises Absent, and as :meth:`enrol` does."""
        ...


def places(settings: config.Serve) -> int:
    """How many requests a replica holds: those that are answered, and those that wait."""
    return settings.threads * settings.max_batch + settings.max_queue


class Places:
    """The free places; who finds none is sent away at once."""

    def __init__(self, count: int) -> None:
        self.count = count

    @asynccontextmanager
    async def take(self) -> AsyncIterator[None]:
        """One place for the length of the block. :class:`Problem` 503 if there is none."""
        if not self.count:
            message = "too many requests are waiting: try again in a moment"
            raise Problem(503, "full", message, {"Retry-After": str(RETRY_AFTER)})
        self.count -= 1
        try:
            yield
        finally:
            self.count += 1


class Direct(APIRoute):
    """A route whose function takes the request as it came and gives the response: FastAPI only describes it."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The function itself."""
        return cast(Callable[[Request], Coroutine[Any, Any, Response]], self.endpoint)


def create(models: Models, settings: config.Serve, page: Path, telemetry: Telemetry | None = None) -> FastAPI:
    """The application that answers through ``models`` within the limits of ``settings``; ``page`` is its web page.

    ``telemetry`` takes note of what is asked.

    :class:`UserError` if the file of keys is none.
    """
    written = journal.of(settings)
    app = FastAPI(
        lifespan=journal.closing(written),
        title="sicot",
        version=__version__,
        description="Recognise products from a photo, from words, or from both.",
        docs_url=None,
        redoc_url=None,
    )
    app.add_middleware(Gate, keys=Keys.read(settings.keys))
    telemetry = telemetry or Telemetry(settings)
    app.add_middleware(Envelope, telemetry=telemetry)
    errors.install(app)
    free = Places(places(settings))
    feedback.add(app, models, settings, written, Places(feedback.PLACES))

    async def recognize(request: Request) -> Response:
        """Rank the classes for a photo, for words, or for both.

        Send a form with `image`, `title`, `tags` and `k`, or the photo itself as the body with the other
        fields in the query. A photo, or words that the catalogue uses, must be there.
        """
        start = time.perf_counter()
        async with free.take():
            photo, fields = await body.read(request, settings.max_bytes)
            telemetry.took("read", time.perf_counter() - start)
            visitor = arms.visitor(request.headers)
            # not before: the body may have taken longer than the model stays
            arm, model = arms.choose(models, settings, visitor or request.state.request_id)
            limits = _limits(settings, models.now.info)
            if fields.k > limits.max_k:
                raise Problem(422, "bad_field", f"k: must be at most {limits.max_k}")
            if photo is None and not fields.title.strip() and not fields.tags:
                raise Problem(422, "bad_field", "image: send a photo, a title or tags")
            query = bundle.Query(photo, fields.title, tuple(fields.tags))
            answer = await _answered(model, query, fields.k, settings.max_seconds)
        journal.note(written, request.state.request_id, arm, model, visitor, answer)
        said = schema.Recognition(
            request_id=request.state.request_id,
            model=classes.named(model),
            arm=arm,
            milliseconds=round((time.perf_counter() - start) * 1000, 1),
            ranked=[schema.Class(**vars(each)) for each in answer.ranked],
            score=answer.score,
            unknown=answer.unknown,
            words=[schema.Word(**vars(each)) for each in answer.words],
            no_word=answer.no_word,
        )
        return Response(said.model_dump_json(), media_type="application/json")  # FastAPI would validate it once more

    app.router.add_api_route(
        "/v1/recognize",
        recognize,
        methods=["POST"],
        tags=["recognize"],
        openapi_extra=request_body(_limits(settings, models.now.info)),
        response_model=schema.Recognition,
        responses={200: {"content": {"application/json": {"example": schema.EXAMPLE}}}, **errors.RESPONSES},
        route_class_override=Direct,
    )

    @app.get("/v1/model", tags=["about"], responses={status: errors.RESPONSES[status] for status in (401, 403, 500)})
    async def about() -> schema.About:
        """The model that is served, how well it did, and what a request may not exceed."""
        model = models.now
        info = model.info
        return schema.About(
            **classes.named(model).model_dump(),
            created=info.created,
            classes=info.classes + info.enrolled,
            vocabulary=info.vocabulary,
            threshold=info.threshold,
            index=info.index,
            metrics=info.metrics,
            limits=_limits(settings, info),
            feedback=written is not None,
            challenger=classes.named(rival) if (rival := arms.rival(models, settings)) else None,
        )

    classes.add(app, models, settings, Places(classes.WAITING), Places(classes.WAITING))
    pictures.add(app, models)

    @app.get("/healthz", tags=["health"])
    async def healthz() -> schema.Status:
        """The process lives."""
        return schema.Status(status="ok")

    @app.get("/readyz", tags=["health"], responses={503: {"model": schema.Status, "description": "No free place."}})
    async def readyz(response: Response) -> schema.Status:
        """The model is loaded and a request would find a place."""
        response.status_code = 200 if free.count else 503
        return schema.Status(status="ready" if free.count else "full")

    @app.get("/", include_in_schema=False)
    async def index() -> FileResponse:
        return FileResponse(page / "index.html")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> FileResponse:
        return FileResponse(page / "docs.html")

    app.mount("/page", StaticFiles(directory=page), name="page")
    return app


def _limits(settings: config.Serve, info: bundle.Info) -> schema.Limits:
    return schema.Limits(
        max_bytes=settings.max_bytes,
        max_pixels=min(settings.max_pixels, info.images.max_pixels),
        max_k=min(settings.max_k, info.ranks) if info.index else settings.max_k,
    )


async def _answered(model: Model, query: bundle.Query, k: int, seconds: float) -> bundle.Answer:
    try:
        async with asyncio.timeout(seconds):
            return await model.recognise(query, k)
    except TimeoutError as error:
        message = f"no answer within {seconds:g} seconds: try again in a moment"
        raise Problem(503, "slow", message, {"Retry-After": str(RETRY_AFTER)}) from error
    except (BadImage, UserError) as error:
        raise errors.bad_query(error) from error


class Envelope:
    """Gives every request an id and every response `HEADERS`; answers for our bugs, whose traceback is only logged.

    Starlette's own handler of last resort stands outside all middleware: its responses would go without the headers.
    """

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self.app, self.telemetry = app, telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        given = Headers(scope=scope).get("x-request-id")
        request_id = given or str(uuid.uuid4())
        scope["state"] = {**scope.get("state", {}), "request_id": request_id}
        begun, status = time.perf_counter(), 0

        async def with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] += HEADERS
                headers = MutableHeaders(scope=message)
                headers.setdefault("Cache-Control", "no-cache" if "etag" in headers else "no-store")
                if not given:  # who gave one, like Ray Serve's proxy, answers with it
                    headers["X-Request-ID"] = request_id
            await send(message)

        try:
            await self.app(scope, receive, with_headers)
        except Exception:
            said = {"event": "failed", "request_id": request_id}
            log.exception("request %s failed: %s %r", request_id, scope["method"], scope["path"], extra=said)
            if status:
                raise
            response = errors.answer(request_id, 500, "internal", "something went wrong on our side")
            await response(scope, receive, with_headers)
        finally:
            self.telemetry.request(scope, status, time.perf_counter() - begun)


def request_body(limits: schema.Limits) -> dict[str, Any]:
    """The OpenAPI description of what :func:`sicot.endpoint.body.read` reads."""
    fields = schema.Fields.model_json_schema()["properties"]
    fields["k"]["maximum"] = limits.max_k
    photo = {"type": "string", "format": "binary", "description": f"The photo, at most {limits.max_bytes:,} bytes."}
    examples = {"title": "红色 陶瓷 茶壶 red ceramic teapot", "tags": ["kitchen", "茶具"], "k": 5}
    form = {"type": "object", "properties": {"image": photo, **fields}, "example": {"image": "photo.jpg", **examples}}
    return {
        "requestBody": {
            "required": True,
            "content": {"multipart/form-data": {"schema": form}, "image/*": {"schema": photo}},
        },
        "parameters": [
            {"name": name, "in": "query", "schema": field, "description": "With the photo as the body only."}
            for name, field in fields.items()
        ]
        + [arms.PARAMETER],
    }
