"""Runs that one process starts and another executes: handed over, claimed once, offered again when nobody came.

A handed-over run is at work by its state and has no owner: no request of it has left, so it may be offered again and
cancelled at once. Who has claimed it holds its lease as any owner does; its attempt stays the fencing number.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

from django.db.models import QuerySet

from sessions_app import clock, closing, events, history, leases, writing
from sessions_app.conf import settings
from sessions_app.errors import SessionNotFound, WaitedTooLong
from sessions_app.models import HANDED_OVER, ORCHESTRATOR, Message, MessageState, Run, RunState
from sessions_app.prepared import Select
from sessions_app.steps import Work


def claim(session_pk: int, run_id: int, attempt: int, owner: str) -> Work | None:
    """Makes `owner` the owner of a handed-over run, and gives its work as it was stored; None when the run is claimed,
    over or gone."""
    with suppress(SessionNotFound), writing.locked(session_pk) as change:
        handed_over = Run.objects.filter(state=RunState.RUNNING, lease_owner=HANDED_OVER)
        run = handed_over.filter(pk=run_id, session=session_pk, attempt=attempt).first()
        if run is not None:
            run.lease_owner = owner
            _prolong(run)
            return _stored_work(change, run)
    return None


def _prolong(run: Run) -> None:
    run.lease_until = clock.now() + timedelta(seconds=settings.LEASE_SECONDS)
    run.save(update_fields=["lease_owner", "lease_until"])


def _stored_work(change: writing.Change, run: Run) -> Work:
    """What the transaction that handed the run over had in its hands."""
    rows = history.load(change.session)
    message = Message.objects.filter(run=run, state=MessageState.OPEN).first()
    if message is None:
        return Work(run, change.session, ORCHESTRATOR, None, rows)
    return Work(run, change.session, message.agent, message, [row for row in rows if row.number != message.number])


def _unclaimed() -> QuerySet[Run]:
    return leases.late().filter(lease_owner=HANDED_OVER)


_UNCLAIMED = Select[tuple[int, int, int]](lambda: _unclaimed().values_list("session_id", "pk", "attempt"))


def unclaimed() -> list[tuple[int, int, int]]:
    """Runs (session, run, attempt) that were handed over and claimed by nobody in time: their job may be lost."""
    return _UNCLAIMED.all()


def offer_again(session_pk: int) -> Run | None:
    """Gives a run that nobody has claimed more time: it is to get another job. None when it needs none, since it was
    claimed meanwhile or has waited as long as a message may: then it ends."""
    with writing.locked(session_pk) as change:
        run = _unclaimed().filter(session=session_pk).first()
        if run is None:
            return None
        if (change.now - (run.active_since or run.created_at)).total_seconds() <= settings.QUEUE_WAIT_SECONDS:
            _prolong(run)
            return run
        closing.close_open_message(change, run)
        fault = WaitedTooLong(seconds=round(settings.QUEUE_WAIT_SECONDS))
        closing.end_with_fault(change, run, RunState.FAILED, events.TASK_FAILED, fault)
        return None
