"""The least that Ray Serve does for a request."""

from __future__ import annotations

from fastapi import FastAPI, Request, Response

from sicot import config
from sicot.endpoint import body


class Echo:
    """Reads bodies as the endpoint does, and sends them back."""

    def __init__(self, settings: config.Serve):
        self.settings = settings

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Ray Serve calls this."""
        app = FastAPI()

        @app.post("/v1/recognize")
        async def echo(request: Request) -> Response:
            photo, _ = await body.read(request, self.settings.max_bytes)
            return Response(photo)

        return app
