"""Who does what is done by schedule: the first process that comes when it is due, under a lease."""

from __future__ import annotations

from datetime import timedelta

from sessions_app import clock, database
from sessions_app.models import Schedule


def is_due(name: str) -> bool:
    """Whether `claim` has a chance: reading asks for no lock."""
    row = Schedule.objects.filter(name=name).first()
    now = clock.now()
    return row is None or (row.due_at <= now and row.lease_until <= now)


def claim(name: str, owner: str, lease_seconds: float) -> bool:
    """Takes the work when it is due and nobody is at it."""
    now = clock.now()
    with database.atomic():
        if not Schedule.objects.filter(name=name).exists():
            Schedule.objects.bulk_create([Schedule(name=name, due_at=now, lease_until=now)], ignore_conflicts=True)
        free = Schedule.objects.filter(name=name, due_at__lte=now, lease_until__lte=now)
        return free.update(lease_owner=owner, lease_until=now + timedelta(seconds=lease_seconds)) == 1


def renew(name: str, owner: str, lease_seconds: float) -> bool:
    """False when it is somebody else's by now."""
    now = clock.now()
    mine = Schedule.objects.filter(name=name, lease_owner=owner, lease_until__gt=now)
    return mine.update(lease_until=now + timedelta(seconds=lease_seconds)) == 1


def finish(name: str, owner: str, again_seconds: float) -> None:
    """Ends the lease; the work is due again after so many seconds."""
    now = clock.now()
    mine = Schedule.objects.filter(name=name, lease_owner=owner)
    mine.update(lease_until=now, due_at=now + timedelta(seconds=again_seconds))
