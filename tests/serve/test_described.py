"""The endpoint does what its description says: requests made from /openapi.json, good and bad ones."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
)


ASKED = ["POST /v1/recognize", "GET /v1/model", "GET /healthz", "GET /readyz", "GET /v1/classes"]
ASKED += ["POST /v1/classes", "DELETE /v1/classes", "GET /v1/classes/photo"]
USUAL = {"POST /v1/recognize": {200, 422}, "GET /v1/classes/photo": {404}}
USUAL |= {"POST /v1/classes": {409, 422}, "DELETE /v1/classes": {409}}
"""What is met beside or instead of 200: no product is called what is made up here, and a folder never changes."""


@pytest.mark.parametrize("asked", ASKED)
def test_every_reply_fits_the_description(endpoint: str, asked: str) -> None:
    description = schemathesis.openapi.from_url(f"{endpoint}/openapi.json")
    method, path = asked.split()
    paths = description.raw_schema["paths"]
    assert {f"{each.upper()} {path}" for path in paths for each in paths[path]} == set(ASKED)  # all of it is asked here
    operation = description[path][method]

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(operation.as_strategy())
    def replies_fit(case: schemathesis.Case) -> None:
        met.add(case.call_and_validate(checks=list(CHECKS)).status_code)

    met: set[int] = set()
    replies_fit()
    assert met >= USUAL.get(asked, {200})
