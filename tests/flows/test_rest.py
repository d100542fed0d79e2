"""What holds for every REST path of the contract, with what programs do wrong."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from django.core.exceptions import PermissionDenied
from django.db import OperationalError
from django.http import Http404, HttpRequest
from rest_framework import exceptions
from rest_framework.request import Request

from runtime_project import rest
from sessions_app import errors, services
from tests.flows.rest_answers import refused


def test_health_needs_no_key(server: Any) -> None:
    body = httpx.get(f"{server.url}/health").json()
    assert set(body) == {"status", "service", "version"}
    assert (body["status"], body["service"]) == ("healthy", "agent-runtime")


@pytest.mark.parametrize("path", ["/sessions", "/agents", "/events/stats", "/sessions/x", "/api/v1/runs"])
@pytest.mark.parametrize("headers", [{}, {"X-Internal-Auth": "wrong"}])
def test_without_the_key_nothing_is_told(server: Any, path: str, headers: dict[str, str]) -> None:
    answer = httpx.get(server.url + path, headers=headers)
    assert (answer.status_code, answer.json()) == (401, {"detail": "unauthorized"})


@pytest.mark.parametrize(
    "path", ["/", "/nothing", "/sessions/", "/health/", "/api/v1", "/api/v2/sessions", "/agents/x"]
)
def test_unknown_paths_are_404_without_a_redirect(client: httpx.Client, path: str) -> None:
    refused(client.get(path), 404)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/sessions"),
        ("DELETE", "/sessions"),
        ("POST", "/health"),
        ("POST", "/sessions/x"),
        ("POST", "/sessions/x/history"),
        ("GET", "/sessions/x/cancel"),
        ("GET", "/agents/x/switch"),
        ("POST", "/agents"),
        ("DELETE", "/events/metrics"),
        ("POST", "/openapi.json"),
    ],
)
def test_wrong_methods_are_405_and_name_the_right_ones(client: httpx.Client, method: str, path: str) -> None:
    answer = client.request(method, path)
    refused(answer, 405)
    assert answer.headers["allow"]


def test_head_and_options_are_answered(client: httpx.Client) -> None:
    services.create_session("mine")
    for path in ("/sessions", "/sessions/mine", "/health", "/agents"):
        head = client.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert client.options(path).headers["content-type"] == "application/json"


def test_programs_read_english_whatever_their_language(client: httpx.Client) -> None:
    russian = {"Accept-Language": "ru"}
    assert refused(client.get("/sessions/nobody", headers=russian), 404) == "Session nobody not found"
    (field,) = refused(client.post("/sessions", json={"session_id": 5}, headers=russian), 422)
    assert field["msg"] == "Not a valid string."
    assert "not allowed" in refused(client.put("/sessions", headers=russian), 405)


def test_any_host_is_served(client: httpx.Client) -> None:
    for host in ("agent-runtime", "agent_runtime:8001", "10.0.0.1"):
        assert client.get("/sessions", headers={"Host": host}).status_code == 200


REQUEST = Request(HttpRequest())


@pytest.mark.parametrize(
    ("error", "status", "body", "again"),
    [
        (OperationalError("database is locked"), 503, "STORAGE_UNAVAILABLE", True),
        (errors.SessionBusy(), 409, "SESSION_BUSY", True),
        (errors.QueueFull(), 429, "QUEUE_FULL", True),
        (errors.SessionInactive(), 409, "SESSION_INACTIVE", False),
        (Http404("x"), 404, "Not found", False),
        (PermissionDenied("x"), 403, "Forbidden", False),
        (exceptions.AuthenticationFailed(), 401, "unauthorized", False),
        (exceptions.UnsupportedMediaType("x"), 415, "Unsupported media type", False),
    ],
)
def test_every_error_has_one_shape(error: Exception, status: int, body: str, again: bool) -> None:
    answer = rest.as_json(error, {"request": REQUEST})
    assert answer is not None
    assert answer.status_code == status
    assert body in str(answer.data)
    assert set(answer.data) <= {"detail", "code"}
    assert ("Retry-After" in answer.headers) is again


def test_an_unknown_error_is_a_500_that_tells_nothing() -> None:
    assert rest.as_json(RuntimeError("secret"), {"request": REQUEST}) is None
    for page, status in (
        (rest.server_error(HttpRequest()), 500),
        (rest.bad_request(HttpRequest(), Exception("x")), 400),
    ):
        assert page.status_code == status
        assert page["Content-Type"] == "application/json"
        assert set(json.loads(page.content)) == {"detail"}


def test_only_the_admin_speaks_html(client: httpx.Client) -> None:
    assert refused(client.get("/admin-of-something"), 404) == "Not found"
    assert client.get("/admin/no/such/page", follow_redirects=True).headers["content-type"].startswith("text/html")


def test_without_the_gate_nobody_is_known() -> None:
    gate = rest.GateAuthentication()
    with pytest.raises(exceptions.NotAuthenticated):
        gate.authenticate(REQUEST)
    assert gate.authenticate_header(REQUEST) == "X-Internal-Auth"
