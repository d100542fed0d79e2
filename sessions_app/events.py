"""The names of what happens, and the way into the log. Imports models, correlation, ids, prepared and failpoints only.

An event leaves for live readers after its transaction has committed, never before: `listen` registers who is told.
A handler that `subscribe` names is owed a delivery, written in the event's own transaction; so is one that is stored as
a row and may come and go (`subscribe_stored`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

from django.db import transaction
from django.db.models import Q, QuerySet, Value

from sessions_app import clock, correlation, failpoints, ids, prepared
from sessions_app.models import OF_EVERY_TURN, Event, EventDelivery, Message, Run, Session
from sessions_app.rows import Blank

SESSION_CREATED = "SessionCreated"
SESSION_UPDATED = "SessionUpdated"
SESSION_ACTIVATED = "SessionActivated"
SESSION_DEACTIVATED = "SessionDeactivated"
SESSION_EXPIRED = "SessionExpired"
MESSAGES_CLEARED = "MessagesCleared"
NOTE_ADDED = "NoteAdded"
MESSAGE_RECEIVED = "MessageReceived"
MESSAGE_OPENED = "MessageOpened"
MESSAGE_COMPLETED = "MessageCompleted"
CONVERSATION_COMPLETED = "ConversationCompleted"
AGENT_ASSIGNED = "AgentAssigned"
AGENT_SWITCH_REQUESTED = "AgentSwitchRequested"
AGENT_SWITCHED = "AgentSwitched"
ROUTING_FELL_BACK = "RoutingFellBack"
HISTORY_TRIMMED = "HistoryTrimmed"
TASK_QUEUED = "TaskQueued"
TASK_STARTED = "TaskStarted"
TASK_PAUSED = "TaskPaused"
TASK_RESUMED = "TaskResumed"
TASK_COMPLETED = "TaskCompleted"
TASK_FAILED = "TaskFailed"
TASK_CANCELLED = "TaskCancelled"
TASK_INTERRUPTED = "TaskInterrupted"
TASK_SUPERSEDED = "TaskSuperseded"
CANCEL_REQUESTED = "CancelRequested"
LLM_REQUEST_STARTED = "LLMRequestStarted"
LLM_REQUEST_COMPLETED = "LLMRequestCompleted"
LLM_REQUEST_FAILED = "LLMRequestFailed"
TOOL_CALL_REQUESTED = "ToolCallRequested"
TOOL_CALL_RELEASED = "ToolCallReleased"
TOOL_APPROVAL_REQUIRED = "ToolApprovalRequired"
TOOL_APPROVAL_DECIDED = "ToolApprovalDecided"
TOOL_APPROVAL_EXPIRED = "ToolApprovalExpired"
TOOL_CALL_COMPLETED = "ToolCallCompleted"
TOOL_CALL_FAILED = "ToolCallFailed"
TOOL_CALL_REFUSED = "ToolCallRefused"
TOOL_CALL_CLOSED = "ToolCallClosed"

TYPES = frozenset(value for name, value in list(globals().items()) if name.isupper() and isinstance(value, str))

# After one of these, the run (or its part of the conversation) has nothing more to say until somebody speaks to it.
ENDINGS = frozenset(
    {TASK_PAUSED, TASK_COMPLETED, TASK_FAILED, TASK_CANCELLED, TASK_INTERRUPTED, TASK_SUPERSEDED},
)

_EVENT = Blank(Event)

Listener = Callable[[Session, Sequence[Event]], None]
_listeners: list[Listener] = []
# All are replaced as a whole, since the database's threads read them; what was found last, so that what is being found
# of the old goes into the old.
_subscriptions: tuple[tuple[str, str], ...] = ()
_stored: tuple[tuple[str, str], ...] = ()
_handlers: dict[str, tuple[str, ...]] = {}  # by type, as far as somebody has asked
_before_storing: list[Callable[[], None]] = []
_when_owed: list[Callable[[Sequence[str]], None]] = []


def listen(listener: Listener) -> None:
    """Has `listener(session, events)` called after each commit that wrote events, in the thread that committed."""
    _listeners.append(listener)


def subscribe(pattern: str, handler: str) -> None:
    """From now on the handler is owed every event of this type; `Tool*` stands for all types that begin so."""
    global _subscriptions, _handlers
    _subscriptions = (*_subscriptions, (pattern, handler))
    _handlers = {}


def unsubscribe(handler: str) -> None:
    global _subscriptions, _handlers
    _subscriptions = tuple(entry for entry in _subscriptions if entry[1] != handler)
    _handlers = {}


def subscribe_stored(subscriptions: Iterable[tuple[str, str]]) -> None:
    """What the rows say by now, as (pattern, handler), instead of what they said before."""
    global _stored, _handlers
    if (stored := tuple(subscriptions)) != _stored:
        _stored = stored
        _handlers = {}


def before_storing(call: Callable[[], None]) -> None:
    """Has `call()` made before each storing of events, in its transaction: it sees that the stored subscriptions are
    known, and costs no statement when they are."""
    _before_storing.append(call)


def when_owed(call: Callable[[Sequence[str]], None]) -> None:
    """Has `call(handlers)` made in each transaction that owes them deliveries, after those are written."""
    _when_owed.append(call)


def subscribers(type_: str) -> tuple[str, ...]:
    """The handlers that are owed an event of this type, in the order of their names."""
    known = _handlers
    if (found := known.get(type_)) is None:
        all_of_them = (*_subscriptions, *_stored)
        found = known[type_] = tuple(sorted({who for pattern, who in all_of_them if fnmatchcase(type_, pattern)}))
    return found


class _Constant(Value):
    """Text of the code's own, written out: SQLite does not see of a bound value that an index's condition holds."""

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, Any]:
        return f"'{self.value}'", []


_OF_EVERY_TURN = Q(type__in=[_Constant(name) for name in OF_EVERY_TURN])


def of_types(rows: QuerySet[Event], types: Collection[str]) -> QuerySet[Event]:
    """Those of these types, said in such a way that the index of the rare ones is used where all of them are in it."""
    rows = rows.filter(type__in=types)
    return rows if set(types) & set(OF_EVERY_TURN) else rows.filter(~_OF_EVERY_TURN)


def draft(
    session: Session,
    type_: str,
    data: dict[str, Any] | None = None,
    *,
    run: Run | None = None,
    message: Message | None = None,
    correlation_id: str = "",
    causation_id: str = "",
    at: datetime,
) -> Event:
    """The session's next event, numbered but not yet stored."""
    session.last_seq += 1
    return _EVENT(
        event_id=ids.new(),
        at=at,
        session=session,
        seq=session.last_seq,
        type=type_,
        data=data or {},
        run=run,
        message=message,
        correlation_id=correlation_id or (run.correlation_id if run else "") or correlation.current(),
        causation_id=causation_id,
    )


def store(session: Session, events: Sequence[Event], *, owed: bool = True) -> None:
    """Inserts the events and what their handlers are owed, and tells the listeners once they are committed. With
    `owed` False no handler hears of them: they happened elsewhere, long ago."""
    if not events:
        return
    for call in _before_storing:
        call()
    prepared.insert(events)
    handlers = [(event, handler) for event in events for handler in subscribers(event.type)] if owed else []
    if handlers:
        now = clock.now()
        EventDelivery.objects.bulk_create(
            EventDelivery(event=event, handler=handler, next_at=now) for event, handler in handlers
        )
        for tell in _when_owed:
            tell(sorted({handler for _, handler in handlers}))
    # Robust: what is committed must not look failed to whoever would then run it again.
    transaction.on_commit(lambda: _tell(session, events), robust=True)


def _tell(session: Session, events: Sequence[Event]) -> None:
    failpoints.hit(f"after {events[-1].type}")
    for listener in _listeners:
        listener(session, events)
