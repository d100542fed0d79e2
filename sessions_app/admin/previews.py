"""What an action would take: counted, table by table, and the first of it by name. A fixed number of queries."""

from __future__ import annotations

from typing import Any

from django.db.models import Model, QuerySet
from django.utils.text import capfirst
from django.utils.translation import gettext as _

from sessions_app import cleanup
from sessions_app.closing import UNFINISHED
from sessions_app.models import (
    AgentSwitch,
    Approval,
    ApprovalState,
    AuditEntry,
    Event,
    EventDelivery,
    LLMRequest,
    Message,
    Run,
    Session,
    ToolCall,
    WebhookAttempt,
)

NAMED = 20
TABLES: tuple[tuple[type[Model], str], ...] = (  # and how each of them names its session
    (Message, "session"),
    (Run, "session"),
    (ToolCall, "session"),
    (Approval, "session"),
    (AgentSwitch, "session"),
    (LLMRequest, "session"),
    (Event, "session"),
    (EventDelivery, "event__session"),
    (WebhookAttempt, "event__session"),
    (AuditEntry, "session"),
)
Counts = list[tuple[str, int]]


def touched(sessions: QuerySet[Session]) -> dict[str, Any]:
    """What the sessions hold, counted, and the first of them by name."""
    chosen, count = sessions.order_by().values("pk"), sessions.count()
    under_way = Run.objects.filter(session__in=chosen, state__in=UNFINISHED).count()
    waiting = Approval.objects.filter(session__in=chosen, state=ApprovalState.PENDING).count()
    counts = [
        (_("Sessions"), count),
        (_("Messages"), Message.objects.filter(session__in=chosen).count()),
        (_("Runs under way"), under_way),
        (_("Waiting approvals"), waiting),
        (_("Events"), Event.objects.filter(session__in=chosen).count()),
    ]
    return _named(sessions, count, counts)


def removed(sessions: QuerySet[Session]) -> dict[str, Any]:
    """All rows of the sessions, table by table."""
    count = sessions.count()
    return _named(sessions, count, [(_("Sessions"), count), *_rows(sessions.order_by().values("pk"))])


def purged(sessions: QuerySet[Session]) -> dict[str, Any]:
    """What a purge would remove; the sessions in use, which it leaves alone, by name beside it."""
    at_rest = cleanup.purgeable().values("pk")
    going = removed(sessions.filter(pk__in=at_rest))
    kept = sessions.exclude(pk__in=at_rest)
    count = kept.count()
    return {**going, "kept": {"sessions": list(kept[:NAMED]), "count": count, "unnamed": max(count - NAMED, 0)}}


def _rows(chosen: Any) -> Counts:
    return [(_title(table), table._default_manager.filter(**{f"{path}__in": chosen}).count()) for table, path in TABLES]


def _title(table: type[Model]) -> str:
    return capfirst(str(table._meta.verbose_name_plural))


def _named(sessions: QuerySet[Session], count: int, counts: Counts) -> dict[str, Any]:
    return {"sessions": list(sessions[:NAMED]), "counts": counts, "unnamed": max(count - NAMED, 0)}
