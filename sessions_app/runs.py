"""How runs begin, wait their turn, and are stopped or run again: every function is one transaction.

What a run does in between is in `steps`. Nothing here mutates its arguments: a transaction may be run twice before it
commits once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from django.db.models import Q
from django.utils import timezone

from sessions_app import audit, closing, events, history, places, prepared, services, steps, writing
from sessions_app.conf import settings
from sessions_app.errors import (
    IdempotencyConflict,
    NothingToRetry,
    QueueFull,
    RuntimeFault,
    SessionBusy,
    SessionFull,
    TooManyTurns,
    WaitedTooLong,
)
from sessions_app.models import (
    HANDED_OVER,
    Event,
    Message,
    MessageState,
    Run,
    RunState,
    Session,
)
from sessions_app.rows import Blank
from sessions_app.steps import Outcome, Work
from sessions_app.writing import Change

_RUN = Blank(Run)
RETRIABLE = (RunState.FAILED, RunState.INTERRUPTED, RunState.CANCELLED)


@dataclass(frozen=True, slots=True)
class Request:
    """A person's message, checked."""

    content: str
    agent: str = ""
    on_busy: str = "wait"
    stream_mode: str = ""
    from_ide: bool = False
    key: str = ""
    correlation_id: str = ""
    traceparent: str = ""
    rolls_back: int | None = None
    who: str = audit.SYSTEM

    @property
    def hash(self) -> str:
        return hashlib.sha256(f"{self.agent}\0{self.content}".encode()).hexdigest()


# --- starting ----------------------------------------------------------------------------------------------------


def submit(session_id: str, request: Request, owner: str, agents: Sequence[str]) -> Outcome:
    """Stores a person's message and starts its run, or queues it behind the one that runs, or until a place is free.

    Creates the session when it is unknown. Raises SessionInactive, SessionFull, SessionBusy, QueueFull, TooManyTurns,
    IdempotencyConflict; then nothing is stored.
    """
    with writing.locked_or_new(session_id, correlation_id=request.correlation_id, who=request.who) as change:
        session = change.session
        if request.key and (known := _known_run(session, request)):
            return Outcome(session, run=known, after_seq=_seq_before(known), follow=True)
        services.require_active(session)
        services.require_room(session)
        if request.from_ide:
            session.stream_mode = "messages"
        after = session.last_seq
        if session.active_run_state == RunState.RUNNING or session.has_queue:  # type: ignore[attr-defined]
            return Outcome(session, change.events, _queue(change, request), after_seq=after, follow=True)
        if not places.is_free(owner, request.who):
            places.require_one_to_wait_in()
            return Outcome(session, change.events, _wait(change, request), after_seq=after, follow=True)
        work = _begin(change, _new_run(change, request, owner), request, agents)
        return Outcome(session, change.events, work.run, work, after, follow=True)


def _known_run(session: Session, request: Request) -> Run | None:
    run = Run.objects.filter(session=session, idempotency_key=request.key).first()
    if run is not None and run.request_hash != request.hash:
        raise IdempotencyConflict()
    return run


def _seq_before(run: Run) -> int:
    first = Event.objects.filter(run=run).order_by("seq").values_list("seq", flat=True).first()
    return (first or 1) - 1


def _new_run(change: Change, request: Request, owner: str | None = None) -> Run:
    """Inserts the run, running when an owner is named or it is handed over, else queued with its text."""
    run = _RUN(
        session=change.session,
        caller=request.who,
        correlation_id=request.correlation_id,
        traceparent=request.traceparent,
        stream_mode=request.stream_mode,
        idempotency_key=request.key or None,
        request_hash=request.hash if request.key else "",
        created_at=change.now,
    )
    if owner is not None:
        steps.lease(change, run, owner)
        _supersede(change, hide=request.on_busy == "rollback")
    else:
        run.request = asdict(request)
    prepared.insert([run])
    return run


def _supersede(change: Change, *, hide: bool) -> None:
    """A new message ends the run that waits for its client; with `hide` its exchange no longer goes up."""
    waiting_id = change.session.active_run_id  # type: ignore[attr-defined]
    if waiting_id is None:
        return
    waiting = Run.objects.get(pk=waiting_id)
    closing.close_calls(change, waiting, reason="a new message came first")
    closing.end_run(change, waiting, RunState.SUPERSEDED, events.TASK_SUPERSEDED)
    if hide:
        Message.objects.filter(run=waiting).update(in_context=False)


def _queue(change: Change, request: Request) -> Run:
    session = change.session
    if request.on_busy == "reject":
        raise SessionBusy()
    waiting = Run.objects.filter(session=session, state=RunState.QUEUED)
    if waiting.count() >= settings.MAX_WAITING_MESSAGES:
        raise QueueFull()
    stopped = _ask_to_stop(change, request.who) if request.on_busy in ("interrupt", "rollback") else None
    if stopped is not None and request.on_busy == "rollback":
        request = replace(request, rolls_back=stopped.id)
    return _wait(change, request)


def _wait(change: Change, request: Request) -> Run:
    run = _new_run(change, request)
    change.event(events.TASK_QUEUED, run=run)
    return run


def _ask_to_stop(change: Change, who: str) -> Run | None:
    """Leaves the wish at the run at work; its owner reads it within a second. One that nobody has claimed ends here."""
    run = Run.objects.filter(session=change.session, state=RunState.RUNNING).first()
    if run is not None:
        audit_cancel(change, run, who)
    if run is not None and run.lease_owner == HANDED_OVER:
        closing.cancel_run(change, run, reason="cancelled")
    elif run is not None:
        Run.objects.filter(pk=run.id).update(cancel_requested_at=change.now)
        change.event(events.CANCEL_REQUESTED, run=run)
    return run


def _begin(change: Change, run: Run, request: Request, agents: Sequence[str]) -> Work:
    """The first transaction of a turn: the user's message, the run's start, and the opened answer."""
    session = change.session
    rows = history.load(session) if session.last_number else []
    change.touch()
    user = change.message(Message.USER, request.content, run=run)
    services.give_title(session, user)
    change.event(events.MESSAGE_RECEIVED, {"role": "user"}, run=run, message=user)
    change.event(events.TASK_STARTED, {"agent": session.current_agent}, run=run)
    if request.agent and request.agent != session.current_agent:
        services.audit_switch(change, request.agent, request.who)
        services.record_switch(change, request.agent, reason="User requested", confidence="high", run=run)
    return steps.open_step(change, run, [*rows, user], agents)


# --- waiting messages --------------------------------------------------------------------------------------------


def start_next(session_pk: int, owner: str, agents: Sequence[str]) -> Outcome | None:
    """Starts the oldest waiting message, when no run is at work and a place is free; None when nothing is started."""
    with writing.locked(session_pk) as change:
        session = change.session
        if session.active_run_state == RunState.RUNNING:  # type: ignore[attr-defined]
            return None
        run = Run.objects.filter(session=session, state=RunState.QUEUED).order_by("pk").first()
        if run is None:
            return None
        if fault := _too_late(session, run):
            closing.end_with_fault(change, run, RunState.FAILED, events.TASK_FAILED, fault)
            return Outcome(session, change.events, fault=fault)
        if not places.is_free(owner, run.caller):
            return None
        request = Request(**run.request)
        change.correlation_id = run.correlation_id
        _supersede(change, hide=request.on_busy == "rollback")
        if request.rolls_back:
            Message.objects.filter(run=request.rolls_back, session=session).update(in_context=False)
        steps.lease(change, run, owner)
        run.request = {}
        run.save()
        work = _begin(change, run, request, agents)
        return Outcome(session, change.events, run, work)


def _too_late(session: Session, run: Run) -> RuntimeFault | None:
    age = (timezone.now() - run.created_at).total_seconds()
    if age > settings.QUEUE_WAIT_SECONDS:
        return WaitedTooLong(seconds=round(settings.QUEUE_WAIT_SECONDS))
    if session.message_count >= settings.MAX_MESSAGES_PER_SESSION:
        return SessionFull(limit=settings.MAX_MESSAGES_PER_SESSION)
    return None


def drop_queued(run: Run) -> Outcome | None:
    """Ends a message that waited too long; None when it has started meanwhile."""
    with writing.locked(run.session_id) as change:
        queued = Run.objects.filter(pk=run.id, state=RunState.QUEUED).first()
        if queued is None:
            return None
        fault = WaitedTooLong(seconds=round(settings.QUEUE_WAIT_SECONDS))
        closing.end_with_fault(change, queued, RunState.FAILED, events.TASK_FAILED, fault)
        return Outcome(change.session, change.events, queued)


# --- cancel, retry -----------------------------------------------------------------------------------------------


def request_cancel(session_id: str, *, run_id: int | None = None, who: str = audit.SYSTEM) -> Run | None:
    """Stops the active run, else the oldest waiting message, or just `run_id`; None when there is nothing to stop.

    A run at work is asked, and stopped by its owner; any other ends here, also one that nobody has claimed.
    """
    with writing.locked(session_id) as change:
        unfinished = Run.objects.filter(session=change.session, state__in=closing.UNFINISHED)
        if run_id is not None:
            unfinished = unfinished.filter(pk=run_id)
        active = Q(state__in=[RunState.RUNNING, RunState.WAITING])
        run = unfinished.filter(active).first() or unfinished.order_by("pk").first()
        if run is None:
            return None
        if run.state == RunState.RUNNING:
            return _ask_to_stop(change, who)
        audit_cancel(change, run, who)
        closing.cancel_run(change, run, reason="cancelled")
        return run


def audit_cancel(change: Change, run: Run, who: str) -> None:
    audit.record(change, audit.RUN_CANCEL, who, subject=str(run.id), before={"state": run.state})


def retry(
    session_id: str, owner: str, agents: Sequence[str], *, run_id: int | None = None, who: str = audit.SYSTEM
) -> Outcome:
    """Runs the last turn again when it failed, was cut or cancelled: its question goes up once, its text no longer.

    With `run_id` only when that is the last one. It does not wait: raises SessionNotFound, SessionBusy, NothingToRetry,
    and TooManyTurns.
    """
    with writing.locked(session_id) as change:
        session = change.session
        services.require_active(session)
        if session.active_run_id or session.has_queue:  # type: ignore[attr-defined]
            raise SessionBusy()
        last = Run.objects.filter(session=session).order_by("-pk").first()
        if last is None or run_id not in (None, last.id) or last.state not in RETRIABLE:
            raise NothingToRetry()
        if not places.is_free(owner, who):
            raise TooManyTurns()
        after = session.last_seq
        Message.objects.filter(run=last, state=MessageState.INTERRUPTED).update(in_context=False)
        run = Run(session=session, caller=who, correlation_id=last.correlation_id, stream_mode=last.stream_mode)
        steps.lease(change, run, owner)
        prepared.insert([run])
        audit.record(change, audit.RUN_RETRY, who, subject=str(last.id), before={"state": last.state})
        change.touch()
        if last.request:  # it never started: its message is still to be said
            work = _begin(change, run, Request(**last.request), agents)
        else:
            change.event(events.TASK_STARTED, {"agent": session.current_agent, "retry_of": last.id}, run=run)
            work = steps.open_step(change, run, history.load(session), agents)
        return Outcome(session, change.events, run, work, after, follow=True)
