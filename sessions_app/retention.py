"""How long things are kept, by the settings, and the portions in which they go."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import QuerySet
from django.utils import timezone

from sessions_app import audit
from sessions_app.conf import settings

HOUR, DAY = 3600, 86_400
PORTION_SESSIONS = 20
PORTION_ROWS = 1000


@dataclass(frozen=True, slots=True)
class Retention:
    """The moments before which things go, None where they stay, and who wants it so."""

    unused: datetime | None  # sessions that were not used since are expired
    waiting: datetime | None  # and those of them that wait for their client, since this one
    expired: datetime | None  # sessions that expired before it are purged
    stored: datetime | None  # events, delivered deliveries and records of model requests from before it go
    who: str = audit.SYSTEM
    shortest_seconds: float = 0  # of what is kept for a time

    @classmethod
    def by_settings(cls, who: str = audit.SYSTEM) -> Retention:
        now = timezone.now()
        idle, purge = settings.SESSION_IDLE_EXPIRE_HOURS * HOUR, settings.SESSION_PURGE_DAYS * DAY
        events, patience = settings.EVENT_RETENTION_DAYS * DAY, settings.APPROVAL_EXPIRY_SECONDS
        return cls(
            unused=_before(now, idle),
            waiting=_before(now, max(idle, patience) if patience > 0 else 0),
            expired=_before(now, purge),
            stored=_before(now, events),
            who=who,
            shortest_seconds=min((age for age in (idle, purge, events) if age > 0), default=0),
        )

    @property
    def keeps_everything(self) -> bool:
        return not (self.unused or self.expired or self.stored)


def _before(now: datetime, seconds: float) -> datetime | None:
    """None for 0, which means never, and for what reaches back beyond the calendar."""
    try:
        return now - timedelta(seconds=seconds) if seconds > 0 else None
    except OverflowError:
        return None


def patience_ended() -> datetime | None:
    """Before which a session must have been used last, for nobody to wait for its client any more; None: never."""
    return _before(timezone.now(), settings.APPROVAL_EXPIRY_SECONDS)


@dataclass(frozen=True, slots=True)
class Portion:
    """Rows of one transaction, and the key under which a group of the writer sorts it."""

    ids: tuple[int, ...]
    key: str = ""


def one_by_one(sessions: QuerySet[Any]) -> Iterator[Portion]:
    """Each session by itself, under its own name: it may be in use."""
    for found in read(sessions, "pk", "session_id"):
        yield from (Portion((pk,), name) for pk, name in found)


def several(rows: QuerySet[Any], at_once: int) -> Iterator[Portion]:
    for found in read(rows, "pk"):
        ids = tuple(pk for (pk,) in found)
        yield from (Portion(ids[start : start + at_once]) for start in range(0, len(ids), at_once))


def read(rows: QuerySet[Any], *columns: str) -> Iterator[list[Any]]:
    """All rows, a list at a time, the primary key first: nothing is held open in between."""
    last = 0
    while found := list(rows.filter(pk__gt=last).order_by("pk").values_list(*columns)[:PORTION_ROWS]):
        yield found
        last = found[-1][0]


def free(sessions: QuerySet[Any], portion: Portion) -> list[int]:
    """Those of the portion that are still meant and that nobody holds; they are ours until the transaction ends."""
    meant = sessions.filter(pk__in=portion.ids).order_by("pk").select_for_update(skip_locked=True, of=("self",))
    return list(meant.values_list("pk", flat=True))
