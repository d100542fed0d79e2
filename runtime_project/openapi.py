"""The OpenAPI document and its page: what REST framework knows of itself, plus the streams and the errors."""

from __future__ import annotations

import threading
from functools import cache
from typing import Any

from django.utils.translation import override
from drf_spectacular.drainage import GENERATOR_STATS
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.settings import patched_settings
from drf_spectacular.views import SpectacularSwaggerView
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response

from runtime_project import openapi_examples, openapi_streams
from sessions_app.api import RESTView
from sessions_app.conf import settings

METHODS = ("get", "post", "patch", "put", "delete")
NO_KEY: list[dict[str, list[str]]] = [{}]
_making = threading.Lock()


class GateScheme(OpenApiAuthenticationExtension):  # type: ignore[misc]
    target_class = "runtime_project.rest.GateAuthentication"
    name = "key"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "apiKey", "in": "header", "name": "X-Internal-Auth"}


TOKEN = {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}


def document() -> dict[str, Any]:
    """The whole document; made on first need, once a process."""
    with _making:
        return _made()


@cache
def _made() -> dict[str, Any]:
    with override("en"), GENERATOR_STATS.silence(), patched_settings({"OAS_VERSION": "3.1.0"}):
        return complete(SchemaGenerator(urlconf="runtime_project.urls").get_schema(request=None, public=True))


def complete(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """Adds what only we know; works as a postprocessing hook of drf-spectacular, too."""
    result["paths"].update(openapi_streams.paths())
    result["components"].setdefault("schemas", {}).update({**ERROR_SCHEMAS, **openapi_streams.schemas()})
    if settings.JWT_JWKS_URL:
        result["components"].setdefault("securitySchemes", {})["token"] = TOKEN
    for path, item in result["paths"].items():
        for method in METHODS:
            if method in item:
                _finish(path, method, item[method])
    return result


def _finish(path: str, method: str, operation: dict[str, Any]) -> None:
    operation["operationId"] = f"{method} {path}"
    operation["tags"] = [_tag(path)]
    public = path.startswith("/health")
    operation["security"] = NO_KEY if public else [{"key": []}, *([{"token": []}] if settings.JWT_JWKS_URL else [])]
    openapi_examples.add(path, method, operation)
    for status in () if public else _statuses(path, operation):
        operation["responses"].setdefault(status, ERRORS[status])


def _tag(path: str) -> str:
    first = path.removeprefix("/api/v1").strip("/").split("/")[0]
    return f"{first} (v1)" if path.startswith("/api/v1/") else first


def _statuses(path: str, operation: dict[str, Any]) -> list[str]:
    """The errors an operation may answer with, beside its own."""
    takes = {parameter["in"] for parameter in operation.get("parameters", ())}
    names = {parameter["name"] for parameter in operation.get("parameters", ())}
    body = "requestBody" in operation
    busy = (path.startswith("/api/v1/") and path.endswith("/stream")) or path.endswith("/retry")
    found = ["401", "413", "429", "503"]
    found += ["400"] if {"limit", "offset", "after"} & names or path.endswith(("/switch", "/message/stream")) else []
    found += ["404"] if "path" in takes else []
    found += ["409"] if busy or (body and not path.endswith("/stream")) else []
    return found + (["422"] if "query" in takes or body else [])


def _error(description: str, example: Any, schema: str = "Error") -> dict[str, Any]:
    body = {"schema": {"$ref": f"#/components/schemas/{schema}"}, "example": example}
    return {"description": description, "content": {"application/json": body}}


FIELD_ERROR = {"loc": ["body", "session_id"], "msg": "Not a valid string.", "type": "invalid"}
ERRORS = {
    "400": _error("A value that cannot be.", {"detail": "limit: Ensure this value is less than or equal to 1000."}),
    "401": _error("No key, or a wrong one.", {"detail": "unauthorized"}),
    "404": _error("Nothing has this id.", {"detail": "Session 42 not found", "code": "SESSION_NOT_FOUND"}),
    "409": _error(
        "The state does not allow it.", {"detail": "Session 42 already exists", "code": "SESSION_ALREADY_EXISTS"}
    ),
    "413": _error("The body is too large.", {"detail": "The body is larger than 16777216 bytes."}),
    "422": _error("A field is missing or of the wrong type, or the body is no JSON.", {"detail": [FIELD_ERROR]}),
    "429": _error(
        "Over the rate limit; see Retry-After.",
        {"error": "Too many requests", "limit": 600, "window": "1 minute", "retry_after": 12},
        "TooManyRequests",
    ),
    "503": _error(
        "Try again; see Retry-After.",
        {"detail": "The storage is not available right now. Please try again.", "code": "STORAGE_UNAVAILABLE"},
    ),
}
ERROR_SCHEMAS: dict[str, Any] = {
    "FieldError": {
        "type": "object",
        "required": ["loc", "msg", "type"],
        "properties": {
            "loc": {"type": "array", "items": {"oneOf": [{"type": "string"}, {"type": "integer"}]}},
            "msg": {"type": "string"},
            "type": {"type": "string"},
        },
    },
    "Error": {
        "type": "object",
        "required": ["detail"],
        "properties": {
            "detail": {
                "oneOf": [
                    {"type": "string"},
                    {"type": "array", "items": {"$ref": "#/components/schemas/FieldError"}},
                ]
            },
            "code": {"type": "string", "description": "Stable, where the domain refused."},
            "metadata": {"type": "object", "description": "More about it: of a lost race, who won and when."},
        },
    },
    "TooManyRequests": {
        "type": "object",
        "required": ["error", "limit", "window", "retry_after"],
        "properties": {
            "error": {"type": "string"},
            "limit": {"type": "integer"},
            "window": {"type": "string"},
            "retry_after": {"type": "integer"},
        },
    },
}


class Document(RESTView):
    """The OpenAPI document."""

    authentication_classes = ()
    permission_classes = (AllowAny,)
    schema = None

    def get(self, request: Request) -> Response:
        return Response(document())


class Docs(SpectacularSwaggerView):  # type: ignore[misc]
    """The document as a page; its assets are served from here."""

    url = "/openapi.json"
