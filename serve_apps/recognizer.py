"""The endpoint, by Ray Serve.

    serve run serve_apps.recognizer:app                            the champion, at http://127.0.0.1:8000
    serve run serve_apps.recognizer:app model=models:/sicot/3      another model, or the folder of a bundle
    serve deploy serve_apps/local.yaml                             on a cluster that is up

Arguments are the settings of `sicot.config.Serve` (without host and ports, which are Ray Serve's own) and
`tracking_uri`; where they are missing, SICOT_MODEL and MLFLOW_TRACKING_URI are read from the environment.
"""

from __future__ import annotations

import os
from typing import Any

from pydantic import ValidationError
from ray import serve
from ray.serve import Application

from sicot import config, registry
from sicot.endpoint import api, server, teacher
from sicot.endpoint.keys import Keys
from sicot.endpoint.replica import Replica
from sicot.errors import UserError
from sicot.feedback import store


def build(args: dict[str, Any]) -> Application:
    """The application for these arguments. :class:`UserError` names the one that is wrong, or the missing model."""
    given = {"model": os.environ.get("SICOT_MODEL", config.Serve().model), **args}
    tracking_uri = given.pop("tracking_uri", None) or os.environ.get("MLFLOW_TRACKING_URI") or config.Job().tracking_uri
    if given.keys() & server.OWN:
        raise UserError("host, port and grpc_port are Ray Serve's own: give them as its http_options or grpc_options")
    try:
        settings = config.Serve(**given)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{first['loc'][0]}: {first['msg']}") from None
    Keys.read(settings.keys)  # finds out here, once, whether they are keys
    registry.fetch(settings.model, tracking_uri)  # and whether there is such a model
    if settings.challenger and (rival := registry.find(settings.challenger, tracking_uri)):
        registry.fetch(rival, tracking_uri)
    if settings.feedback:
        store.Store.open(settings.feedback).close()
        settings = settings.model_copy(update={"feedback": store.absolute(settings.feedback)})
    places = api.places(settings)
    # A replica itself sends away, in JSON, who finds no place; Ray Serve's own queue, in plain text, is a second wall.
    deploy = serve.deployment(
        name="recognizer",
        num_replicas=settings.replicas,
        ray_actor_options={"num_cpus": settings.threads},
        max_ongoing_requests=4 * places,
        max_queued_requests=places,
        logging_config={  # one JSON object a line; Ray Serve's own news would be a line for each request
            "encoding": "JSON",
            "enable_access_log": settings.access_log,
            "log_level": "INFO" if settings.access_log else "ERROR",
        },
        backpressure_config={"status_code": 503, "retry_after_s": api.RETRY_AFTER},
    )
    return deploy(serve.ingress()(Replica)).bind(
        settings, tracking_uri, "serve_apps", teacher.bind(settings, tracking_uri)
    )


app = build
"""What `serve run` and `serve deploy` import; they call it with their arguments."""


def start(settings: config.Serve, tracking_uri: str) -> str:
    """Serve on the Ray session that is up; returns the URL once it answers.

    Raises:
        UserError: there is no such model, the port cannot be opened, or the cluster is too small.
    """
    application = build({**settings.model_dump(exclude=server.OWN), "tracking_uri": tracking_uri})
    url = server.listen(settings)
    server.deploy(application)
    return url
