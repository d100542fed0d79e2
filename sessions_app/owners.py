"""Whose sessions the caller may see: the one place that says so. Imports only `holding`.

The gate says for whom a request acts. Whatever finds a session by its client's id, or lists rows of sessions, asks
here, and so does not know the sessions of others. Who acts for the service sees all: the key without an owner, the
operators, and everything that the server does by itself.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

from django.db import models

from sessions_app.holding import Holding

if TYPE_CHECKING:
    from sessions_app.models import Session

M = TypeVar("M", bound=models.Model)
SERVICE = ""
MAX_CHARACTERS = 255
_acting_for: ContextVar[str] = ContextVar("acting_for", default=SERVICE)


def is_owner(name: object) -> bool:
    """Whether this can name an owner: 1 to 255 visible characters."""
    return isinstance(name, str) and 0 < len(name) <= MAX_CHARACTERS and name.isprintable() and name == name.strip()


def acting_for(owner: str) -> Holding[str]:
    """For a block, and for the tasks and database jobs that are started in it."""
    return Holding(_acting_for, owner)


def act_for(owner: str) -> None:
    """From here on, in this context."""
    _acting_for.set(owner)


def current() -> str:
    return _acting_for.get()


def visible(rows: models.QuerySet[M], session: str = "") -> models.QuerySet[M]:
    """Those of the caller's own sessions; `session` is the way from a row to its session, empty for sessions."""
    owner = current()
    if owner == SERVICE:
        return rows
    mine: dict[str, Any] = {f"{session}__owner" if session else "owner": owner}
    return rows.filter(**mine)


def sees(session: Session) -> bool:
    return current() in (SERVICE, session.owner)
