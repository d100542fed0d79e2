"""Whatever the OpenAPI document allows, and what it does not, is answered as it says, and never with a 5xx."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as bounded
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from runtime_project.openapi import document
from tests import talk
from tests.conftest import KEY, RunningServer
from tests.flows.test_openapi import fits
from tests.model_replies import text
from tests.model_server import ModelServer
from tests.sessions_app import told

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
# The ways in below the root and below /api/v1 lead to the same functions: the second are asked more.
EXAMPLES_AT_ROOT, EXAMPLES_IN_V1 = 2, 6
OPERATIONS = sorted((path, method) for path, item in document()["paths"].items() for method in item)


@pytest.fixture
def schema(server: RunningServer, settings: Any, model: ModelServer) -> Any:
    settings.RATE_LIMIT_PER_MINUTE = settings.SESSION_RATE_LIMIT_PER_MINUTE = 0
    settings.QUEUE_WAIT_SECONDS = 1
    model.always(text("hello"))
    told.session("0")  # what generated ids are likely to be
    found = schemathesis.openapi.from_dict(document())
    found.config.update(base_url=server.url)
    return found


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_every_operation_stands_what_is_generated(schema: Any, path: str, method: str) -> None:
    operation = schema[path][method.upper()]
    modes = st.one_of(*(operation.as_strategy(generation_mode=mode) for mode in GenerationMode))

    @bounded(
        max_examples=EXAMPLES_IN_V1 if path.startswith("/api/v1") else EXAMPLES_AT_ROOT,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=modes)
    def ask(case: Any) -> None:
        if path.endswith("/stream") and method == "get":
            case.query["follow"] = "false"  # else it stays open, as it should
        answer = case.call(headers={"X-Internal-Auth": KEY}, timeout=30)
        if answer.headers.get("content-type", [""])[0].startswith("text/event-stream"):
            case.validate_response(
                answer, checks=[check for check in CHECKS if check is not response_schema_conformance]
            )
            described = document()["paths"][path][method]["responses"]["200"]["content"]["text/event-stream"]
            for frame in talk.parse(answer.content).frames:  # the document tells what `data:` holds
                fits(frame, described["schema"])
        else:
            case.validate_response(answer, checks=CHECKS)

    ask()


# What generators seldom find: values that a database, a clock or a number's column cannot hold.
BEYOND = [
    "a%00b", "%ff%fe", "%ed%a0%80", "9" * 400, "-1", "NaN", "99999999999999999999",
    "2026-99-99T00:00", "0001-01-01T00:00:00%2B23:59", "9999-12-31T23:59:59-23:59", "'", "%25", "_", "%5C",
]  # fmt: skip


def test_no_parameter_takes_the_server_beyond_what_it_can_hold(schema: Any, client: httpx.Client) -> None:
    asked = 0
    for path, item in document()["paths"].items():
        names = [one["name"] for one in item.get("get", {}).get("parameters", ()) if one["in"] == "query"]
        address = path.replace("{session_id}", "0").replace("{run_id}", "1")
        for name in names if path.startswith("/api/v1") else ():
            for value in BEYOND:
                answer = client.get(f"{address}?{name}={value}&follow=false")
                assert answer.status_code in (200, 400, 404, 422), (address, name, value)
                asked += 1
    assert asked > 400


@pytest.mark.parametrize("name", ["%00", "%ff", "..", "%2e%2e", "x" * 5000, "%0a", "%E2%80%AE", "a%2F..%2Fb"])
def test_no_name_of_a_session_takes_it_there_either(client: httpx.Client, name: str) -> None:
    ways = {"GET": ("", "/history", "/stream?follow=false"), "DELETE": ("",), "POST": ("/cancel", "/retry")}
    for method, paths in ways.items():
        for path in paths:
            assert client.request(method, f"/api/v1/sessions/{name}{path}").status_code in (404, 405), path
