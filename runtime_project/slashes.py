"""A session's id may hold slashes. In a request's path an encoded one (`%2F`) belongs to the id, and a plain one may
divide: so `/sessions/x%2Fhistory` is the session `x/history`, and `/sessions/x/history` the history of `x`."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from django.core.handlers.asgi import ASGIHandler, ASGIRequest
from django.urls.converters import PathConverter

from runtime_project.origin import Scope
from sessions_app.session_ids import SLASH, from_path


def routed(scope: Scope) -> str:
    """The path to find a route for: as the server decoded it, but for the encoded slashes, which stay apart."""
    path = str(scope["path"])
    raw = scope.get("raw_path") or b""
    if b"%2f" not in raw.lower():
        return path
    kept = "/".join(unquote(part.decode("latin-1")).replace("/", SLASH) for part in raw.split(b"/"))
    return kept if from_path(kept) == path else path


class SessionIdConverter(PathConverter):
    """`<session:session_id>` in a route."""

    def to_python(self, value: str) -> str:
        return from_path(value)

    def to_url(self, value: Any) -> str:
        return str(value)


class Request(ASGIRequest):
    def __init__(self, scope: Any, body_file: Any) -> None:
        super().__init__(scope, body_file)
        self.path_info = routed(scope).removeprefix(self.script_name or "")


class Handler(ASGIHandler):
    request_class = Request
