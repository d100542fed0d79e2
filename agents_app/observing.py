"""A turn as operators follow it: under which ids its lines of the log stand, and the one line that sums it up."""

from __future__ import annotations

import logging
import time
from contextvars import ContextVar
from datetime import datetime

from django.utils import timezone

from agents_app import genai, tracing
from agents_app.runner import Turn
from sessions_app import database, events, lines
from sessions_app.errors import RuntimeFault
from sessions_app.lines import Line
from sessions_app.models import Run, ToolCall, ToolCallState

log = logging.getLogger("turn")
OUTCOMES = {
    events.TASK_COMPLETED: "completed",
    events.TASK_PAUSED: "waiting",
    events.TASK_FAILED: "failed",
    events.TASK_CANCELLED: "cancelled",
    events.TASK_INTERRUPTED: "interrupted",
}
MOST_CALLS = 100
LOST = "lost"  # somebody else owns the run, or its end could not be stored


# What the turn that is started here was stored as, told from before its own span begins: its run and attempt first,
# since turns that are started after it inherit this too.
_stored: ContextVar[tuple[int, int, str, datetime, datetime] | None] = ContextVar("stored", default=None)


def stored(run: Run, what: str, began: datetime) -> None:
    """Notes, for the turn to be started here, that its message has just been stored."""
    if tracing.on():
        _stored.set((run.id, run.attempt, what, began, timezone.now()))


async def go(turn: Turn) -> None:
    """Runs the turn to its end, or until it waits for its client."""
    run = turn.run
    lines.are_about(correlation_id=run.correlation_id, session_id=turn.session.session_id, run_id=run.id)
    began = time.monotonic()
    try:
        await (_traced(turn) if tracing.on() else turn.go())
    finally:
        _write(turn, time.monotonic() - began)


async def _traced(turn: Turn) -> None:
    """Runs the turn within its span."""
    run = turn.run
    await _tell_of_the_wait(run)
    with tracing.span("turn", _attributes(turn), parent=run.traceparent) as part:
        turn.traceparent = part.traceparent
        _tell_of_the_storing(run, part.traceparent)
        try:
            await turn.go()
        finally:
            part.tell({genai.OUTCOME: OUTCOMES.get(turn.ended_with, LOST), genai.AGENT: turn.agent})
            if turn.fault_code:
                part.failed(turn.fault_code)


def _write(turn: Turn, seconds: float) -> None:
    outcome = OUTCOMES.get(turn.ended_with, LOST)
    told = {
        "outcome": outcome,
        "agent": turn.agent,
        "attempt": turn.run.attempt,
        "steps": turn.counters.steps,
        "duration_ms": round(seconds * 1000, 1),
        "first_token_ms": turn.first_token_ms,
        "code": turn.fault_code or None,
    }
    line = Line(event="turn", **{name: value for name, value in told.items() if value is not None})
    log.log(logging.WARNING if outcome == "failed" else logging.INFO, line)


# --- spans -------------------------------------------------------------------------------------------------------


def _attributes(turn: Turn) -> genai.Attributes:
    return {
        genai.OPERATION: genai.INVOKE_AGENT,
        genai.CONVERSATION: turn.session.session_id,
        genai.RUN: turn.run.id,
        genai.ATTEMPT: turn.run.attempt,
        genai.CORRELATION: turn.run.correlation_id,
    }


def _tell_of_the_storing(run: Run, parent: str) -> None:
    known = _stored.get()
    if known is not None and known[:2] == (run.id, run.attempt):
        _, _, what, began, ended = known
        tracing.past("database", began, ended, {genai.DB_OPERATION: f"store {what}"}, parent=parent)


async def _tell_of_the_wait(run: Run) -> None:
    """Writes down what the client did since the last part of this turn: the wait, the tools and the approvals in it."""
    if not run.traceparent or run.attempt < 2:
        return
    try:
        calls = await database.read(_last_calls, run.id)
    except RuntimeFault:
        return
    ended = [call for call in calls if call.ended_at is not None]
    if not ended:
        return
    first, last = min(call.requested_at for call in ended), max(call.ended_at or call.requested_at for call in ended)
    wait = tracing.past("wait for client", first, last, {genai.RUN: run.id}, parent=run.traceparent)
    for call in ended:
        name, told = genai.tool(call.name, call.call_id, call.state)
        tool = tracing.past(name, call.requested_at, call.ended_at or last, told, parent=wait)
        approval = getattr(call, "approval", None)
        if approval is not None and approval.decided_at is not None:
            decision = {genai.DECISION: approval.state}
            tracing.past("wait for approval", approval.created_at, approval.decided_at, decision, parent=tool)


def _last_calls(run_id: int) -> list[ToolCall]:
    """The calls of the run's last answer that went out to the client."""
    calls = ToolCall.objects.filter(run=run_id).exclude(state=ToolCallState.REFUSED).select_related("approval")
    newest = list(calls.order_by("-pk")[:MOST_CALLS])
    return [call for call in newest if call.message_id == newest[0].message_id][::-1]
