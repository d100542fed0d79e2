"""The steps of a run at work: every function is one transaction, fenced by the run's attempt.

Who has lost its lease, or never had the current attempt, gets LeaseLost and has written nothing. Nothing here mutates
its arguments: a transaction may be run twice before it commits once. How runs begin and are stopped is in `runs`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sessions_app import clock, closing, events, history, services, writing
from sessions_app.conf import settings
from sessions_app.errors import LeaseLost, RunCancelled, RuntimeFault
from sessions_app.models import (
    HANDED_OVER,
    ORCHESTRATOR,
    Event,
    LLMRequest,
    Message,
    MessageState,
    Run,
    RunState,
    Session,
)
from sessions_app.rows import Blank
from sessions_app.writing import Change

_REQUEST = Blank(LLMRequest)


@dataclass(frozen=True, slots=True)
class Work:
    """What a runner needs to go on with a run: no message is open yet when the run must be routed first."""

    run: Run
    session: Session
    agent: str
    message: Message | None
    history: Sequence[history.Row | Message]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an action did: the session, its events, the run whose stream tells the rest, and the work to be run."""

    session: Session
    events: Sequence[Event] = ()
    run: Run | None = None
    work: Work | None = None
    after_seq: int = 0
    follow: bool = False
    fault: RuntimeFault | None = None


# --- opening -----------------------------------------------------------------------------------------------------


def lease(change: Change, run: Run, owner: str) -> None:
    run.state, run.attempt, run.lease_owner = RunState.RUNNING, run.attempt + 1, owner
    # Without workers a run is handed over by a process that goes, to the first that looks.
    at_once = owner == HANDED_OVER and settings.EXECUTOR != "worker"
    run.lease_until = clock.now() + timedelta(seconds=0 if at_once else settings.LEASE_SECONDS)
    run.active_since = change.now
    run.started_at = run.started_at or change.now


def open_step(change: Change, run: Run, rows: Sequence[history.Row | Message], agents: Sequence[str]) -> Work:
    """Opens the next assistant message, unless nobody is there yet to write it."""
    session = change.session
    agent = session.current_agent
    if agent == ORCHESTRATOR or agent not in agents:
        return Work(run, session, ORCHESTRATOR, None, rows)
    message = change.message(Message.ASSISTANT, "", run=run, agent=agent, state=MessageState.OPEN)
    change.event(events.MESSAGE_OPENED, {"agent": agent}, run=run, message=message)
    change.event(events.LLM_REQUEST_STARTED, {"purpose": LLMRequest.ANSWER, "agent": agent}, run=run)
    return Work(run, session, agent, message, rows)


# --- fencing -----------------------------------------------------------------------------------------------------


@contextmanager
def owned(run: Run, *, ending: bool = False) -> Iterator[Change]:
    """A change of a session whose active run is this attempt of this run. Raises LeaseLost, and RunCancelled when
    somebody wants it stopped: no step follows a cancel. A change that ends the run anyway is let through."""
    with writing.locked(run.session_id, correlation_id=run.correlation_id) as change:
        session = change.session
        active = (session.active_run_id, session.active_run_state, session.active_run_attempt)  # type: ignore[attr-defined]
        if active != (run.id, RunState.RUNNING, run.attempt):
            raise LeaseLost()
        if session.active_run_cancel and not ending:  # type: ignore[attr-defined]
            raise RunCancelled()
        change.cause = f"run:{run.id}"
        yield change


# --- steps -------------------------------------------------------------------------------------------------------


def routed(
    run: Run,
    rows: Sequence[history.Row | Message],
    verdict: dict[str, str],
    record: dict[str, Any] | None,
    by: str,
    agents: Sequence[str],
) -> Work:
    """Switches to the agent that routing chose and opens its message. `verdict` has agent, confidence, reasoning.

    A person who chose another agent meanwhile is obeyed.
    """
    with owned(run) as change:
        if record is not None:
            record_request(change, run, record)
        if by == "keywords":
            change.event(events.ROUTING_FELL_BACK, {"agent": verdict["agent"]}, run=run)
        if change.session.current_agent == ORCHESTRATOR or change.session.current_agent not in agents:
            target, reason = verdict["agent"], verdict["reasoning"]
            services.record_switch(change, target, reason=reason, confidence=verdict["confidence"], run=run)
        return open_step(change, run, rows, agents)


def resumed(change: Change, run: Run, owner: str, agents: Sequence[str]) -> Work:
    """Takes a waiting run on, inside the change that gave it its last result."""
    run = copy.copy(run)
    lease(change, run, owner)
    Run.objects.filter(pk=run.id).update(
        state=run.state,
        attempt=run.attempt,
        lease_owner=owner,
        lease_until=run.lease_until,
        active_since=change.now,
        cancel_requested_at=None,
    )
    change.event(events.TASK_RESUMED, run=run)
    return next_step(change, run, agents)


def next_step(change: Change, run: Run, agents: Sequence[str]) -> Work:
    """Opens the run's next step inside the change that settled the last one's calls."""
    rows: list[history.Row | Message] = [*history.load(change.session), *change.added(Message)]
    return open_step(change, run, rows, agents)


def record_request(change: Change, run: Run, record: dict[str, Any]) -> None:
    """Keeps the request to the model, with its event."""
    row = change.add(_REQUEST(session=change.session, run=run, **record))
    type_ = events.LLM_REQUEST_COMPLETED if row.success else events.LLM_REQUEST_FAILED
    told = {"purpose": row.purpose, "agent": row.agent, "model": row.model, "duration_ms": row.duration_ms}
    change.event(type_, told | ({"error": row.error} if row.error else {}), run=run)


def complete(
    run: Run, message: Message, text: str, reasoning: str, record: dict[str, Any], counters: dict[str, int]
) -> Outcome:
    """Closes the final answer and its run."""
    with owned(run, ending=True) as change:
        record_request(change, run, record)
        change.touch()
        closing.close_message(change, run, message.id, text, is_final=True, reasoning=reasoning)
        closing.end_run(change, run, RunState.COMPLETED, events.TASK_COMPLETED, counters=counters)
        return Outcome(change.session, change.events)


def fail(
    run: Run,
    message_id: int | None,
    text: str,
    fault: RuntimeFault,
    said: str,
    *,
    record: dict[str, Any] | None = None,
    reasoning: str = "",
    state: RunState = RunState.FAILED,
    event: str = events.TASK_FAILED,
    counters: dict[str, int] | None = None,
) -> Outcome:
    """Ends the run with an error that people read (`said`); the text shown so far is kept and marked."""
    with owned(run, ending=True) as change:
        if record is not None:
            record_request(change, run, record)
        change.touch()
        opened = Message.objects.filter(run=run, state=MessageState.OPEN).first()
        if opened is not None:
            shown = text if opened.id == message_id else opened.content
            cut = MessageState.INTERRUPTED if shown else MessageState.COMPLETE
            closing.close_message(
                change,
                run,
                opened.id,
                shown,
                is_final=False,
                state=cut,
                reasoning=reasoning,
                in_context=opened.in_context,
            )
        closing.close_calls(change, run, reason="the turn ended")
        closing.end_run(change, run, state, event, {"code": fault.code, "text": said}, counters)
        return Outcome(change.session, change.events)


def note(run: Run, type_: str, data: dict[str, Any]) -> None:
    """Writes down something that happened inside a step."""
    with owned(run) as change:
        change.event(type_, data, run=run)
