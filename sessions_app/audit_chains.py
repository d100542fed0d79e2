"""Reads the audit again: whether each chain is whole, as it was written, and as long as its head says.

It may run beside live writers: heads are read before and after their entries, and what changes in between is no fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import attrgetter

from sessions_app import audit
from sessions_app.models import AuditEntry, AuditHead, Session

SESSIONS_AT_ONCE = 500
INSTALLATION = "installation"

CHANGED = "was changed"
MISSING = "is missing"
ADDED = "is not known to the chain's head"
LEFT = "belongs to a session that is gone"


@dataclass(frozen=True, slots=True)
class Fault:
    """The first row of a chain that is not what was written: `session` is its name, None the installation."""

    session: str | None
    number: int
    why: str


@dataclass(frozen=True, slots=True)
class Head:
    """Where a chain has come to."""

    name: str | None
    count: int
    hash: str


Seen = Callable[[AuditEntry, "str | None"], None]


def total(using: str = "default") -> int:
    return AuditEntry.objects.using(using).count()


def faults(using: str = "default", seen: Seen = lambda entry, name: None) -> Iterator[Fault]:
    """The first fault of every chain that has one; `seen` is given each entry on the way, with its session's name."""
    yield from _faults_of_installation(using, seen)
    after = 0
    while True:
        heads = _heads(using, after)
        last = max(heads) if len(heads) == SESSIONS_AT_ONCE else None
        yield from _faults_of_sessions(using, seen, heads, after, last)
        if last is None:
            return
        after = last


def _faults_of_installation(using: str, seen: Seen) -> Iterator[Fault]:
    head = _installation(using)
    entries = AuditEntry.objects.using(using).filter(session=None).order_by("number")
    yield from _confirmed(_walk(_watched(entries.iterator(), None, seen), head), lambda: _installation(using))


def _installation(using: str) -> Head:
    row = AuditHead.objects.using(using).filter(pk=audit.HEAD).first()
    return Head(None, row.count, row.hash) if row else Head(None, 0, "")


def _heads(using: str, after: int) -> dict[int, Head]:
    rows = Session.objects.using(using).filter(pk__gt=after).order_by("pk")
    columns = rows.values_list("pk", "session_id", "audit_count", "audit_hash")
    return {pk: Head(name, count, hash_) for pk, name, count, hash_ in columns[:SESSIONS_AT_ONCE]}


def _head(using: str, pk: int) -> Head | None:
    rows = Session.objects.using(using).filter(pk=pk)
    found = rows.values_list("session_id", "audit_count", "audit_hash").first()
    return Head(*found) if found else None


def _faults_of_sessions(
    using: str, seen: Seen, heads: dict[int, Head], after: int, last: int | None
) -> Iterator[Fault]:
    """Of the sessions numbered from `after` up to `last`, and of what was left there by sessions that are gone."""
    rows = AuditEntry.objects.using(using).filter(session__isnull=False, session__gt=after)
    if last is not None:
        rows = rows.filter(session__lte=last)
    with_entries = set()
    for pk, chain in groupby(rows.order_by("session_id", "number").iterator(), key=attrgetter("session_id")):
        with_entries.add(pk)
        known = heads.get(pk)
        now = known or _head(using, pk)
        name = now.name if now else f"#{pk}"
        found = _walk(_watched(chain, name, seen), known or Head(name, 0, ""))
        if known is not None:
            yield from _confirmed(found, partial(_head, using, pk))
        elif now is None and AuditEntry.objects.using(using).filter(session=pk).exists():
            yield from (Fault(fault.session, fault.number, LEFT) for fault in found)
    for pk, head in heads.items():
        if head.count and pk not in with_entries and _head(using, pk) is not None:
            yield Fault(head.name, 1, MISSING)


def _watched(entries: Iterable[AuditEntry], name: str | None, seen: Seen) -> Iterator[AuditEntry]:
    for entry in entries:
        seen(entry, name)
        yield entry


def _walk(entries: Iterable[AuditEntry], head: Head) -> list[Fault]:
    """The chain's first fault, if it has one. All entries are passed by."""
    found: list[Fault] = []
    number, previous = 0, ""
    for entry in entries:
        if found:
            continue
        number += 1
        if number > head.count:
            found.append(Fault(head.name, number, ADDED))
        elif entry.number != number:
            found.append(Fault(head.name, number, MISSING))
        elif entry.hash != audit.entry_hash(entry):
            found.append(Fault(head.name, number, CHANGED))
        elif entry.previous != previous:  # this one is as it was written: it is the one before that was forged
            found.append(Fault(head.name, max(number - 1, 1), CHANGED))
        elif number == head.count and entry.hash != head.hash:
            found.append(Fault(head.name, number, CHANGED))
        previous = entry.hash
    if not found and number < head.count:
        found.append(Fault(head.name, number + 1, MISSING))
    return found


def _confirmed(found: list[Fault], head_now: Callable[[], Head | None]) -> Iterator[Fault]:
    """Without what a writer did meanwhile: entries beyond the head that was read first, and chains that have ended."""
    for fault in found:
        head = head_now()
        if head is not None and not (fault.why == ADDED and fault.number <= head.count):
            yield fault
