"""The endpoint by gRPC. A call is put to the web application as the request it would have been, within this process:
keys, limits, arms, figures and errors are the same, and are written once."""

from __future__ import annotations

import ipaddress
import json
from typing import Any
from urllib.parse import urlencode

import grpc
import httpx
from fastapi import FastAPI
from google.protobuf.json_format import ParseDict
from ray.serve.grpc_util import RayServegRPCContext

from sicot import config
from sicot.endpoint.schema import VISITOR
from sicot.rpc.recognizer_pb2 import Query, Recognition

SERVICERS = ["sicot.rpc.recognizer_pb2_grpc.add_RecognizerServicer_to_server"]
PASSED_ON = ("authorization", VISITOR.lower(), "x-request-id")
"""Metadata that says what a request's header says."""
CODES = {
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
}
"""What an HTTP status means here; INVALID_ARGUMENT for the others."""


def options(settings: config.Serve) -> dict[str, Any] | None:
    """Ray Serve's options for gRPC; None where it is not asked for."""
    if settings.grpc_port is None:
        return None
    return {"port": settings.grpc_port, "grpc_servicer_functions": SERVICERS, "enable_reflection": False}


async def recognize(app: FastAPI, query: Query, context: RayServegRPCContext) -> Recognition:
    """Ask the application. What it refuses is an empty answer, with the status in the context."""
    fields: dict[str, Any] = {"title": query.title, "tags": list(query.tags)}
    if query.HasField("k"):
        fields["k"] = query.k
    given = dict(context.invocation_metadata())
    headers = {name: given[name] for name in PASSED_ON if name in given}
    if query.image:
        body: dict[str, Any] = {"params": fields, "content": query.image}
        headers["content-type"] = "application/octet-stream"
    else:
        body = {"content": urlencode(fields, doseq=True)}
        headers["content-type"] = "application/x-www-form-urlencoded"
    # the name that a browser would be kept out by; none of them speaks gRPC
    request = httpx.Request("POST", "http://127.0.0.1/v1/recognize", headers=headers, **body)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=(_address(context.peer()), 0))
    reply = await transport.handle_async_request(request)
    said = json.loads(await reply.aread())
    if reply.status_code == 200:
        return ParseDict(said, Recognition())
    context.set_code(CODES.get(reply.status_code, grpc.StatusCode.INVALID_ARGUMENT))
    context.set_details(said["error"]["message"])
    trailing = {"x-error-code": said["error"]["code"], "x-request-id": said["request_id"]}
    context.set_trailing_metadata([*context.trailing_metadata(), *trailing.items()])
    return Recognition()


def _address(peer: str) -> str:
    """Who called, of gRPC's `ipv4:127.0.0.1:4711` or `ipv6:[::1]:4711`, its brackets written as %5B and %5D."""
    name = peer.partition(":")[2].rpartition(":")[0].replace("%5B", "").replace("%5D", "").strip("[]")
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name
    return str(getattr(address, "ipv4_mapped", None) or address)
