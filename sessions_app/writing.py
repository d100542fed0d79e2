"""One change of one session: lock its row, collect what is new, store it with one statement a table.

with writing.locked(session_id) as change:
    change.add(...)
    change.event(events.AGENT_SWITCHED, {...})
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, ClassVar, TypeVar

from django.db import models

from sessions_app import audit, database, events, failpoints, owners, prepared
from sessions_app.errors import SessionNotFound
from sessions_app.models import (
    AgentSwitch,
    Approval,
    AuditEntry,
    Event,
    LLMRequest,
    Message,
    PolicyVersion,
    Run,
    RunState,
    Session,
    ToolCall,
)
from sessions_app.prepared import Select, Slot, Update
from sessions_app.rows import Blank
from sessions_app.session_ids import is_session_id

M = TypeVar("M", bound=models.Model)
_MESSAGE, _SESSION = Blank(Message), Blank(Session)
SESSION_COLUMNS = (
    "title", "description", "is_active", "expired_at", "last_activity", "message_count", "last_number",
    "first_seq", "last_seq",    "current_agent", "switch_count", "last_switch_at", "stream_mode", "audit_count",
    "audit_hash",
)  # fmt: skip


class Change:
    """What one transaction adds to a locked session."""

    ORDER: ClassVar[Sequence[type[models.Model]]] = (Message, ToolCall, Approval, AgentSwitch, LLMRequest, AuditEntry)

    def __init__(self, session: Session, *, correlation_id: str = "") -> None:
        self.session = session
        self.correlation_id = correlation_id
        self.now = datetime.now(UTC)
        self.events: list[Event] = []
        self.cause = ""
        self.owed = True  # whether handlers hear of the events
        self._new: dict[type[models.Model], list[Any]] = {}

    def add(self, row: M) -> M:
        self._new.setdefault(type(row), []).append(row)
        return row

    def added(self, model: type[M]) -> list[M]:
        """What this change adds and has not stored yet."""
        return list(self._new.get(model, ()))

    def event(
        self,
        type_: str,
        data: dict[str, Any] | None = None,
        *,
        run: Run | None = None,
        message: Message | None = None,
        correlation_id: str | None = None,
        causation_id: str | None = None,
    ) -> Event:
        """The session's next event. The first of a change is the cause of the others in it."""
        event = events.draft(
            self.session,
            type_,
            data,
            run=run,
            message=message,
            correlation_id=self.correlation_id if correlation_id is None else correlation_id,
            causation_id=self.cause if causation_id is None else causation_id,
            at=self.now,
        )
        if not self.events:
            self.cause = str(event.event_id)
        self.events.append(event)
        return event

    def message(self, role: str, content: str, **fields: Any) -> Message:
        """A message with the session's next number. An assistant's own without text or calls is not counted yet."""
        self.session.last_number += 1
        number = self.session.last_number
        fields.setdefault("created_at", self.now)
        row = _MESSAGE(session=self.session, number=number, role=role, content=content, **fields)
        if role != Message.ASSISTANT or content or row.tool_calls:
            self.session.message_count += 1
        return self.add(row)

    def touch(self) -> None:
        self.session.last_activity = self.now

    def store(self) -> None:
        for model in self.ORDER:
            if rows := self._new.get(model):
                prepared.insert(rows)
        events.store(self.session, self.events, owed=self.owed)
        _STORE.set(self.session, pk=self.session.id)
        failpoints.hit(f"before {self.events[-1].type}" if self.events else "before")


def _locked_row(session: str | int) -> Session | None:
    """The session, locked, with what a turn must know of it: one statement, as long as nobody else holds the lock.

    PostgreSQL shows a statement that waited for the lock the new row, and beside it all else as it was before the
    wait: a run's former owner would pass the fence. `seen_seq` tells, since every change of a run has its event.
    """
    rows = _BY_KEY if isinstance(session, int) else _BY_NAME
    row = rows.first(session=session)
    if row is not None and row.seen_seq != row.last_seq:  # type: ignore[attr-defined]
        row = rows.first(session=session)
    return row


def _lockable() -> models.QuerySet[Any]:
    active = models.Q(runs__state__in=[RunState.RUNNING, RunState.WAITING])  # one at most, a constraint says
    queued = Run.objects.filter(session=models.OuterRef("pk"), state=RunState.QUEUED)
    return (
        Session.objects.order_by()
        .select_for_update(of=("self",))
        .annotate(active=models.FilteredRelation("runs", condition=active))
        .annotate(
            active_run_id=models.F("active__pk"),
            active_run_state=models.F("active__state"),
            active_run_attempt=models.F("active__attempt"),
            active_run_cancel=models.F("active__cancel_requested_at"),
            has_queue=models.Exists(queued),
            policy_version=models.Subquery(PolicyVersion.objects.order_by("-number").values("number")[:1]),
            seen_seq=models.Subquery(
                Session.objects.order_by().filter(pk=models.OuterRef("pk")).values("last_seq")[:1]
            ),
        )
    )


_BY_KEY = Select[Session](lambda: _lockable().filter(pk=Slot("session")))
_BY_NAME = Select[Session](lambda: _lockable().filter(session_id=Slot("session")))
_STORE = Update(lambda: Session.objects.filter(pk=Slot("pk")), SESSION_COLUMNS)


@contextmanager
def locked(session: str | int, *, correlation_id: str = "") -> Iterator[Change]:
    """A transaction that owns the session, named by its client's id, where the caller may see it, or by primary key.

    Raises SessionNotFound. What the block adds is stored when it ends, unless it raises.
    """
    with database.atomic():
        known = isinstance(session, int) or is_session_id(session)
        row = _locked_row(session) if known else None
        if row is None or not (isinstance(session, int) or owners.sees(row)):
            raise SessionNotFound(session_id=session)
        change = Change(row, correlation_id=correlation_id)
        yield change
        change.store()


@contextmanager
def locked_or_new(session_id: str, *, correlation_id: str = "", who: str = audit.SYSTEM) -> Iterator[Change]:
    """As `locked`, but an unknown id is created, by `who`, with its first events; another owner's stays unknown. Raises
    IntegrityError when another transaction creates it at the same moment; the writer thread then tries again."""
    with database.atomic():
        row = _locked_row(session_id)
        if row is not None and not owners.sees(row):
            raise SessionNotFound(session_id=session_id)
        change = Change(row, correlation_id=correlation_id) if row else created(session_id, correlation_id, who)
        yield change
        change.store()


def created(session_id: str, correlation_id: str = "", who: str = audit.SYSTEM) -> Change:
    """Inserts a session and drafts the events of its birth. Raises IntegrityError when it exists."""
    prepared.insert([session := _SESSION(session_id=session_id, owner=owners.current())])
    for name in ("id", "state", "attempt", "cancel"):
        setattr(session, f"active_run_{name}", None)
    session.has_queue = False  # type: ignore[attr-defined]
    change = Change(session, correlation_id=correlation_id)
    change.event(events.SESSION_CREATED, {"session_id": session_id})
    change.event(events.AGENT_ASSIGNED, {"agent": session.current_agent})
    audit.record(change, audit.SESSION_CREATE, who, subject=session_id)
    return change
