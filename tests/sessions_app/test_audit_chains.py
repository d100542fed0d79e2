"""What was changed or removed behind our back is found, with its session and its number."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from sessions_app import audit, audit_chains, services
from sessions_app.audit_chains import ADDED, CHANGED, LEFT, MISSING, Fault
from sessions_app.models import AuditEntry, AuditHead, Session

pytestmark = pytest.mark.django_db
ANN = "operator:ann"


@pytest.fixture
def session() -> Session:
    """With four entries of its own, beside another's and the installation's three."""
    services.create_session("other")
    session = services.create_session("s", who="key:1")
    for agent in ("ask", "coder", "debug"):
        services.switch_agent("s", agent, who=ANN)
    for number in range(3):
        audit.record_installation("test.act", ANN, subject=str(number))
    session.refresh_from_db()
    return session


def by_hand(statement: str, *values: Any) -> None:
    """As whoever has the database would do it: past all of our code."""
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        assert cursor.rowcount == 1


def forged(session: Session, number: int) -> None:
    """An entry rewritten by somebody who knows how its hash is made."""
    entry = AuditEntry.objects.get(session=session, number=number)
    entry.who = "operator:bob"
    statement = "UPDATE sessions_app_auditentry SET who = %s, hash = %s WHERE session_id = %s AND number = %s"
    by_hand(statement, entry.who, audit.entry_hash(entry), session.pk, number)


def test_whole_chains_have_no_fault_also_after_a_deletion(session: Session) -> None:
    services.delete_session("other", who=ANN)
    services.create_session("other")
    assert list(audit_chains.faults()) == []


DEEDS: dict[str, tuple[Callable[[Session], None], Fault]] = {
    "who did it": (
        lambda s: by_hand(
            "UPDATE sessions_app_auditentry SET who='operator:bob' WHERE session_id = %s AND number = 2", s.pk
        ),
        Fault("s", 2, CHANGED),
    ),
    "what it was after": (
        lambda s: by_hand("UPDATE sessions_app_auditentry SET after='{}' WHERE session_id = %s AND number = 3", s.pk),
        Fault("s", 3, CHANGED),
    ),
    "when": (
        lambda s: by_hand(
            "UPDATE sessions_app_auditentry SET at='2020-01-01 00:00:00Z' WHERE session_id = %s AND number = 1", s.pk
        ),
        Fault("s", 1, CHANGED),
    ),
    "an entry with its hash": (lambda s: forged(s, 2), Fault("s", 2, CHANGED)),
    "the last entry with its hash": (lambda s: forged(s, 4), Fault("s", 4, CHANGED)),
    "one from the middle": (
        lambda s: by_hand("DELETE FROM sessions_app_auditentry WHERE session_id = %s AND number = 2", s.pk),
        Fault("s", 2, MISSING),
    ),
    "the first": (
        lambda s: by_hand("DELETE FROM sessions_app_auditentry WHERE session_id = %s AND number = 1", s.pk),
        Fault("s", 1, MISSING),
    ),
    "the last": (
        lambda s: by_hand("DELETE FROM sessions_app_auditentry WHERE session_id = %s AND number = 4", s.pk),
        Fault("s", 4, MISSING),
    ),
    "a whole chain": (
        lambda s: by_hand(
            "DELETE FROM sessions_app_auditentry"
            " WHERE session_id = (SELECT id FROM sessions_app_session WHERE session_id='other')"
        ),
        Fault("other", 1, MISSING),
    ),
    "the head turned back": (
        lambda s: by_hand("UPDATE sessions_app_session SET audit_count = 3 WHERE id = %s", s.pk),
        Fault("s", 3, CHANGED),
    ),
    "the head turned back with its hash": (
        lambda s: by_hand(
            "UPDATE sessions_app_session SET audit_count = 3, audit_hash ="
            " (SELECT hash FROM sessions_app_auditentry WHERE session_id = %s AND number = 3) WHERE id = %s",
            s.pk,
            s.pk,
        ),
        Fault("s", 4, ADDED),
    ),
    "the installation's last": (
        lambda s: by_hand("DELETE FROM sessions_app_auditentry WHERE session_id IS NULL AND number = 3"),
        Fault(None, 3, MISSING),
    ),
    "the installation's head": (lambda s: by_hand("DELETE FROM sessions_app_audithead"), Fault(None, 1, ADDED)),
}


@pytest.mark.parametrize("deed", DEEDS)
def test_the_first_row_that_was_changed_or_removed_is_named(session: Session, deed: str) -> None:
    do, fault = DEEDS[deed]
    do(session)
    assert list(audit_chains.faults()) == [fault]


def test_a_session_removed_past_the_code_leaves_its_entries_behind(session: Session) -> None:
    Session.objects.filter(pk=session.pk).delete()
    assert list(audit_chains.faults()) == [Fault(f"#{session.pk}", 1, LEFT)]


def test_many_sessions_are_read_in_portions(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_chains, "SESSIONS_AT_ONCE", 2)
    for number in range(5):
        services.create_session(f"t{number}")
    assert list(audit_chains.faults()) == []
    by_hand("UPDATE sessions_app_session SET audit_hash='' WHERE session_id='t4'")
    assert list(audit_chains.faults()) == [Fault("t4", 1, CHANGED)]


def verified(*arguments: str) -> tuple[int, str, str]:
    out, errors = StringIO(), StringIO()
    try:
        call_command("verify_audit", *arguments, stdout=out, stderr=errors)
    except SystemExit as end:
        return int(str(end.code)), out.getvalue(), errors.getvalue()
    return 0, out.getvalue(), errors.getvalue()


def test_the_command_says_what_is_broken_and_exits_with_1(session: Session) -> None:
    code, _, said = verified()
    assert (code, said.strip()) == (0, "8 audit entries: nothing was changed or removed.")
    by_hand("DELETE FROM sessions_app_auditentry WHERE session_id = %s AND number = 4", session.pk)
    code, _, said = verified()
    assert (code, said.strip()) == (1, "session 's': entry 4 is missing")


def test_the_export_has_a_line_for_every_entry(session: Session, tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    assert verified("--export", str(file))[0] == 0
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(lines) == AuditEntry.objects.count() == 8
    switch = next(line for line in lines if line["session"] == "s" and line["number"] == 2)
    assert (switch["who"], switch["action"], switch["after"]) == (ANN, "agent.switch", {"agent": "ask"})
    assert AuditHead.objects.get().hash == [line["hash"] for line in lines if line["session"] is None][-1]
    assert verified("--export", "-")[1] == file.read_text()


def test_an_export_or_a_file_that_cannot_be_opened_is_said(session: Session, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="cannot be written"):
        verified("--export", str(tmp_path / "no" / "such"))
    with pytest.raises(CommandError, match="There is no file"):
        verified("--file", str(tmp_path / "none.sqlite3"))
