"""Sessions as JSON lines: one object a line, `kind` and the row's columns; a session, then all that is stored of it.

The text of a conversation is in it, of course; nothing by which anybody is let in, and nothing of how the runtime
works (leases, hashes of requests, keys of repeats).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.db.models import Model

from sessions_app import database
from sessions_app.models import AgentSwitch, Approval, Event, Message, Run, Session, ToolCall

ROWS = 500
KINDS: tuple[tuple[str, type[Model]], ...] = (
    ("message", Message),
    ("run", Run),
    ("call", ToolCall),
    ("approval", Approval),
    ("switch", AgentSwitch),
    ("event", Event),
)
INTERNAL = frozenset(
    {"lease_owner", "lease_until", "idempotency_key", "request_hash", "counted", "traceparent", "audit_hash"}
)


async def lines(sessions: Sequence[int]) -> AsyncIterator[bytes]:
    """All sessions (primary keys) as they are when their turn comes, some rows at a time: nothing is held open in
    between, and a session of any length needs the memory of one portion. What is gone by then is left out."""
    for pk in sessions:
        if head := await database.read(_portion, "session", Session, "pk", pk, 0):
            yield head[0]
            for kind, model in KINDS:
                async for portion in _rows(kind, model, pk):
                    yield portion


async def _rows(kind: str, model: type[Model], session: int) -> AsyncIterator[bytes]:
    last = 0
    while found := await database.read(_portion, kind, model, "session", session, last):
        portion, last = found
        yield portion


def _portion(kind: str, model: type[Model], column: str, value: int, last: int) -> tuple[bytes, int] | None:
    rows = list(model._default_manager.filter(**{column: value}, pk__gt=last).order_by("pk")[:ROWS])
    return (b"".join(_line(kind, row) for row in rows), rows[-1].pk) if rows else None


def _line(kind: str, row: Model) -> bytes:
    told: dict[str, Any] = {"kind": kind}
    for field in row._meta.concrete_fields:
        if field.name not in INTERNAL:
            told[field.attname] = field.value_from_object(row)
    return json.dumps(told, ensure_ascii=True, cls=DjangoJSONEncoder).encode() + b"\n"
