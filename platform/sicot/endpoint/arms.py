"""Who is answered by the challenger: always the same visitors, as many as the settings say."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from starlette.datastructures import Headers

from sicot import config
from sicot.endpoint.errors import Problem
from sicot.endpoint.schema import VISITOR
from sicot.feedback import Arm

if TYPE_CHECKING:
    from sicot.endpoint.api import Model, Models

MAX_VISITOR = 200
PARAMETER = {
    "name": VISITOR,
    "in": "header",
    "schema": {"type": "string", "maxLength": MAX_VISITOR},
    "description": "Who visits, called as you like: the same visitor meets the same model. Only a hash is kept.",
}
"""The header in the OpenAPI description."""


def visitor(headers: Headers) -> str | None:
    """Who visits; None if the request does not say. :class:`Problem` 422 if that is too long."""
    name = headers.get(VISITOR, "").encode("latin-1").decode(errors="replace").strip()  # HTTP knows bytes alone
    if len(name) > MAX_VISITOR:
        raise Problem(422, "bad_field", f"{VISITOR}: at most {MAX_VISITOR} characters")
    return name or None


def rival(models: Models, settings: config.Serve) -> Model | None:
    """The model that is tried, if there is one."""
    return models.challenger if settings.challenger else None


def choose(models: Models, settings: config.Serve, name: str) -> tuple[Arm, Model]:
    """The model for a visitor, or for a request without one by its id, and which of the two it is."""
    tried = rival(models, settings)
    if tried is not None and challenged(name, tried.info.digest, settings.challenger_share):
        return "challenger", tried
    return "champion", models.now


def challenged(name: str, challenger: str, share: float) -> bool:
    """Whether the challenger answers.

    A visitor who is in a small share stays in when the share grows, and is dealt anew with another challenger.

    Args:
        name: of the visitor.
        challenger: digest of the model.
        share: of visitors, in [0, 1].
    """
    drawn = hashlib.sha256(f"{challenger}\n{name}".encode()).digest()[:7]
    return int.from_bytes(drawn) < share * 2**56
