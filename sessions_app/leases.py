"""Who holds which run, until when, and what becomes of a run whose owner is gone."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from django.db.models import QuerySet
from django.db.models.functions import Now

from sessions_app import closing, database, events, writing
from sessions_app.conf import settings
from sessions_app.errors import RunInterrupted
from sessions_app.models import HANDED_OVER, Message, MessageState, Run, RunState
from sessions_app.prepared import Select, Slot, Update
from sessions_app.steps import Outcome

_ASKED_TO_STOP = Select[tuple[int]](
    lambda: Run.objects.filter(state=RunState.RUNNING, cancel_requested_at__isnull=False).values_list("pk")
)
_EXPIRED = Select[tuple[int]](lambda: late().exclude(lease_owner=HANDED_OVER).values_list("session_id"))
_MINE = Select[tuple[int, datetime | None]](
    lambda: Run.objects.filter(lease_owner=Slot("owner"), state=RunState.RUNNING).values_list(
        "pk", "cancel_requested_at"
    )
)
_KEEP_TEXT = Update(lambda: Message.objects.filter(pk=Slot("message"), state=MessageState.OPEN), ("content",))


def tick(owner: str, at_work: Collection[int], texts: dict[int, tuple[int, str]]) -> tuple[set[int], set[int]]:
    """One transaction a second for all runs of a process: renews their leases and keeps their texts.

    `texts`: run -> (open message, its text so far). Returns the runs still ours, and those asked to stop. A run in our
    name that is not `at_work` here (its commit was never confirmed) is left to its lease.
    """
    with database.atomic():
        mine = Run.objects.filter(lease_owner=owner, state=RunState.RUNNING)
        if any(pk not in at_work for pk, _ in _MINE.all(owner=owner)):
            mine = mine.filter(pk__in=list(at_work))  # only then: to name hundreds costs much
        mine.update(lease_until=Now() + timedelta(seconds=settings.LEASE_SECONDS))
        # After the rows were locked: before it, somebody else may have ended what we were late with.
        rows = {pk: asked for pk, asked in _MINE.all(owner=owner) if pk in at_work}
        kept = [{"message": message, "content": text} for run, (message, text) in texts.items() if run in rows]
        _KEEP_TEXT.run_each(kept)
    return set(rows), {pk for pk, asked in rows.items() if asked}


def asked_to_stop() -> list[int]:
    """The runs at work, in whatever process, that somebody wants stopped."""
    return [pk for (pk,) in _ASKED_TO_STOP.all()]


def owners() -> list[str]:
    """Who holds the runs at work."""
    held = Run.objects.filter(state=RunState.RUNNING).exclude(lease_owner=HANDED_OVER)
    return list(held.values_list("lease_owner", flat=True).distinct())


def end_leases(owners: Sequence[str]) -> None:
    """Their runs have nobody any more: what would be found when the leases run out may be found now."""
    Run.objects.filter(state=RunState.RUNNING, lease_owner__in=owners).update(lease_until=Now())


def expired() -> list[int]:
    """Sessions whose active run has lost its owner."""
    return [session for (session,) in _EXPIRED.all()]


def late() -> QuerySet[Run]:
    """Runs at work whose time has run out."""
    return Run.objects.filter(state=RunState.RUNNING, lease_until__lt=Now()).order_by("lease_until")


def interrupt_expired(session_pk: int) -> Outcome | None:
    """Ends a run whose owner is gone as interrupted, with the text that was kept. Its last activity stays."""
    with writing.locked(session_pk) as change:
        run = late().exclude(lease_owner=HANDED_OVER).filter(session=change.session).first()
        if run is None:
            return None
        message = closing.close_open_message(change, run)
        kept = len(message.content) if message else 0
        fault = RunInterrupted(kept=kept)
        closing.end_with_fault(change, run, RunState.INTERRUPTED, events.TASK_INTERRUPTED, fault)
        return Outcome(change.session, change.events, run)
