"""Who may ask, and what: whoever has one of the endpoint's keys, or, where it has none, this machine alone.

A key is sent as ``Authorization: Bearer <key>``, or as the password of basic authentication, which browsers ask for by
themselves; the name is free. Only SHA-256 of keys are kept, which is enough since keys are random, not thought up.

Every key may recognise; to change what others are answered it needs a right, which stands behind its hash. This machine
needs none where there are no keys: who works on it may run the jobs, too. A page from elsewhere may never change
anything, whatever key its browser has: browsers send keys and reach their own machine without asking who sits there.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import hmac
import ipaddress
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from sicot import storage
from sicot.endpoint import errors
from sicot.endpoint.errors import Problem
from sicot.errors import UserError

VARIABLE = "SICOT_KEYS"
OPEN = ("/healthz", "/readyz")
"""Who watches over the endpoint needs no key."""
RIGHTS = {"enrol": "enrol products and withdraw them"}
"""What a key may do beside recognising, if its line says so."""
LINE = re.compile(r"(?P<name>[\w.-]{1,64}) sha256:(?P<hash>[0-9a-f]{64})(?P<rights>( [a-z]+)*)")


@dataclass(frozen=True)
class Keys:
    """SHA-256 and rights of keys, by name."""

    hashes: dict[str, str]
    rights: dict[str, frozenset[str]] = field(default_factory=dict)

    @classmethod
    def read(cls, place: str | None) -> Keys:
        """The keys of a file (path or URI), or of the environment variable `VARIABLE`; none if there is neither.

        Raises:
            UserError: there is no such file, it names no key, a line of it is none, or there is no such right.
        """
        if place is None and VARIABLE not in os.environ:
            return cls({})
        try:
            text = storage.read_bytes(place).decode() if place else os.environ[VARIABLE]
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"serve.keys: {place} cannot be read: python -m jobs.key makes such a file") from error
        hashes, rights = {}, {}
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            found = LINE.fullmatch(line.strip())
            if not found or found["name"] in hashes:
                why = "names a key twice" if found else "is not `<name> sha256:<64 hexadecimal digits> [right ...]`"
                raise UserError(f"serve.keys: line {number} of {place or VARIABLE} {why}")
            hashes[found["name"]], rights[found["name"]] = found["hash"], frozenset(found["rights"].split())
            if unknown := rights[found["name"]] - RIGHTS.keys():
                why = f"gives the right {min(unknown)}: there is only {', '.join(RIGHTS)}"
                raise UserError(f"serve.keys: line {number} of {place or VARIABLE} {why}")
        if not hashes:
            raise UserError(f"serve.keys: {place or VARIABLE} names no key: python -m jobs.key adds one")
        return cls(hashes, rights)

    def holder(self, authorization: str) -> str | None:
        """Name of the key that a header gives; None if it is none of ours. Takes as long whichever it is."""
        kind, _, given = authorization.partition(" ")
        if kind.lower() == "basic":
            try:
                given = base64.b64decode(given, validate=True).decode().partition(":")[2]
            except (binascii.Error, UnicodeDecodeError):
                return None
        elif kind.lower() != "bearer":
            return None
        mine, found = digest(given.strip()), None
        for name, theirs in self.hashes.items():
            if hmac.compare_digest(mine, theirs):
                found = name
        return found


def add(name: str, place: str, rights: Sequence[str] = ()) -> str:
    """A fresh key, whose SHA-256 goes to the file (path or URI) under ``name``, with these of `RIGHTS`.

    Raises:
        UserError: the file has a key of this name or is none of keys, or the name cannot stand in one.
    """
    key = secrets.token_urlsafe(32)
    line = " ".join([f"{name} sha256:{digest(key)}", *rights])
    if not LINE.fullmatch(line):
        raise UserError(f"{name!r} is no name for a key: letters, digits, '.', '_' and '-', at most 64")
    place = place if "://" in place else os.path.abspath(place)
    before = storage.read_bytes(place) if storage.exists(place) else b""
    if before.strip() and name in Keys.read(place).hashes:
        raise UserError(f"{place} has a key called {name}: choose another name, or take its line out first")
    storage.write_bytes(place, before.rstrip(b"\n") + b"\n" * bool(before.strip()) + line.encode() + b"\n")
    return key


def require(request: Request, right: str) -> None:
    """See to it that who sent a request has a right. :class:`Problem` 403 if not, or if another site's page sent it."""
    if right not in request.state.rights:
        raise Problem(403, "no_right", f"this key may not {RIGHTS[right]}: python -m jobs.key makes one that may")
    require_here(request, RIGHTS[right])


def require_here(request: Request, what: str) -> None:
    """See to it that no page of another site sent a request. :class:`Problem` 403 that it may not do ``what``."""
    if not _from_here(request.headers):
        raise Problem(403, "no_right", f"a page from elsewhere may not {what}")


def _from_here(headers: Mapping[str, str]) -> bool:
    """Whether a request comes from a program or from our own page.

    Browsers say where a page is from: the newer ones whether that is here, all of them which site it is.
    """
    if site := headers.get("sec-fetch-site"):
        return site in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is None or origin.partition("://")[2] == headers.get("host")


def digest(key: str) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(key.encode()).hexdigest()


@functools.lru_cache(1000)
def is_loopback(host: str) -> bool:
    """Whether an address is one that only this machine reaches."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _name(host: str) -> str:
    """Of a Host header, without the port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


class Gate:
    """Lets in who has a key."""

    def __init__(self, app: ASGIApp, keys: Keys):
        self.app, self.keys = app, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401 or 403."""
        app = self.app
        if scope["type"] == "http" and scope["path"].removeprefix(scope.get("root_path", "")) not in OPEN:
            app = self._refusal(scope) or app
        await app(scope, receive, send)

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        """What to answer who may not ask."""
        headers, request_id = Headers(scope=scope), scope["state"]["request_id"]
        if not self.keys.hashes:
            # a page from elsewhere can make a browser on this machine ask, but not under this machine's name
            if is_loopback((scope.get("client") or ("",))[0]) and is_loopback(_name(headers.get("host", ""))):
                scope["state"]["rights"] = frozenset(RIGHTS)
                return None
            message = "this endpoint has no keys, so it answers its own machine alone: give it serve.keys"
            return errors.answer(request_id, 403, "no_keys", message)
        holder = self.keys.holder(headers.get("authorization", ""))
        if holder is None:
            ask = {"WWW-Authenticate": 'Basic realm="sicot", charset="UTF-8"'}
            message = "send a key of this endpoint: Authorization: Bearer <key>"
            return errors.answer(request_id, 401, "unauthorized", message, ask)
        scope["state"].update(holder=holder, rights=self.keys.rights.get(holder, frozenset()))
        return None
