"""One line of the log for each request, when it is over: who asked for what, how it ended, how long it took."""

from __future__ import annotations

import logging
import time

from runtime_project.origin import Scope
from sessions_app import lines
from sessions_app.lines import Line

log = logging.getLogger("access")
QUIET = ("/health", "/api/v1/health", "/metrics", "/static/")  # asked by machines all day long


class Told:
    """Binds the correlation id for all that is logged meanwhile, also by the tasks begun here, and writes the line.

    The path without its query, which is none of a log's business; `scope["status"]` is what was answered.
    """

    __slots__ = ("_began", "_scope")

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    def __enter__(self) -> None:
        lines.are_about(correlation_id=self._scope["correlation_id"])
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        _write(self._scope, time.perf_counter() - self._began)


def _write(scope: Scope, seconds: float) -> None:
    quiet = scope["path"].startswith(QUIET) and scope.get("status", 200) < 500
    principal = scope.get("principal")
    told = {
        "method": scope.get("method"),
        "path": scope["path"],
        "status": scope.get("status"),  # none: the caller had gone before an answer, or it is a WebSocket
        "duration_ms": round(seconds * 1000, 1),
        "address": scope["address"],
        "who": (principal.name or None) if principal else None,
    }
    kind = "websocket" if scope["type"] == "websocket" else "request"
    line = Line(event=kind, **{name: value for name, value in told.items() if value is not None})
    log.log(logging.DEBUG if quiet else logging.INFO, line)
