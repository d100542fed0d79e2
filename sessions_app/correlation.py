"""Under which id the request at work is followed: what it writes down bears it. Imports nothing of ours.

The gate says it. An event of a run bears its run's id all the same, unless it says what somebody decided about it; what
the server does by itself has none.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

NONE = ""
_correlation_id: ContextVar[str] = ContextVar("correlation_id", default=NONE)


@contextmanager
def followed_as(correlation_id: str) -> Iterator[None]:
    """For this block, and for the tasks and database jobs that are started in it."""
    token = _correlation_id.set(correlation_id)
    try:
        yield
    finally:
        _correlation_id.reset(token)


def current() -> str:
    return _correlation_id.get()
