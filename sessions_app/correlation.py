"""Under which id the request at work is followed: what it writes down bears it. Imports only `holding`.

The gate says it. An event of a run bears its run's id all the same, unless it says what somebody decided about it; what
the server does by itself has none.
"""

from __future__ import annotations

from contextvars import ContextVar

from sessions_app.holding import Holding

NONE = ""
_correlation_id: ContextVar[str] = ContextVar("correlation_id", default=NONE)


def followed_as(correlation_id: str) -> Holding[str]:
    """For a block, and for the tasks and database jobs that are started in it."""
    return Holding(_correlation_id, correlation_id)


def follow_as(correlation_id: str) -> None:
    """From here on, in this context."""
    _correlation_id.set(correlation_id)


def current() -> str:
    return _correlation_id.get()
