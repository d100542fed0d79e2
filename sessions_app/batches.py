"""Actions on many rows that are done in the background: prepared, confirmed, claimed under a lease, row by row.

What is chosen is frozen when it is prepared, so that nothing goes that nobody saw. Each row is one transaction, which
also moves the batch on: whoever is killed leaves it where it was, and the next one goes on there. Who has lost the
lease, or was told to stop, does nothing more.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any

from django.db import InterfaceError, OperationalError
from django.db.models import F, Q, QuerySet
from django.utils import timezone
from django.utils.translation import get_language, override

from sessions_app import audit, bulk, clock, database, failpoints
from sessions_app.errors import RuntimeFault, StorageUnavailable
from sessions_app.models import Batch, BatchPart, BatchRefusal, BatchState, Run

logger = logging.getLogger(__name__)
PART_ROWS = 500
REASON_CHARACTERS = 300
FORGOTTEN_HOURS = 24  # after which what nobody confirmed goes
UNFINISHED = (BatchState.QUEUED, BatchState.RUNNING)


# --- by people ---------------------------------------------------------------------------------------------------


def prepare(action: str, chosen: Iterable[int], *, who: str, arguments: dict[str, Any] | None = None) -> Batch:
    """Keeps what was chosen (primary keys of the deed's model), for `start` to begin. `action` is a name in
    `bulk.DEEDS`, `arguments` are the deed's own."""
    with database.atomic():
        old = timezone.now() - timedelta(hours=FORGOTTEN_HOURS)
        Batch.objects.filter(state=BatchState.PREPARED, created_at__lt=old).delete()
        batch = Batch.objects.create(action=action, arguments=arguments or {}, who=who, language=get_language() or "")
        parts = [BatchPart(batch=batch, number=number, chosen=ids) for number, ids in _parts(chosen)]
        BatchPart.objects.bulk_create(parts, batch_size=100)
        batch.total = sum(len(part.chosen) for part in parts)
        batch.save(update_fields=["total"])
    return batch


def _parts(chosen: Iterable[int]) -> Iterator[tuple[int, list[int]]]:
    ids = list(chosen)
    return enumerate(ids[start : start + PART_ROWS] for start in range(0, len(ids), PART_ROWS))


def start(pk: int, *, who: str) -> bool:
    """Has a prepared one done, once, in the name of who agreed to it; False when it was begun or is gone."""
    with database.atomic():
        begun = Batch.objects.filter(pk=pk, state=BatchState.PREPARED, who=who).update(state=BatchState.QUEUED)
        if begun:
            batch = Batch.objects.get(pk=pk)
            told = {"action": batch.action, "chosen": batch.total}
            audit.record_installation(audit.BATCH_START, who, subject=str(pk), after=told)
    return bool(begun)


def stop(pk: int, *, who: str) -> bool:
    """What has not been seen to stays as it is; False when there is nothing left to stop."""
    with database.atomic():
        ending: dict[str, Any] = {"state": BatchState.STOPPED, "ended_at": timezone.now(), "lease_until": None}
        stopped = Batch.objects.filter(pk=pk, state__in=UNFINISHED).update(**ending)
        if stopped:
            seen = Batch.objects.get(pk=pk).position
            audit.record_installation(audit.BATCH_STOP, who, subject=str(pk), after={"seen": seen})
    return bool(stopped)


# --- by processes ------------------------------------------------------------------------------------------------


def due() -> int | None:
    """The oldest that nobody is at."""
    return _free().values_list("pk", flat=True).first()


def _free() -> QuerySet[Batch]:
    lapsed = Q(state=BatchState.RUNNING, lease_until__lte=clock.now())
    known = Batch.objects.filter(action__in=bulk.DEEDS)  # a newer process may have more
    return known.filter(Q(state=BatchState.QUEUED) | lapsed, state__in=UNFINISHED).order_by("pk")


def claim(pk: int, owner: str, lease_seconds: float) -> bool:
    """Takes it, to begin it or to go on where another process has stopped."""
    until = clock.now() + timedelta(seconds=lease_seconds)
    with database.atomic():
        # Whoever is at a long row has it locked, and may be late with the lease: nobody waits for that.
        if not _free().filter(pk=pk).select_for_update(skip_locked=True).exists():
            return False
        Batch.objects.filter(pk=pk).update(state=BatchState.RUNNING, lease_owner=owner, lease_until=until)
    Batch.objects.filter(pk=pk, started_at=None).update(started_at=timezone.now())
    return True


def give_back(pk: int, owner: str) -> None:
    """Another process may go on at once: this one ends."""
    Batch.objects.filter(pk=pk, lease_owner=owner, state=BatchState.RUNNING).update(lease_until=clock.now())


def next_key(pk: int) -> str:
    """What the next row is called: jobs that share a transaction lock their rows in the order of such keys."""
    batch = Batch.objects.filter(pk=pk).first()
    row = _chosen(batch, batch.position) if batch else None
    if batch is None or row is None:
        return ""
    named = bulk.DEEDS[batch.action].model._default_manager.filter(pk=row)
    column = "session__session_id" if bulk.DEEDS[batch.action].model is Run else "session_id"
    return str(named.values_list(column, flat=True).first() or "")


def step(pk: int, owner: str, lease_seconds: float) -> bool:
    """Sees to the next row. False when there is none, or when the batch is not this owner's any more.

    Raises StorageUnavailable: then nothing has happened to that row, and it is the next one again.
    """
    with database.atomic():
        batch = _moved_on(pk, owner, lease_seconds)
        if batch is None:
            return False
        row = _chosen(batch, batch.position - 1)
        if row is None:
            _finish(batch)
            return False
        _see_to(batch, row)
        failpoints.hit("batch")
    return True


def _moved_on(pk: int, owner: str, lease_seconds: float) -> Batch | None:
    """The batch, one row further, locked, when it is still ours: the fence of everything that follows."""
    now = clock.now()
    mine = Batch.objects.filter(pk=pk, lease_owner=owner, state=BatchState.RUNNING, lease_until__gt=now)
    moved = mine.update(position=F("position") + 1, lease_until=now + timedelta(seconds=lease_seconds))
    return Batch.objects.get(pk=pk) if moved else None


def _chosen(batch: Batch, at: int) -> int | None:
    if at >= batch.total:
        return None
    part = BatchPart.objects.get(batch=batch, number=at // PART_ROWS)
    return int(part.chosen[at % PART_ROWS])


def _finish(batch: Batch) -> None:
    batch.state, batch.position, batch.ended_at = BatchState.FINISHED, batch.total, timezone.now()
    batch.lease_until = None
    batch.save(update_fields=["state", "position", "ended_at", "lease_until"])


def _see_to(batch: Batch, row_pk: int) -> None:
    deed, name = bulk.DEEDS[batch.action], str(row_pk)
    try:
        with database.savepoint(), override(batch.language or None):
            row, name = bulk.subject(deed.model, row_pk)
            deed.apply(row, batch.arguments, batch.who)
    except (StorageUnavailable, OperationalError, InterfaceError):
        raise
    except RuntimeFault as fault:
        with override(batch.language or None):
            _refused(batch, name, fault.text(), is_failure=False)
    except Exception:  # one row that cannot be done must not hold up the others
        logger.exception("background action %s: %s failed", batch.pk, row_pk)
        _refused(batch, name, "INTERNAL", is_failure=True)
    else:
        Batch.objects.filter(pk=batch.pk).update(done=F("done") + 1)


def _refused(batch: Batch, name: str, reason: str, *, is_failure: bool) -> None:
    refusal = {"subject": name[:255], "reason": reason[:REASON_CHARACTERS], "is_failure": is_failure}
    BatchRefusal.objects.create(batch=batch, **refusal)
    counter = "failed" if is_failure else "skipped"
    Batch.objects.filter(pk=batch.pk).update(**{counter: F(counter) + 1})
