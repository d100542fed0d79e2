"""What handlers are owed of the log: claimed under a lease, tried again by a policy, at last a dead letter.

Every function is one transaction. A delivery is held by the claim that took it, known by its owner and the end of its
lease; what anybody else reports of it changes nothing. Who runs the handlers, a loop or a job queue, is no matter here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db.models import Count, F, Min, QuerySet

from sessions_app import audit, clock, database
from sessions_app.models import DeliveryState, EventDelivery

NAMED_IDS = 100  # of a replay, in the audit
GIVEN_UP_AT_ONCE = 500
ERROR_CHARACTERS = 200  # what the column holds
MOST_DOUBLINGS = 100  # beyond, a power is too large for a float; any wait is at its longest long before


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a failed delivery is tried again: each wait `factor` times the one before, up to the longest, and a part of
    it (`jitter`, 0 to 1) left to chance, so that what failed together does not come back together."""

    max_attempts: int = 8
    first_seconds: float = 1
    factor: float = 2
    longest_seconds: float = 3600
    jitter: float = 0.2

    def wait_seconds(self, attempts: int, chance: float) -> float | None:
        """The wait after so many attempts; None when they were the last. `chance`: 0 waits in full, 1 the shortest."""
        if attempts >= self.max_attempts:
            return None
        doublings = min(max(attempts - 1, 0), MOST_DOUBLINGS)
        return min(self.first_seconds * self.factor**doublings, self.longest_seconds) * (1 - self.jitter * chance)


# --- taking ------------------------------------------------------------------------------------------------------


def with_due(handlers: Collection[str], *, for_seconds: float = 0) -> list[str]:
    """Those of the handlers that are owed something by now, or have been for so long."""
    before = clock.now() - timedelta(seconds=for_seconds)
    due = EventDelivery.objects.filter(state=DeliveryState.DUE, handler__in=handlers, next_at__lte=before)
    return list(due.order_by("handler").values_list("handler", flat=True).distinct())


def claim(handler: str, *, owner: str, lease_seconds: float, limit: int, in_order: bool = False) -> list[EventDelivery]:
    """Takes up to `limit` due deliveries of the handler, each with its event and session, under a lease.

    With `in_order` a session's next one is due only when all before it were delivered or given up.
    """
    now = clock.now()
    until = now + timedelta(seconds=lease_seconds)
    with database.atomic():
        due = _first_of_sessions(handler) if in_order else _due(handler)
        # Locked rows are somebody else's by the time we could have them (SQLite has no such locks and ignores this).
        free = due.filter(next_at__lte=now).order_by("next_at", "pk").select_for_update(skip_locked=True, of=("self",))
        ids = list(free.values_list("pk", flat=True)[:limit])
        if not ids:
            return []
        EventDelivery.objects.filter(pk__in=ids, state=DeliveryState.DUE).update(
            state=DeliveryState.RUNNING, attempts=F("attempts") + 1, lease_owner=owner, lease_until=until
        )
        mine = EventDelivery.objects.filter(pk__in=ids, lease_owner=owner, lease_until=until)
        return list(mine.select_related("event__session").order_by("pk"))


def _due(handler: str) -> QuerySet[EventDelivery]:
    return EventDelivery.objects.filter(handler=handler, state=DeliveryState.DUE)


def _first_of_sessions(handler: str) -> QuerySet[EventDelivery]:
    """The oldest delivery of each session that has none at work; ids grow with a session's events."""
    by_session = _due(handler).order_by().values("event__session")
    running = EventDelivery.objects.filter(handler=handler, state=DeliveryState.RUNNING)
    return (
        _due(handler)
        .filter(pk__in=by_session.annotate(first=Min("pk")).values("first"))
        .exclude(event__session__in=running.values("event__session"))
    )


def lapsed(handlers: Collection[str]) -> list[EventDelivery]:
    """Deliveries whose lease has ended under their owner: it was killed, or it could not report."""
    late = EventDelivery.objects.filter(state=DeliveryState.RUNNING, lease_until__lt=clock.now())
    return list(late.filter(handler__in=handlers).order_by("lease_until"))


def has_unknown(known: Collection[str], *, for_seconds: float) -> bool:
    """Whether handlers that are not among the known ones are owed something: due for so long, or under a lease that
    ended so long ago."""
    return any(rows.exclude(handler__in=known).exists() for rows in _overdue(for_seconds))


def _overdue(for_seconds: float) -> tuple[QuerySet[EventDelivery], QuerySet[EventDelivery]]:
    """Due for so long, and left so long ago; two queries, since each state has an index of its own."""
    before = clock.now() - timedelta(seconds=for_seconds)
    return (
        EventDelivery.objects.filter(state=DeliveryState.DUE, next_at__lte=before),
        EventDelivery.objects.filter(state=DeliveryState.RUNNING, lease_until__lte=before),
    )


def _unknown(known: Collection[str], for_seconds: float) -> QuerySet[EventDelivery]:
    due, left = _overdue(for_seconds)
    return (due | left).exclude(handler__in=known)


def give_up_unknown(known: Collection[str], *, for_seconds: float, error: str) -> dict[str, int]:
    """Makes dead letters of a bounded number of those. Returns how many of each handler."""
    with database.atomic():
        owed = _unknown(known, for_seconds).order_by("pk")
        free = owed.select_for_update(skip_locked=True, of=("self",))
        found = dict(free.values_list("pk", "handler")[:GIVEN_UP_AT_ONCE])
        EventDelivery.objects.filter(pk__in=found).update(
            state=DeliveryState.DEAD, lease_owner="", lease_until=None, last_error=_short(error)
        )
    return Counter(found.values())


# --- reporting ---------------------------------------------------------------------------------------------------


def succeed(delivery: EventDelivery) -> bool:
    """False when it is not ours any more."""
    return _end_lease(delivery, state=DeliveryState.DELIVERED, delivered_at=clock.now(), last_error="")


def fail(delivery: EventDelivery, error: str, *, policy: RetryPolicy, chance: float) -> DeliveryState | None:
    """Makes it due again when the policy says so, else a dead letter; None when it is not ours any more.

    `error` is shown to people and kept: it must hold neither secrets nor what people wrote.
    """
    wait = policy.wait_seconds(delivery.attempts, chance)
    state = DeliveryState.DEAD if wait is None else DeliveryState.DUE
    next_at = clock.now() + timedelta(seconds=wait or 0)
    return state if _end_lease(delivery, state=state, next_at=next_at, last_error=_short(error)) else None


def give_back(delivery: EventDelivery) -> bool:
    """Makes it due at once, as if it had not been claimed: its process ends."""
    return _end_lease(delivery, state=DeliveryState.DUE, attempts=F("attempts") - 1, next_at=clock.now())


def _end_lease(delivery: EventDelivery, **changes: object) -> bool:
    held = EventDelivery.objects.filter(
        pk=delivery.pk,
        state=DeliveryState.RUNNING,
        lease_owner=delivery.lease_owner,
        lease_until=delivery.lease_until,
    )
    return held.update(lease_owner="", lease_until=None, **changes) == 1


def _short(error: str) -> str:
    """One line that every database takes and every terminal shows."""
    line = "".join(char if char.isprintable() else " " for char in error[:ERROR_CHARACTERS])
    return line.strip()


# --- by hand -----------------------------------------------------------------------------------------------------


def replay(ids: Sequence[int], *, who: str = audit.SYSTEM) -> int:
    """Makes these due at once, with all their attempts before them, also when they were delivered. Returns how many;
    one that is being run is left alone. For a handler that keeps order they come after what was delivered meanwhile."""
    chosen = EventDelivery.objects.filter(pk__in=ids).exclude(state=DeliveryState.RUNNING)
    return _again(chosen, who, {"ids": sorted(ids)[:NAMED_IDS]})


def replay_dead(handler: str = "", *, who: str = audit.SYSTEM) -> int:
    """Makes all dead letters due, or those of one handler. Returns how many."""
    return _again(listed(state=DeliveryState.DEAD, handler=handler), who, {"handler": handler or "*"})


def discard(ids: Sequence[int], *, who: str = audit.SYSTEM) -> int:
    """Ends these dead letters: kept, and no longer counted as dead. Returns how many; others are left alone."""
    return _away(listed(state=DeliveryState.DEAD).filter(pk__in=ids), who, {"ids": sorted(ids)[:NAMED_IDS]})


def discard_dead(handler: str = "", *, who: str = audit.SYSTEM) -> int:
    """Discards all dead letters, or those of one handler. Returns how many."""
    return _away(listed(state=DeliveryState.DEAD, handler=handler), who, {"handler": handler or "*"})


def _away(dead: QuerySet[EventDelivery], who: str, chosen: dict[str, Any]) -> int:
    with database.atomic():
        count = dead.order_by().update(state=DeliveryState.DISCARDED)
        if count:
            audit.record_installation(audit.DELIVERY_DISCARD, who, after={**chosen, "count": count})
    return count


def _again(deliveries: QuerySet[EventDelivery], who: str, chosen: dict[str, Any]) -> int:
    now = clock.now()
    with database.atomic():
        count = deliveries.order_by().update(
            state=DeliveryState.DUE, attempts=0, next_at=now, last_error="", delivered_at=None
        )
        if count:
            audit.record_installation(audit.DELIVERY_REPLAY, who, after={**chosen, "count": count})
    return count


# --- reading -----------------------------------------------------------------------------------------------------


def counts() -> dict[str, int]:
    """How many there are of each state."""
    found = EventDelivery.objects.order_by().values_list("state").annotate(Count("pk"))
    return dict.fromkeys(DeliveryState.values, 0) | dict(found)


def listed(*, state: str = "", handler: str = "") -> QuerySet[EventDelivery]:
    """The newest first, of one state and of one handler when they are named."""
    wanted = {"state": state, "handler": handler}
    return EventDelivery.objects.filter(**{name: value for name, value in wanted.items() if value}).order_by("-pk")
