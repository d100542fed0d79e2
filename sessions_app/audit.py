"""Who did what, before and after, in chains of hashes: one for each session, one for the installation.

An entry is written in the transaction of what it tells. It holds digests and small values, never text: what is no
name, number or flag is told by its digest. It bears the id of the request that did it. Imports models, `correlation`
and `database`; a session's chain is written through its change:

    audit.record(change, audit.SESSION_UPDATE, who, before={"title": audit.digest(old)}, after={...})
    audit.record_installation(audit.KEY_REVOKE, who, subject=key_id, before={"active": True}, after={"active": False})
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import re
from collections.abc import Mapping
from datetime import UTC
from typing import TYPE_CHECKING, Any

from django.db.models import QuerySet
from django.utils import timezone

from sessions_app import correlation, database
from sessions_app.models import AuditEntry, AuditHead, Session

if TYPE_CHECKING:
    from sessions_app.writing import Change

SYSTEM = "system"  # nobody: the runtime itself, by its settings

SESSION_CREATE = "session.create"
SESSION_UPDATE = "session.update"
SESSION_ACTIVATE = "session.activate"
SESSION_DEACTIVATE = "session.deactivate"
SESSION_EXPIRE = "session.expire"
SESSION_CLEAR = "session.clear"
SESSION_DELETE = "session.delete"
SESSION_PURGE = "session.purge"
SESSION_REPAIR = "session.repair"
SESSION_EXPORT = "session.export"
MESSAGE_ADD = "message.add"
AGENT_SWITCH = "agent.switch"
APPROVAL_DECIDE = "approval.decide"
APPROVAL_EXPIRE = "approval.expire"
RUN_CANCEL = "run.cancel"
RUN_RETRY = "run.retry"
DELIVERY_REPLAY = "delivery.replay"
DELIVERY_DISCARD = "delivery.discard"
WEBHOOK_ADD = "webhook.add"
WEBHOOK_CHANGE = "webhook.change"
WEBHOOK_ROTATE = "webhook.rotate"
WEBHOOK_TEST = "webhook.test"
BREAKER_RESET = "breaker.reset"
BATCH_START = "batch.start"
BATCH_STOP = "batch.stop"
LEGACY_IMPORT = "legacy.import"
RETENTION = "retention.apply"
POLICY_CHANGE = "policy.change"
AGENT_CHANGE = "agent.change"
KEY_CREATE = "key.create"
KEY_REVOKE = "key.revoke"

HEAD = 1
WHO_CHARACTERS = 150
OTHERS = re.compile(r"(operator|shell|token|key):|key-[0-9a-f]{8}\Z|(system|env)\Z")
NAME = re.compile(r"[\w.:@/+*-]{0,100}", re.ASCII)
Facts = Mapping[str, Any]


def record(
    change: Change,
    action: str,
    who: str,
    *,
    subject: str = "",
    before: Facts | None = None,
    after: Facts | None = None,
    correlation_id: str = "",
) -> None:
    """Adds an act to the chain of the change's session; it is stored with the change."""
    session = change.session
    entry = _entry(action, who, _name(subject), before, after, correlation_id or change.correlation_id)
    entry.session, entry.at = session, change.now
    session.audit_count, session.audit_hash = _link(entry, session.audit_count, session.audit_hash)
    change.add(entry)


def record_installation(
    action: str,
    who: str,
    *,
    subject: str = "",
    before: Facts | None = None,
    after: Facts | None = None,
    correlation_id: str = "",
) -> None:
    """Adds an act that is no session's to the installation's chain, in the caller's transaction. The chain's head is
    locked as that transaction's last lock, so that it is held for the commit alone and nobody can wait in a circle."""
    database.before_commit(_append, _entry(action, who, _name(subject), before, after, correlation_id))


def end_chains(sessions: QuerySet[Session], action: str, who: str, *, correlation_id: str = "") -> None:
    """Removes the chains of sessions that go, and writes into the installation's where each of them had come to."""
    going = list(sessions.order_by("pk").values_list("pk", "session_id", "audit_count", "audit_hash"))
    for pk, name, count, head in going:
        told = {"session": pk, "entries": count, "head": head}
        database.before_commit(_append, _entry(action, who, name, told, None, correlation_id))
    QuerySet.delete(AuditEntry.objects.filter(session__in=[pk for pk, *_ in going]))


def operator(name: str) -> str:
    """Whoever is logged in to the admin under this name, as much of it as the columns hold."""
    return f"operator:{name}"[:WHO_CHARACTERS]


def person(subject: str) -> str:
    """Whoever a token names; one that is called as something else is told apart from it."""
    return (f"token:{subject}" if OTHERS.match(subject) else subject)[:WHO_CHARACTERS]


def shell_user() -> str:
    """Who runs a `manage.py` command, as far as the system knows."""
    try:
        return f"shell:{getpass.getuser()}"
    except (KeyError, OSError):  # a container's user without a name
        return f"shell:{os.getuid()}"


def digest(value: Any) -> str:
    """Tells two values apart and neither of them: of a text its characters, of anything else its JSON."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
    return f"sha256:{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"


# --- entries -----------------------------------------------------------------------------------------------------


def _entry(
    action: str, who: str, subject: str, before: Facts | None, after: Facts | None, correlation_id: str
) -> AuditEntry:
    return AuditEntry(
        action=action,
        who=_line(who) or SYSTEM,
        subject=subject,
        before=_facts(before),
        after=_facts(after),
        correlation_id=(correlation_id or correlation.current())[:128],
    )


def _facts(facts: Facts | None) -> str:
    """Canonical JSON: the hash covers it to the character, in whichever database."""
    return json.dumps({key: _safe(value) for key, value in facts.items()}, sort_keys=True) if facts else ""


def _safe(value: Any) -> Any:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, list | tuple):
        return [_safe(one) for one in value]
    return _name(value) if isinstance(value, str) else digest(value)


def _name(text: str) -> str:
    """The text where it can be a name or an id, else its digest."""
    return text if NAME.fullmatch(text) else digest(text)


def _line(text: str) -> str:
    return "".join(char for char in text[:WHO_CHARACTERS] if char.isprintable())


def _link(entry: AuditEntry, count: int, head: str) -> tuple[int, str]:
    """Makes the entry the next of its chain; returns the chain's new head."""
    entry.number, entry.previous = count + 1, head
    entry.hash = entry_hash(entry)
    return entry.number, entry.hash


def entry_hash(entry: AuditEntry) -> str:
    """What the entry's hash must be, from all that it says and its place."""
    chain = "installation" if entry.session_id is None else entry.session_id
    at = entry.at.astimezone(UTC).isoformat(timespec="microseconds")
    told = [entry.who, entry.action, entry.subject, entry.before, entry.after, entry.correlation_id]
    return hashlib.sha256(json.dumps([chain, entry.number, at, *told, entry.previous]).encode()).hexdigest()


def _append(entries: list[AuditEntry]) -> None:
    """Links the entries to the installation's chain, whose head is locked from here to the commit."""
    head = AuditHead.objects.select_for_update().filter(pk=HEAD).first()
    if head is None:
        AuditHead.objects.bulk_create([AuditHead(pk=HEAD)], ignore_conflicts=True)
        head = AuditHead.objects.select_for_update().get(pk=HEAD)
    for entry in entries:
        entry.at = timezone.now()
        head.count, head.hash = _link(entry, head.count, head.hash)
    AuditEntry.objects.bulk_create(entries)
    head.save(update_fields=["count", "hash"])
