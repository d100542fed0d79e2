"""How many turns are at work at once, in a process and for a key, and which of those that wait comes next.

Off by default. A turn without a place is a queued run, like a message behind another one: it is stored, told so by
its stream, cancelled, dropped when it waits too long, and found by whoever has a place. A turn that goes on after a
tool's result has been let in already: it counts, and never waits.
"""

from __future__ import annotations

from collections import Counter

from django.db.models import Exists, OuterRef, QuerySet

from sessions_app.conf import settings
from sessions_app.errors import TooManyTurns
from sessions_app.models import HANDED_OVER, Run, RunState
from sessions_app.prepared import Select


def are_limited() -> bool:
    return settings.MAX_CONCURRENT_TURNS > 0 or settings.MAX_CONCURRENT_TURNS_PER_KEY > 0


def is_free(owner: str, caller: str) -> bool:
    """Whether one more turn may start: asked in the transaction that starts it, so that a process, whose writer does
    one thing after another, never has one too many. No statement where nothing is limited."""
    if not are_limited():
        return True
    return all(limit <= 0 or at_work.count() < limit for limit, at_work in _accounts(owner, caller))


def _accounts(owner: str, caller: str) -> list[tuple[int, QuerySet[Run]]]:
    at_work = Run.objects.filter(state=RunState.RUNNING)
    of_process = 0 if owner == HANDED_OVER else settings.MAX_CONCURRENT_TURNS  # how many a worker takes, it knows
    return [
        (of_process, at_work.filter(lease_owner=owner)),
        (settings.MAX_CONCURRENT_TURNS_PER_KEY, at_work.filter(caller=caller)),
    ]


def require_one_to_wait_in() -> None:
    """Raises TooManyTurns when as many wait for a place as may."""
    if _waiting().count() >= settings.MAX_QUEUED_TURNS:
        raise TooManyTurns()


def _waiting() -> QuerySet[Run]:
    """Runs that wait, and not for their own session."""
    at_work = Run.objects.filter(session=OuterRef("session"), state=RunState.RUNNING)
    return Run.objects.filter(~Exists(at_work), state=RunState.QUEUED)


_IN_ORDER = Select[tuple[int, str]](lambda: _waiting().order_by("pk").values_list("session_id", "caller"))


def startable(owner: str) -> list[int]:
    """Sessions whose oldest message may be started now, the longest wait first. Whoever starts one asks again."""
    rows = _IN_ORDER.all()
    if not rows or not are_limited():
        return list(dict.fromkeys(session for session, _ in rows))
    at_work = list(Run.objects.filter(state=RunState.RUNNING).values_list("lease_owner", "caller"))
    here = sum(lease_owner == owner for lease_owner, _ in at_work)
    of_key = Counter(caller for _, caller in at_work)
    limit, limit_of_key = settings.MAX_CONCURRENT_TURNS, settings.MAX_CONCURRENT_TURNS_PER_KEY
    chosen: dict[int, None] = {}
    for session, caller in rows:
        if limit > 0 and owner != HANDED_OVER and here + len(chosen) >= limit:
            break
        if session not in chosen and not 0 < limit_of_key <= of_key[caller]:
            chosen[session] = None
            of_key[caller] += 1
    return list(chosen)
