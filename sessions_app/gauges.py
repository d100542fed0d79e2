"""What is so at this moment, for /metrics and /health/ready; and the beat by which each process tells what it has open.

Every reading is one statement that an index answers, however much is stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from django.db.models import F, Min, QuerySet, Sum
from django.db.models.functions import Greatest, Now
from django.utils import timezone

from sessions_app import database, leases, tallies
from sessions_app.models import HANDED_OVER, Approval, ApprovalState, Beat, DeliveryState, EventDelivery, Run, Tally

BROKEN, WATCHDOG, DOCTOR = "broken_states", "watchdog", "doctor"
BEAT_SECONDS = 10
ALIVE_SECONDS = 3 * BEAT_SECONDS
FORGOTTEN_SECONDS = 3600
STUCK_SECONDS = 5  # past its lease, before a run counts as stuck: somebody may be about to end it


def approvals_waiting() -> int:
    return Approval.objects.filter(state=ApprovalState.PENDING).count()


def outbox_lag_seconds() -> float:
    """For how long the event delivery that is due longest has been due."""
    oldest = EventDelivery.objects.filter(state=DeliveryState.DUE).aggregate(at=Min("next_at"))["at"]
    return max((timezone.now() - oldest).total_seconds(), 0.0) if oldest else 0.0


def dead_letters() -> int:
    return EventDelivery.objects.filter(state=DeliveryState.DEAD).count()


def lost_runs() -> QuerySet[Run]:
    """Runs at work whose owner is gone, and that nobody has ended yet."""
    late = leases.late().filter(lease_until__lt=Now() - timedelta(seconds=STUCK_SECONDS))
    return late.exclude(lease_owner=HANDED_OVER)


def stuck_runs() -> int:
    return lost_runs().count()


def note_broken(by: str, count: int) -> None:
    """How many broken states were found at the last look, and could not be repaired: by the watchdog of those that it
    looks for all day, by the doctor of the others."""
    Tally.objects.update_or_create(name=BROKEN, label=by, defaults={"value": count})


def note_repaired(counts: Sequence[int]) -> None:
    """So many fewer than at the doctor's last look."""
    Tally.objects.filter(name=BROKEN, label=DOCTOR).update(value=Greatest(F("value") - sum(counts), 0))


def broken_states() -> int:
    return int(Tally.objects.filter(name=BROKEN).aggregate(found=Sum("value"))["found"] or 0)


# --- what the processes have open --------------------------------------------------------------------------------


def report(process: str, active_streams: int, counts: Mapping[tuple[str, str], int]) -> int:
    """One transaction: what the process has open, what it adds to the totals, and a batch of finished rows. Returns how
    many rows were counted."""
    now = timezone.now()
    with database.atomic():
        counted = tallies.fold_batch(counts)
        if not Beat.objects.filter(process=process).update(active_streams=active_streams, seen_at=now):
            beat = Beat(process=process, active_streams=active_streams, seen_at=now)
            Beat.objects.bulk_create([beat], ignore_conflicts=True)
            Beat.objects.filter(seen_at__lt=now - timedelta(seconds=FORGOTTEN_SECONDS)).delete()
    return counted


def beat(process: str) -> None:
    """No more than that the process lives: the smallest thing that can be written."""
    Beat.objects.update_or_create(process=process, defaults={"seen_at": timezone.now()})


def leave(process: str, counts: Mapping[tuple[str, str], int]) -> None:
    """The last report of a process."""
    with database.atomic():
        tallies.add(counts)
        Beat.objects.filter(process=process).delete()


def active_streams() -> int:
    """Streams that processes are telling, of those that were alive just now."""
    alive = Beat.objects.filter(seen_at__gt=timezone.now() - timedelta(seconds=ALIVE_SECONDS))
    return int(alive.aggregate(streams=Sum("active_streams"))["streams"] or 0)
