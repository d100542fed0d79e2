"""What is not kept for ever, and how it goes: portion by portion, each in a short transaction that waits for nobody.

Every portion looks again, under its locks, at what was found before: what is in use by then, or held by somebody who
uses it, is left for another time. Whoever stops in the middle leaves whole sessions, and logs without a gap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Exists, F, Min, OuterRef, Q, QuerySet, Subquery
from django.utils import timezone

from sessions_app import audit, closing, database, failpoints, services, writing
from sessions_app.closing import UNFINISHED
from sessions_app.errors import SessionInUse
from sessions_app.models import (
    Approval,
    ApprovalState,
    Batch,
    DeliveryState,
    Event,
    EventDelivery,
    LLMRequest,
    Run,
    RunState,
    Session,
)
from sessions_app.retention import (
    PORTION_ROWS,
    PORTION_SESSIONS,
    Portion,
    Retention,
    free,
    one_by_one,
    patience_ended,
    several,
)

OWED = (DeliveryState.DUE, DeliveryState.RUNNING, DeliveryState.DEAD)


@dataclass(frozen=True, slots=True)
class Chore:
    """One kind of thing that goes. `apply` is one transaction and returns how many went; when they were PORTION_ROWS,
    the portion has more."""

    name: str
    is_wanted: Callable[[Retention], bool]
    count: Callable[[Retention], int]
    portions: Callable[[Retention], Iterator[Portion]]
    apply: Callable[[Retention, Portion], int]


# --- sessions that nobody uses -----------------------------------------------------------------------------------


def at_rest(waiting: datetime | None) -> QuerySet[Session]:
    """Sessions that nobody uses: none that works, has a message waiting or an approval that may still be decided. One
    that waits for its client since before `waiting` is at rest as well: what is out there will not come back."""
    runs = Run.objects.filter(session=OuterRef("pk"))
    asked = Approval.objects.filter(session=OuterRef("pk"), state=ApprovalState.PENDING)
    rows = Session.objects.filter(
        ~Exists(runs.filter(state__in=[RunState.QUEUED, RunState.RUNNING])),
        ~Exists(asked.exclude(expires_at__lte=timezone.now())),
    )
    waits = Exists(runs.filter(state=RunState.WAITING))
    return rows.filter(Q(last_activity__lt=waiting) | ~waits) if waiting else rows.filter(~waits)


def _unused(retention: Retention) -> QuerySet[Session]:
    """One that waits for its client is in use as long as people are waited for by default."""
    return at_rest(retention.waiting).filter(is_active=True, last_activity__lt=retention.unused)


def _expire(retention: Retention, portion: Portion) -> int:
    with database.atomic():
        going = free(_unused(retention), portion)
        for pk in going:
            services.expire(pk, who=retention.who)
    return len(going)


def purgeable() -> QuerySet[Session]:
    """What an operator may purge at once, whatever its age."""
    return at_rest(patience_ended())


def purge(session_id: str, *, who: str) -> None:
    """Removes a session and all that is stored of it, at once. Raises SessionNotFound, and SessionInUse for one that
    somebody uses."""
    with database.atomic():
        with writing.locked(session_id) as change:
            pk = change.session.pk
            if not purgeable().filter(pk=pk).exists():
                raise SessionInUse()
            closing.close_runs(change, reason="the session was purged")
        services.remove([pk], audit.SESSION_PURGE, who)


def _expired(retention: Retention) -> QuerySet[Session]:
    unfinished = Run.objects.filter(session=OuterRef("pk"), state__in=UNFINISHED)
    return Session.objects.filter(~Exists(unfinished), is_active=False, expired_at__lt=retention.expired)


def _purge(retention: Retention, portion: Portion) -> int:
    with database.atomic():
        going = free(_expired(retention), portion)
        services.remove(going, audit.SESSION_PURGE, retention.who)
        failpoints.hit("purging")
    return len(going)


# --- the beginnings of logs --------------------------------------------------------------------------------------


def _with_old_events(retention: Retention) -> QuerySet[Session]:
    first = Event.objects.filter(session=OuterRef("pk"), seq=OuterRef("first_seq")).values("at")
    logged = Session.objects.filter(created_at__lt=retention.stored, first_seq__lte=F("last_seq"))
    return logged.annotate(first_at=Subquery(first[:1])).filter(first_at__lt=retention.stored)


def _kept_from(session: Session, retention: Retention) -> int:
    """The number of the first event that stays: a log loses its beginning, by whole turns, and nothing that an
    unfinished run or a handler still needs."""
    log = Event.objects.filter(session=session)
    owed = EventDelivery.objects.filter(event=OuterRef("pk"), state__in=OWED)
    needed = Q(at__gte=retention.stored) | Q(run__state__in=UNFINISHED) | Exists(owed)
    kept = _first(log.filter(needed))
    while kept is not None:
        runs = log.filter(seq__gte=kept, run__isnull=False).values("run")
        begun = _first(log.filter(run__in=runs, seq__lt=kept))
        if begun is None:
            return kept
        kept = begun
    return session.last_seq + 1


def _first(events: QuerySet[Event]) -> int | None:
    found: int | None = events.aggregate(first=Min("seq"))["first"]
    return found


def _count_events(retention: Retention) -> int:
    portions = several(_with_old_events(retention), PORTION_ROWS)
    sessions = (session for portion in portions for session in Session.objects.filter(pk__in=portion.ids))
    return sum(_kept_from(session, retention) - session.first_seq for session in sessions)


def _remove_events(retention: Retention, portion: Portion) -> int:
    """The oldest of one log. The session's audit tells from where on there are any."""
    with database.atomic():
        return sum(_trim(pk, retention) for pk in free(_with_old_events(retention), portion))


def _trim(session_pk: int, retention: Retention) -> int:
    with writing.locked(session_pk) as change:
        session, begun = change.session, change.session.first_seq
        kept = min(_kept_from(session, retention), begun + PORTION_ROWS)
        if kept > begun:
            Event.objects.filter(session=session, seq__lt=kept).delete()
            session.first_seq = kept
            before, after = {"first_event": begun}, {"first_event": kept}
            audit.record(change, audit.RETENTION, retention.who, subject="events", before=before, after=after)
    return kept - begun


# --- rows that nobody reads any more -----------------------------------------------------------------------------


def _delivered(retention: Retention) -> QuerySet[EventDelivery]:
    delivered = Q(state=DeliveryState.DELIVERED, delivered_at__lt=retention.stored)
    return EventDelivery.objects.filter(delivered | Q(state=DeliveryState.DISCARDED, next_at__lt=retention.stored))


def _asked(retention: Retention) -> QuerySet[LLMRequest]:
    """Requests to the model; before any of them goes, all are counted in the running totals."""
    return LLMRequest.objects.filter(started_at__lt=retention.stored).exclude(run__state__in=UNFINISHED)


def _asked_and_counted(retention: Retention) -> QuerySet[LLMRequest]:
    """Those that are counted already: the totals do not fall when these go."""
    return _asked(retention).filter(counted=True)


def _over(retention: Retention) -> QuerySet[Batch]:
    """Actions in the background that have ended; their trace in the audit stays."""
    return Batch.objects.filter(ended_at__lt=retention.stored)


Found = Callable[[Retention], QuerySet[EventDelivery] | QuerySet[LLMRequest] | QuerySet[Batch]]


def _remover(name: str, find: Found, expected: Found) -> Chore:
    def remove(retention: Retention, portion: Portion) -> int:
        with database.atomic():
            going = find(retention).filter(pk__in=portion.ids)
            count = going.delete()[1].get(going.model._meta.label, 0)
            if count:
                facts = {"count": count, "before": str(retention.stored)}
                audit.record_installation(audit.RETENTION, retention.who, subject=name.replace(" ", "_"), after=facts)
        return count

    return Chore(
        name,
        is_wanted=lambda retention: retention.stored is not None,
        count=lambda retention: expected(retention).count(),
        portions=lambda retention: several(find(retention), PORTION_ROWS),
        apply=remove,
    )


# What goes with something else comes before it, so that each is counted once, and a dry run counts what will go.
CHORES = (
    _remover("model requests", _asked_and_counted, expected=_asked),
    _remover("deliveries", _delivered, expected=_delivered),
    _remover("background actions", _over, expected=_over),
    Chore(
        "events",
        is_wanted=lambda retention: retention.stored is not None,
        count=_count_events,
        portions=lambda retention: one_by_one(_with_old_events(retention)),
        apply=_remove_events,
    ),
    Chore(
        "sessions to expire",
        is_wanted=lambda retention: retention.unused is not None,
        count=lambda retention: _unused(retention).count(),
        portions=lambda retention: one_by_one(_unused(retention)),
        apply=_expire,
    ),
    Chore(
        "sessions to purge",
        is_wanted=lambda retention: retention.expired is not None,
        count=lambda retention: _expired(retention).count(),
        portions=lambda retention: several(_expired(retention), PORTION_SESSIONS),
        apply=_purge,
    ),
)


def wanted(retention: Retention) -> list[Chore]:
    return [chore for chore in CHORES if chore.is_wanted(retention)]
