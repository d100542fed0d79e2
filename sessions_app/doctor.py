"""What must never be, by name: each broken state with the check that finds it and the repair that ends it.

The watchdog runs the repairs that are safe beside live turns; `manage.py doctor` prints all. Open calls and approvals
are not broken until their time is over. A repair takes its own look under the session's lock: what has healed
meanwhile is left alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta

from django.db.models import Count, Exists, F, Max, Min, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.utils import timezone

from sessions_app import answers, approvals, audit, clock, closing, database, events, gauges, leases, runs, writing
from sessions_app.conf import settings
from sessions_app.errors import RunInterrupted, SessionNotFound
from sessions_app.models import (
    HANDED_OVER,
    OPEN_CALL_STATES,
    Approval,
    ApprovalState,
    Event,
    Message,
    MessageState,
    Run,
    RunState,
    Session,
    ToolCall,
    ToolCallState,
)

SETTLING_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Broken:
    """A broken state: `find` names the sessions that are in it, `repair` ends it there; None where nobody can."""

    name: str
    meaning: str
    find: Callable[[], Iterable[int]]
    repair: Callable[[int], object] | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One session in one broken state."""

    broken: Broken
    session_pk: int
    session_id: str


def _sessions(rows: QuerySet[Run] | QuerySet[Message] | QuerySet[ToolCall] | QuerySet[Approval]) -> Iterable[int]:
    return rows.order_by("session_id").values_list("session_id", flat=True).distinct()


# --- runs --------------------------------------------------------------------------------------------------------


def _lost_runs() -> Iterable[int]:
    late = clock.now() - timedelta(seconds=SETTLING_SECONDS)
    lost = Run.objects.filter(Q(lease_until__lt=late) | Q(lease_until=None), state=RunState.RUNNING)
    return _sessions(lost.exclude(lease_owner=HANDED_OVER))  # no request has left: it is offered again


def _idle_waits() -> Iterable[int]:
    calls = ToolCall.objects.filter(run=OuterRef("pk"), state__in=OPEN_CALL_STATES)
    return _sessions(Run.objects.filter(~Exists(calls), state=RunState.WAITING))


def _end_idle_wait(session_pk: int) -> None:
    """A run that waits for nothing is ended, so that the session is free and the turn can be retried."""
    with writing.locked(session_pk) as change:
        run = Run.objects.filter(session=session_pk, state=RunState.WAITING).first()
        if run and not ToolCall.objects.filter(run=run, state__in=OPEN_CALL_STATES).exists():
            fault = RunInterrupted(kept=0)
            closing.end_with_fault(change, run, RunState.INTERRUPTED, events.TASK_INTERRUPTED, fault)


def _stale_queue() -> Iterable[int]:
    late = timezone.now() - timedelta(seconds=settings.QUEUE_WAIT_SECONDS + SETTLING_SECONDS)
    return _sessions(Run.objects.filter(state=RunState.QUEUED, created_at__lt=late))


def _drop_stale_queue(session_pk: int) -> None:
    late = timezone.now() - timedelta(seconds=settings.QUEUE_WAIT_SECONDS)
    for run in Run.objects.filter(session=session_pk, state=RunState.QUEUED, created_at__lt=late):
        runs.drop_queued(run)


# --- messages, calls, approvals ----------------------------------------------------------------------------------


def _ownerless_messages() -> QuerySet[Message]:
    return Message.objects.filter(state=MessageState.OPEN).exclude(run__state=RunState.RUNNING)


def _close_ownerless_messages(session_pk: int) -> None:
    with writing.locked(session_pk) as change:
        for message in _ownerless_messages().filter(session=session_pk).select_related("run"):
            run = message.run or Run.objects.filter(session=session_pk).order_by("pk").first()
            if run is not None:
                cut = MessageState.INTERRUPTED if message.content else MessageState.COMPLETE
                closing.close_message(change, run, message.pk, message.content, is_final=False, state=cut)


def _endless_calls() -> QuerySet[ToolCall]:
    return ToolCall.objects.filter(state__in=OPEN_CALL_STATES).exclude(run__state=RunState.WAITING)


def _close_endless_calls(session_pk: int) -> None:
    with writing.locked(session_pk) as change:
        for run in Run.objects.filter(pk__in=_endless_calls().filter(session=session_pk).values("run")):
            closing.close_calls(change, run, reason="its run had ended")


def _orphan_approvals() -> QuerySet[Approval]:
    return Approval.objects.filter(state=ApprovalState.PENDING).exclude(call__state=ToolCallState.PENDING)


def _close_orphan_approvals(session_pk: int) -> None:
    with writing.locked(session_pk) as change:
        found = _orphan_approvals().filter(session=session_pk).values("pk")
        Approval.objects.filter(pk__in=found).update(state=ApprovalState.CLOSED, decided_at=change.now)


def _late_approvals() -> Iterable[int]:
    late = timezone.now() - timedelta(seconds=SETTLING_SECONDS)
    return _sessions(approvals.late().filter(expires_at__lt=late))


# --- numbers -----------------------------------------------------------------------------------------------------


def _counted() -> QuerySet[Message]:
    """What a session's counter counts: all that is listed, but for a message still being written."""
    return Message.objects.listed().exclude(state=MessageState.OPEN)


def _wrong_counters() -> Iterable[int]:
    right = dict(_counted().order_by().values_list("session").annotate(n=Count("pk")))
    for pk, count in Session.objects.values_list("pk", "message_count").iterator():
        if right.get(pk, 0) != count:
            yield pk


def _recount(session_pk: int) -> None:
    with writing.locked(session_pk) as change:
        change.session.message_count = _counted().filter(session=session_pk).count()


def _numbers_behind() -> Iterable[int]:
    highest = Session.objects.annotate(
        seq=Coalesce(Max("events__seq"), 0),
    ).filter(seq__gt=F("last_seq"))
    numbered = Session.objects.annotate(number=Coalesce(Max("messages__number"), 0)).filter(number__gt=F("last_number"))
    return sorted({*highest.values_list("pk", flat=True), *numbered.values_list("pk", flat=True)})


def _renumber(session_pk: int) -> None:
    with writing.locked(session_pk) as change:
        highest = Event.objects.filter(session=session_pk).aggregate(at=Coalesce(Max("seq"), 0))["at"]
        numbered = Message.objects.filter(session=session_pk).aggregate(at=Coalesce(Max("number"), 0))["at"]
        change.session.last_seq = max(change.session.last_seq, highest)
        change.session.last_number = max(change.session.last_number, numbered)


def _gaps() -> Iterable[int]:
    """Retention takes the beginning of a log, up to the number that the session names, never a piece out of it."""
    logs = Event.objects.order_by().values("session", begins=F("session__first_seq"))
    spans = logs.annotate(n=Count("pk"), first=Min("seq"), last=Max("seq"))
    whole = Q(first=F("begins"), last=F("first") + F("n") - 1)
    return [int(pk) for pk in spans.exclude(whole).values_list("session", flat=True)]


def _untold_messages() -> QuerySet[Message]:
    """Where the beginning of the log is not kept, only messages after the first one that it still tells of."""
    told = Event.objects.filter(message=OuterRef("pk"))
    kept = Event.objects.filter(session=OuterRef("session"), message__isnull=False).order_by("message__number")
    silent = Message.objects.filter(~Exists(told), role__in=[Message.USER, Message.ASSISTANT])
    return silent.filter(Q(session__first_seq=1) | Q(number__gt=Subquery(kept.values("message__number")[:1])))


def _tell_messages(session_pk: int) -> None:
    with writing.locked(session_pk) as change:
        for message in _untold_messages().filter(session=session_pk):
            told = {"role": message.role, "repaired": True}
            change.event(events.MESSAGE_RECEIVED, told, message=message)


BROKEN: tuple[Broken, ...] = (
    Broken("run-without-lease", "a run at work that no process owns", _lost_runs, leases.interrupt_expired),
    Broken("run-waits-for-nothing", "a run that waits without an open call", _idle_waits, _end_idle_wait),
    Broken("stale-queue", "a message that waits longer than it may", _stale_queue, _drop_stale_queue),
    Broken(
        "open-message",
        "a message still being written by no run",
        lambda: _sessions(_ownerless_messages()),
        _close_ownerless_messages,
    ),
    Broken(
        "endless-call",
        "a tool call open after its run has ended",
        lambda: _sessions(_endless_calls()),
        _close_endless_calls,
    ),
    Broken(
        "orphan-approval",
        "an approval that waits for a call that does not",
        lambda: _sessions(_orphan_approvals()),
        _close_orphan_approvals,
    ),
    Broken("late-approval", "an approval that waits past its time", _late_approvals, answers.expire),
    Broken("wrong-counter", "a session whose message count is off", _wrong_counters, _recount),
    Broken("numbers-behind", "a session that would give a number twice", _numbers_behind, _renumber),
    Broken("untold-message", "a message without its event", lambda: _sessions(_untold_messages()), _tell_messages),
    Broken("event-gap", "a log with a number missing", _gaps),
)


# What the watchdog looks for all day: cheap, by partial indexes over what is unfinished.
WATCHED = (
    "run-without-lease",
    "run-waits-for-nothing",
    "stale-queue",
    "open-message",
    "endless-call",
    "orphan-approval",
    "late-approval",
)


def examine(names: Iterable[str] = ()) -> list[Finding]:
    """All that is broken now, or what of the named states. A state seen in passing, while a turn ends, is looked at
    twice: what is not there any more the second time is not told."""
    wanted = set(names)
    chosen = [broken for broken in BROKEN if not wanted or broken.name in wanted]
    return [finding for broken in chosen for finding in _confirmed(broken)]


def _confirmed(broken: Broken) -> list[Finding]:
    first = set(broken.find())
    found = sorted(first & set(broken.find())) if first else []
    known = dict(Session.objects.filter(pk__in=found).values_list("pk", "session_id"))
    return [Finding(broken, pk, known[pk]) for pk in found if pk in known]


def note(found: Iterable[Finding]) -> None:
    """Keeps how many there are, when all was looked at."""
    counts = Counter(finding.broken.name in WATCHED for finding in found)
    gauges.note_broken(gauges.WATCHDOG, counts[True])
    gauges.note_broken(gauges.DOCTOR, counts[False])


def note_repaired(finding: Finding) -> None:
    """Keeps that there is one less; what the watchdog looks for it will count itself."""
    if finding.broken.name not in WATCHED:
        database.before_commit(gauges.note_repaired, 1)


def repair(finding: Finding, *, who: str = audit.SYSTEM) -> bool:
    """Ends the broken state; False where there is no repair, or nothing left to repair."""
    if finding.broken.repair is None:
        return False
    try:
        with database.atomic():
            finding.broken.repair(finding.session_pk)
            with writing.locked(finding.session_pk) as change:
                audit.record(change, audit.SESSION_REPAIR, who, subject=finding.broken.name)
    except SessionNotFound:
        return False
    return True
