"""How runs and calls end, whoever ends them: used inside a locked change, never by itself."""

from __future__ import annotations

from typing import Any

from sessions_app import events, speech
from sessions_app.errors import RunCancelled, RuntimeFault
from sessions_app.history import NO_RESULT
from sessions_app.models import (
    OPEN_CALL_STATES,
    Approval,
    ApprovalState,
    Message,
    MessageState,
    Run,
    RunState,
    ToolCall,
    ToolCallState,
)
from sessions_app.prepared import Slot, Update
from sessions_app.rows import Blank
from sessions_app.writing import Change

_MESSAGE = Blank(Message)
UNFINISHED = (RunState.QUEUED, RunState.RUNNING, RunState.WAITING)
_END_RUN = Update(
    lambda: Run.objects.filter(pk=Slot("pk")),
    (
        "state", "ended_at", "active_since", "active_seconds", "lease_until", "error_code", "agent", "steps",
        "switches", "mistakes",
    ),
)  # fmt: skip
_CLOSE_MESSAGE = Update(
    lambda: Message.objects.filter(pk=Slot("pk")), ("content", "state", "reasoning", "tool_calls", "in_context")
)


def close_calls(change: Change, run: Run, *, reason: str) -> None:
    """Ends the run's open calls and approvals; the model reads that nobody knows whether they ran."""
    calls = list(ToolCall.objects.filter(run=run, state__in=OPEN_CALL_STATES))
    for call in calls:
        change.message(Message.TOOL, NO_RESULT, tool_call_id=call.call_id, name=call.name, run=run)
        told = {"call_id": call.call_id, "tool_name": call.name, "reason": reason}
        change.event(events.TOOL_CALL_CLOSED, told, run=run)
    if calls:
        ids = [call.id for call in calls]
        ToolCall.objects.filter(pk__in=ids).update(state=ToolCallState.CLOSED, ended_at=change.now)
        pending = Approval.objects.filter(call__in=ids, state=ApprovalState.PENDING)
        pending.update(state=ApprovalState.CLOSED, decided_at=change.now)


def active_seconds(run: Run, change: Change) -> float:
    """How long the run has worked, waits for people left out."""
    since = (change.now - run.active_since).total_seconds() if run.active_since else 0.0
    return run.active_seconds + max(since, 0.0)


def end_run(
    change: Change,
    run: Run,
    state: RunState,
    event: str,
    data: dict[str, Any] | None = None,
    counters: dict[str, Any] | None = None,
) -> None:
    """Writes the run's last state, with its steps, switches and mistakes, and the event that ends its stream."""
    worked = active_seconds(run, change)
    told = {"agent": change.session.current_agent, "duration_ms": round(worked * 1000), **(data or {})}
    kept = {"steps": run.steps, "switches": run.switches, "mistakes": run.mistakes}
    _END_RUN.run(
        pk=run.id,
        state=state,
        ended_at=change.now,
        active_since=None,
        active_seconds=worked,
        lease_until=None,
        error_code=told.get("code", ""),
        agent=change.session.current_agent,
        **(kept | (counters or {})),
    )
    change.event(event, told, run=run)


def close_message(
    change: Change,
    run: Run,
    message_id: int,
    text: str,
    *,
    is_final: bool,
    state: MessageState = MessageState.COMPLETE,
    reasoning: str = "",
    tool_calls: list[dict[str, Any]] | None = None,
    in_context: bool = True,
) -> None:
    """Closes the assistant's message; people see it when it says something, or when nothing else ends the turn."""
    _CLOSE_MESSAGE.run(
        pk=message_id,
        content=text,
        state=state,
        reasoning=reasoning,
        tool_calls=tool_calls or None,
        in_context=in_context,
    )
    if text or tool_calls:
        change.session.message_count += 1
    closed = _MESSAGE(id=message_id, role=Message.ASSISTANT, content=text, state=state, created_at=change.now)
    told = {"is_final": is_final, "shown": bool(text) or is_final}
    change.event(events.MESSAGE_COMPLETED, told, run=run, message=closed)


def close_open_message(change: Change, run: Run) -> Message | None:
    """Closes what a run without an owner left open, with the text that was kept."""
    message = Message.objects.filter(run=run, state=MessageState.OPEN).first()
    if message is not None:
        close_message(change, run, message.id, message.content, is_final=False, state=MessageState.INTERRUPTED)
    return message


def end_with_fault(change: Change, run: Run, state: RunState, event: str, fault: RuntimeFault) -> None:
    text = speech.say(fault, change.session.title)
    end_run(change, run, state, event, {"code": fault.code, "text": text})


def cancel_run(change: Change, run: Run, *, reason: str) -> None:
    """Ends a run of any state at once; its owner, if there is one, loses the right to write."""
    close_open_message(change, run)
    close_calls(change, run, reason=reason)
    text = speech.say(RunCancelled(), change.session.title)
    told = {"code": RunCancelled.code, "text": text, "reason": reason}
    end_run(change, run, RunState.CANCELLED, events.TASK_CANCELLED, told)


def close_runs(change: Change, *, reason: str) -> None:
    for run in Run.objects.filter(session=change.session, state__in=UNFINISHED).order_by("pk"):
        cancel_run(change, run, reason=reason)
