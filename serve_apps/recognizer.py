"""The endpoint, by Ray Serve.

    serve run serve_apps.recognizer:app                            the champion, at http://127.0.0.1:8000
    serve run serve_apps.recognizer:app model=models:/sicot/3      another model, or the folder of a bundle
    serve deploy serve_apps/local.yaml                             on a cluster that is up

Arguments are the settings of `sicot.config.Serve` but host and port, which are Ray Serve's own, and `tracking_uri`.
Without them SICOT_MODEL and MLFLOW_TRACKING_URI are read from the environment.
"""

from __future__ import annotations

import os
from typing import Any

from pydantic import ValidationError
from ray import serve
from ray.serve import Application

from sicot import config, registry
from sicot.endpoint import replica, server
from sicot.errors import UserError

RETRY_AFTER_S = 1.0


def build(args: dict[str, Any]) -> Application:
    """The application for these arguments. :class:`UserError` names the one that is wrong, or the missing model."""
    given = {"model": os.environ.get("SICOT_MODEL", config.Serve().model), **args}
    tracking_uri = given.pop("tracking_uri", None) or os.environ.get("MLFLOW_TRACKING_URI") or config.Job().tracking_uri
    if given.keys() & {"host", "port"}:
        raise UserError("host and port are Ray Serve's: give them as http_options of the Serve config")
    try:
        settings = config.Serve(**given)
    except ValidationError as error:
        raise UserError(config.say(error)) from None
    # The replica itself sends away who finds no place, in JSON; Serve's own queue, in plain text, is a second wall.
    places = settings.max_batch + settings.max_queue
    deployment = serve.deployment(
        serve.ingress()(replica.Replica),
        name="recognizer",
        num_replicas=settings.replicas,
        max_ongoing_requests=4 * places,
        max_queued_requests=places,
        backpressure_config={"status_code": 503, "retry_after_s": RETRY_AFTER_S},
    )
    settings.model = registry.pin(settings.model, tracking_uri)  # so that all replicas serve one version
    return deployment.bind(settings, tracking_uri, page="serve_apps")


app = build
"""What `serve run` and `serve deploy` import: they call it with the arguments."""


def start(settings: config.Serve, tracking_uri: str) -> str:
    """Serve on the Ray session that is up and return the URL, ready to be asked.

    Raises:
        UserError: there is no such model, or the port cannot be opened.
    """
    built = build({**settings.model_dump(exclude={"host", "port"}), "tracking_uri": tracking_uri})
    url = server.listen(settings)
    server.deploy(built)
    return url
