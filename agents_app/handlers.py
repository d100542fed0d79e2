"""What happens after something happened: one function an event handler. Yours go below the shipped ones.

@handles("AgentSwitched", "Tool*")
async def tell_the_team(event: Event) -> None: ...

A handler is run after the event's commit, at least once: `event.event_id` is the same every time. Imported by apps.py,
so that every process that writes events knows who is owed them.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from sessions_app import events
from sessions_app.conf import settings
from sessions_app.deliveries import RetryPolicy
from sessions_app.models import Event

F = TypeVar("F", bound=Callable[[Event], Any])
logger = logging.getLogger(__name__)

NAME_CHARACTERS = 100  # what the column holds


class NotDelivered(Exception):
    """Raised by a handler that knows why. Its text is kept and shown, so it must hold no secrets; of any other
    exception only the type is kept."""


class Undeliverable(NotDelivered):
    """The same, where trying again is of no use: the delivery is a dead letter at once."""


@dataclass(frozen=True, slots=True)
class Handler:
    """A function and how it is run; the name is what its deliveries are stored under."""

    name: str
    patterns: tuple[str, ...]
    call: Callable[[Event], Any]
    in_order: bool
    timeout_seconds: float
    retries: RetryPolicy

    @property
    def is_async(self) -> bool:
        return inspect.iscoroutinefunction(self.call)


_handlers: dict[str, Handler] = {}


def handles(
    *patterns: str,
    name: str | None = None,
    in_order: bool = False,
    timeout_seconds: float = 30,
    retries: RetryPolicy | None = None,
) -> Callable[[F], F]:
    """Registers a function for event types, or for categories such as `Tool*`. Async functions are awaited in the
    server's event loop and must not block it; sync ones run in a thread of their own and may use the database.

    With `in_order` a session's events come one after the other. Rename the function only with its old name as `name`:
    what was owed to the old name would become dead letters a minute later. Raises ValueError.
    """
    if not patterns:
        raise ValueError("Name the event types, or '*' for all.")
    for pattern in patterns:
        if not any(fnmatchcase(type_, pattern) for type_ in events.TYPES):
            raise ValueError(f"There is no event type {pattern!r}; sessions_app/events.py lists them.")

    def register(call: F) -> F:
        policy = retries or RetryPolicy()
        _add(Handler(name or call.__name__, patterns, call, in_order, timeout_seconds, policy))
        return call

    return register


def _add(handler: Handler) -> None:
    if handler.name in _handlers:
        raise ValueError(f"There is a handler {handler.name!r} already: give this one another name.")
    if len(handler.name) > NAME_CHARACTERS:
        raise ValueError(f"The name {handler.name!r} is longer than {NAME_CHARACTERS} characters.")
    _handlers[handler.name] = handler
    for pattern in handler.patterns:
        events.subscribe(pattern, handler.name)


def registered() -> dict[str, Handler]:
    """By name."""
    return dict(_handlers)


@contextmanager
def temporarily() -> Iterator[None]:
    """For tests: what is registered inside the block is forgotten after it."""
    before = registered()
    try:
        yield
    finally:
        for name in registered().keys() - before.keys():
            del _handlers[name]
            events.unsubscribe(name)


# --- shipped -----------------------------------------------------------------------------------------------------


async def log_sink(event: Event) -> None:
    """Writes what happens, where and when into the log of the process; nothing of what people or models wrote."""
    logger.info(
        "%s session=%r seq=%s run=%s event=%s correlation=%r",
        event.type,
        event.session.session_id,
        event.seq,
        event.run_id,
        event.event_id,
        event.correlation_id,
    )


if settings.EVENT_LOG:
    handles("*", in_order=True)(log_sink)
