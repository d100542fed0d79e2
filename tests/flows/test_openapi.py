"""The OpenAPI document tells the truth: what the server answers fits it, and its examples fit themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema  # type: ignore[import-untyped]
import pytest
from drf_spectacular.drainage import GENERATOR_STATS
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.validation import validate_schema

from runtime_project.openapi import document
from sessions_app import services
from tests.sessions_app import told


def test_the_document_is_public_and_valid(server: Any) -> None:
    answer = httpx.get(f"{server.url}/openapi.json", headers={"Accept": "text/html"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    found = answer.json()
    assert found["openapi"].startswith("3.1")
    assert found["components"]["securitySchemes"] == {
        "key": {"type": "apiKey", "in": "header", "name": "X-Internal-Auth"}
    }
    validate_schema(found)


# Django warns that a file was read by a synchronous iterator.
@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume synchronous iterators:Warning")
def test_the_page_is_public_and_takes_nothing_from_elsewhere(server: Any) -> None:
    page = httpx.get(f"{server.url}/docs")
    assert (page.status_code, page.headers["content-type"].split(";")[0]) == (200, "text/html")
    assert "/openapi.json" in page.text
    assets = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert assets
    assert all(asset.startswith("/static/") for asset in assets)
    for asset in assets:
        assert httpx.get(server.url + asset).status_code == 200


def test_the_generator_has_nothing_to_complain_about() -> None:
    with GENERATOR_STATS.silence():
        SchemaGenerator(urlconf="runtime_project.urls").get_schema(request=None, public=True)
    assert not GENERATOR_STATS._warn_cache
    assert not GENERATOR_STATS._error_cache


PATHS = [
    "/health", "/sessions", "/sessions/{session_id}", "/sessions/{session_id}/history",
    "/sessions/{session_id}/pending-approvals", "/sessions/{session_id}/cancel", "/sessions/{session_id}/retry",
    "/sessions/{session_id}/stream", "/agents", "/agents/{session_id}/current", "/agents/{session_id}/switch",
    "/events/metrics", "/events/metrics/session/{session_id}", "/events/metrics/sessions", "/events/audit-log",
    "/events/stats", "/agent/message/stream",
]  # fmt: skip


def test_every_path_of_the_contract_is_described_at_both_roots() -> None:
    for path in PATHS:
        assert path in document()["paths"]
        assert f"/api/v1{path}" in document()["paths"]


def operations() -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in document()["paths"].items():
        for method, operation in item.items():
            yield f"{method} {path}", operation


def test_every_operation_says_what_it_does_and_how_it_refuses() -> None:
    seen = set()
    for name, operation in operations():
        assert operation["summary"], name
        seen.add(operation["operationId"])
        if not name.startswith("get /health"):
            assert {"401", "413", "429", "503"} <= set(operation["responses"]), name
            assert ("404" in operation["responses"]) == ("{" in name), name
    assert len(seen) == len(list(operations()))


def fits(value: Any, schema: dict[str, Any]) -> None:
    """Raises when `value` is not what `schema` says; a schema of the document may refer to its components."""
    whole = {**schema, "components": document()["components"]}
    jsonschema.Draft202012Validator(whole, format_checker=jsonschema.FormatChecker()).validate(value)


def test_every_example_fits_its_schema() -> None:
    checked = 0
    for _name, operation in operations():
        bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
        for content in (content for body in bodies for content in body.get("content", {}).values()):
            examples = [one["value"] for one in content.get("examples", {}).values()]
            examples += [content["example"]] if "example" in content else []
            for example in examples:
                for value in _frames(example) if isinstance(example, str) else [example]:
                    fits(value, content["schema"])
                    checked += 1
    assert checked > 200


def _frames(stream: str) -> Iterator[Any]:
    for line in stream.splitlines():
        if line.startswith("data: "):
            yield httpx.Response(200, text=line.removeprefix("data: ")).json()


ANSWERS = [
    ("get", "/health", 200),
    ("get", "/health/live", 200),
    ("get", "/health/ready", 200),
    ("post", "/sessions", 201),
    ("get", "/sessions", 200),
    ("get", "/sessions/{session_id}", 200),
    ("get", "/sessions/{session_id}?include_messages=true", 200),
    ("patch", "/sessions/{session_id}", 200),
    ("get", "/sessions/{session_id}/history", 200),
    ("get", "/sessions/{session_id}/pending-approvals", 200),
    ("post", "/sessions/{session_id}/cancel", 200),
    ("get", "/agents", 200),
    ("get", "/agents/{session_id}/current", 200),
    ("get", "/agents/{session_id}/current?include_history=true", 200),
    ("get", "/events/metrics", 200),
    ("get", "/events/metrics/session/{session_id}", 200),
    ("get", "/events/metrics/sessions", 200),
    ("get", "/events/audit-log", 200),
    ("get", "/events/stats", 200),
    ("get", "/sessions?limit=0", 400),
    ("get", "/sessions?limit=x", 422),
    ("get", "/api/v1/sessions/{session_id}/messages", 200),
    ("get", "/api/v1/sessions/{session_id}/events", 200),
    ("get", "/api/v1/runs", 200),
    ("get", "/api/v1/tool-calls", 200),
    ("get", "/api/v1/approvals", 200),
]


@pytest.mark.parametrize(("method", "path", "status"), ANSWERS)
def test_what_is_answered_is_what_is_described(client: httpx.Client, method: str, path: str, status: int) -> None:
    told.session()
    services.create_session("silent")
    answer = client.request(method, path.replace("{session_id}", "told"))
    assert answer.status_code == status, answer.text
    described = document()["paths"][path.split("?")[0]][method]["responses"][str(status)]
    fits(answer.json(), described["content"]["application/json"]["schema"])


@pytest.mark.parametrize("path", ["/sessions/nobody", "/events/metrics/session/nobody"])
def test_what_is_not_found_is_described(client: httpx.Client, path: str) -> None:
    described = document()["paths"][path.replace("nobody", "{session_id}")]["get"]["responses"]["404"]
    fits(client.get(path).json(), described["content"]["application/json"]["schema"])
