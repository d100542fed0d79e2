"""The circuit breaker of the upstream as it is stored: one row for all processes, which a restart finds again.

The transitions are pure: a Circuit and the time in, a Circuit out. `change` stores what one of them made, in a
transaction that holds the row, so that of all who want to be the one probe exactly one is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timedelta
from enum import Enum

from django.db import transaction
from django.utils import timezone

from sessions_app import audit, database
from sessions_app.conf import settings
from sessions_app.models import Breaker, BreakerState
from sessions_app.prepared import Select

NAME = "llm"


class Verdict(Enum):
    """What a request says of the upstream."""

    ANSWERED = "it works"
    REFUSED = "it is there, and says no: 4xx and 429"
    FAILED = "a timeout, a 5xx or a cut"
    ODD = "it answers, and nobody understands what"
    NOTHING = "cancelled, or our own mistake"


@dataclass(frozen=True, slots=True)
class Circuit:
    """`next_probe_at`: when an open breaker may be tried, and when a try under way counts as abandoned."""

    name: str = NAME
    state: str = BreakerState.CLOSED
    failures: int = 0
    opened_at: datetime | None = None
    next_probe_at: datetime | None = None
    probe: str = ""
    last_error: str = ""
    version: int = 0

    def is_due(self, now: datetime) -> bool:
        """A time further away than any wait is a clock that was set back: nobody waits for that."""
        period = settings.BREAKER_RESET_SECONDS if self.state == BreakerState.OPEN else settings.LEASE_SECONDS
        return self.next_probe_at is None or not 0 < (self.next_probe_at - now).total_seconds() <= 2 * period


FIELDS = tuple(field.name for field in fields(Circuit))


# --- transitions -------------------------------------------------------------------------------------------------


def admitted(circuit: Circuit, now: datetime, token: str) -> Circuit:
    """Somebody wants to ask: an open breaker whose time has come takes `token` as its one probe."""
    if circuit.state == BreakerState.CLOSED or not circuit.is_due(now):
        return circuit
    return replace(circuit, state=BreakerState.HALF_OPEN, probe=token, next_probe_at=_leased(now))


def prolonged(circuit: Circuit, now: datetime, token: str) -> Circuit:
    """The probe's process lives."""
    return replace(circuit, next_probe_at=_leased(now)) if token and circuit.probe == token else circuit


def settled(circuit: Circuit, now: datetime, token: str, verdict: Verdict, error: str = "") -> Circuit:
    """A request has ended. While the breaker is not closed, only its probe has a say."""
    if circuit.state == BreakerState.CLOSED:
        return _counted(circuit, now, verdict, error)
    if not token or circuit.probe != token:
        return circuit
    if verdict in (Verdict.ANSWERED, Verdict.REFUSED):
        return closed(circuit)
    if verdict is Verdict.NOTHING:  # the next one tries at once
        return replace(circuit, state=BreakerState.OPEN, probe="", next_probe_at=now)
    return _opened(circuit, now, error)


def closed(circuit: Circuit) -> Circuit:
    return Circuit(name=circuit.name, version=circuit.version)


def _counted(circuit: Circuit, now: datetime, verdict: Verdict, error: str) -> Circuit:
    if verdict is Verdict.ANSWERED:
        return closed(circuit)
    if verdict is not Verdict.FAILED:
        return circuit
    circuit = replace(circuit, failures=circuit.failures + 1, last_error=error)
    is_enough = 0 < settings.BREAKER_FAILURES <= circuit.failures
    return replace(_opened(circuit, now, error), opened_at=now) if is_enough else circuit


def _opened(circuit: Circuit, now: datetime, error: str) -> Circuit:
    at = now + timedelta(seconds=settings.BREAKER_RESET_SECONDS)
    return replace(circuit, state=BreakerState.OPEN, probe="", next_probe_at=at, last_error=error)


def _leased(now: datetime) -> datetime:
    return now + timedelta(seconds=settings.LEASE_SECONDS)


# --- stored ------------------------------------------------------------------------------------------------------

_listeners: list[Callable[[], None]] = []


def listen(listener: Callable[[], None]) -> None:
    """Has `listener()` called after each commit that opened it, closed it or began a probe, in the thread that
    committed."""
    _listeners.append(listener)


def _tell() -> None:
    for listener in _listeners:
        listener()


_STATE = Select[Breaker](lambda: Breaker.objects.filter(name=NAME))


def state() -> Circuit:
    """What is stored now: for health, metrics and people. One statement."""
    row = _STATE.first()
    return Circuit(*(getattr(row, name) for name in FIELDS)) if row else Circuit()


def change(transition: Callable[[Circuit], Circuit]) -> Circuit:
    """Stores what the transition makes of the breaker, and returns it. Nothing is written when nothing changes."""
    with database.atomic():
        row = Breaker.objects.select_for_update().filter(name=NAME).values(*FIELDS).first()
        before = Circuit(**row) if row else Circuit()
        after = transition(before)
        if after == before:
            return before
        after = replace(after, version=before.version + 1)
        if row is None:
            Breaker.objects.create(**asdict(after))
        else:
            Breaker.objects.filter(name=NAME).update(**asdict(after))
        if after.state != before.state:
            transaction.on_commit(_tell, robust=True)
        return after


def reset(who: str) -> Circuit:
    """Closes it by hand: requests pass in every process, within a second. Who did it stands in the audit."""
    with database.atomic():
        before, after = state(), change(closed)
        if after != before:
            told = {"state": before.state, "failures": before.failures}
            audit.record_installation(
                audit.BREAKER_RESET, who, subject=NAME, before=told, after={"state": after.state, "failures": 0}
            )
        return after


def seconds_left(circuit: Circuit) -> float:
    """Until an open breaker may be tried."""
    if circuit.state != BreakerState.OPEN or circuit.next_probe_at is None:
        return 0.0
    return max((circuit.next_probe_at - timezone.now()).total_seconds(), 0.0)
