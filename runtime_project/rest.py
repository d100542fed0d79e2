"""REST framework as the contract wants it: JSON in, JSON out, one shape of error, the caller known from the gate."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.views import defaults
from rest_framework import exceptions, status
from rest_framework.authentication import BaseAuthentication
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from sessions_app import database, strict_json
from sessions_app.errors import RuntimeFault

RETRY_AFTER_SECONDS = 2
OUT_OF_RANGE = frozenset({"min_value", "max_value"})


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever the gate let in."""

    name: str
    is_authenticated = True


class GateAuthentication(BaseAuthentication):
    """The gate has checked the key before Django; here its verdict is only read."""

    def authenticate(self, request: Request) -> tuple[Caller, None]:
        principal = getattr(request._request, "scope", {}).get("principal")
        if principal is None:
            raise exceptions.NotAuthenticated
        return Caller(principal.name), None

    def authenticate_header(self, request: Request) -> str:
        return "X-Internal-Auth"


class StrictJSONParser(BaseParser):
    """Every body is JSON, whatever its Content-Type says."""

    media_type = "application/json"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> Any:
        try:
            return strict_json.loads(stream.read())
        except ValueError as error:
            raise UnreadableBody(str(error)) from error


class UnreadableBody(exceptions.APIException):
    status_code = status.HTTP_422_UNPROCESSABLE_ENTITY


class AlwaysJSON(BaseContentNegotiation):
    """One parser, one renderer: neither Content-Type nor Accept can be wrong."""

    def select_parser(self, request: Request, parsers: Iterable[BaseParser]) -> BaseParser:
        return next(iter(parsers))

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        renderer = next(iter(renderers))
        return renderer, str(renderer.media_type)


# --- errors ------------------------------------------------------------------------------------------------------


def as_json(error: Exception, context: dict[str, Any]) -> Response | None:
    """REST framework's exception handler; None (an unknown error) becomes `server_error`."""
    if isinstance(error, database.UNAVAILABLE):
        error = database.unavailable(error)
    return _response(error, context["request"])


def _response(error: Exception, request: Request) -> Response | None:
    if isinstance(error, RuntimeFault):
        headers = {"Retry-After": str(RETRY_AFTER_SECONDS)} if error.retryable else {}
        return Response(error.body(), error.status, headers=headers)
    if isinstance(error, exceptions.ValidationError):
        return _invalid(error, "query" if request.method in ("GET", "HEAD") else "body")
    if isinstance(error, exceptions.NotAuthenticated | exceptions.AuthenticationFailed):
        return Response({"detail": "unauthorized"}, status.HTTP_401_UNAUTHORIZED)
    if isinstance(error, Http404):
        return Response({"detail": "Not found"}, status.HTTP_404_NOT_FOUND)
    if isinstance(error, PermissionDenied):
        return Response({"detail": "Forbidden"}, status.HTTP_403_FORBIDDEN)
    if isinstance(error, exceptions.APIException):
        return Response({"detail": error.detail}, error.status_code)
    return None


def _invalid(error: exceptions.ValidationError, where: str) -> Response:
    """422 with the list of fields; a number in the query string that is merely out of range is a 400."""
    fields = list(_fields(error.detail, [where]))
    if where == "query" and fields and all(field["type"] in OUT_OF_RANGE for field in fields):
        texts = (f"{field['loc'][-1]}: {field['msg']}" for field in fields)
        return Response({"detail": " ".join(texts)}, status.HTTP_400_BAD_REQUEST)
    return Response({"detail": fields}, status.HTTP_422_UNPROCESSABLE_ENTITY)


def _fields(detail: Any, where: list[str | int]) -> Iterator[dict[str, Any]]:
    if isinstance(detail, dict):
        for name, inner in detail.items():
            yield from _fields(inner, where if name == "non_field_errors" else [*where, name])
    elif isinstance(detail, list):
        for inner in detail:
            yield from _fields(inner, where)
    else:
        yield {"loc": where, "msg": str(detail), "type": getattr(detail, "code", "invalid")}


def _page(text: str, code: int) -> HttpResponse:
    return HttpResponse(strict_json.dumps_bytes({"detail": text}), content_type="application/json", status=code)


def _for_people(request: HttpRequest) -> bool:
    return request.path.startswith("/admin/")


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _page("Bad request", 400)


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    return defaults.permission_denied(request, exception) if _for_people(request) else _page("Forbidden", 403)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    return defaults.page_not_found(request, exception) if _for_people(request) else _page("Not found", 404)


def server_error(request: HttpRequest) -> HttpResponse:
    return defaults.server_error(request) if _for_people(request) else _page("Internal error", 500)
