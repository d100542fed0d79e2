"""The audit: who did what is written with the deed, in a chain, by digests and never by text."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

import pytest
from django.db import transaction

from sessions_app import answers, approvals, audit, database, deliveries, runs, services, writing
from sessions_app.answers import Decision
from sessions_app.errors import SessionExists
from sessions_app.models import AuditEntry, AuditHead, Event, EventDelivery, Run, Session, ToolCall
from sessions_app.runs import Request
from tests.sessions_app import told

pytestmark = pytest.mark.django_db
AGENTS = ("orchestrator", "coder", "ask")
ANN = "operator:ann"


def entries(session: Session | None = None) -> list[AuditEntry]:
    return list(AuditEntry.objects.filter(session=session).order_by("number"))


def acts(session: Session | None = None) -> list[tuple[str, str]]:
    return [(entry.action, entry.who) for entry in entries(session)]


def test_every_act_on_a_session_names_its_doer() -> None:
    session = services.create_session("s", who="key:1")
    services.update_session("s", title="A secret plan", who="key:2")
    services.add_message("s", "user", "hello", who=ANN)
    services.switch_agent("s", "ask", who="key:3")
    services.deactivate("s", who=ANN)
    services.activate("s", who=ANN)
    services.clear_messages("s", who="operator:bob")
    services.expire("s")
    assert acts(session) == [
        ("session.create", "key:1"),
        ("session.update", "key:2"),
        ("message.add", ANN),
        ("agent.switch", "key:3"),
        ("session.deactivate", ANN),
        ("session.activate", ANN),
        ("session.clear", "operator:bob"),
        ("session.expire", "system"),
    ]
    assert acts() == []


def test_an_entry_tells_before_and_after_and_no_text() -> None:
    session = services.create_session("s")
    services.update_session("s", title="A secret plan", description="sk-0123", who="key:1")
    services.switch_agent("s", "ask")
    *_, updated, switched = entries(session)
    assert json.loads(updated.before) == {"title": audit.digest(""), "description": audit.digest("")}
    assert json.loads(updated.after) == {"title": audit.digest("A secret plan"), "description": audit.digest("sk-0123")}
    assert (switched.before, switched.after) == ('{"agent": "orchestrator"}', '{"agent": "ask"}')


def test_what_is_no_name_is_told_by_its_digest() -> None:
    nasty = "rm -rf /\0\ud800"
    audit.record_installation("test.act", "eve\n\0", subject=nasty, after={"text": nasty, "list": [nasty, 1], "n": 1.5})
    (entry,) = entries()
    assert (entry.who, entry.subject) == ("eve", audit.digest(nasty))
    told = json.loads(entry.after)
    assert told == {"text": audit.digest(nasty), "list": [audit.digest(nasty), 1], "n": audit.digest(1.5)}


def test_each_entry_holds_the_hash_of_the_one_before_and_the_head_that_of_the_last() -> None:
    session = services.create_session("s")
    services.switch_agent("s", "ask")
    services.switch_agent("s", "coder")
    first, second, third = entries(session)
    assert [first.number, second.number, third.number] == [1, 2, 3]
    assert [first.previous, second.previous, third.previous] == ["", first.hash, second.hash]
    assert [audit.entry_hash(entry) for entry in (first, second, third)] == [first.hash, second.hash, third.hash]
    session.refresh_from_db()
    assert (session.audit_count, session.audit_hash) == (3, third.hash)


def test_a_refused_act_leaves_no_entry() -> None:
    session = services.create_session("s")
    with pytest.raises(SessionExists):
        services.create_session("s", who=ANN)
    with suppress(RuntimeError), database.atomic():
        audit.record_installation("test.act", ANN)
        raise RuntimeError
    audit.record_installation("test.other", ANN)
    assert acts(session) == [("session.create", "system")]
    assert acts() == [("test.other", ANN)]


def test_entries_are_neither_changed_nor_removed_by_code() -> None:
    services.create_session("s")
    entry = AuditEntry.objects.get()
    for forbidden in (entry.save, entry.delete, AuditEntry.objects.all().delete):
        with pytest.raises(TypeError):
            forbidden()
    with pytest.raises(TypeError):
        AuditEntry.objects.update(who="nobody")
    assert AuditEntry.objects.get().who == "system"


def test_a_deleted_session_leaves_its_head_in_the_installations_chain() -> None:
    session = services.create_session("any name / at all")
    services.switch_agent(session.session_id, "ask")
    session.refresh_from_db()
    services.delete_session(session.session_id, who=ANN)
    (tombstone,) = entries()
    assert (tombstone.action, tombstone.who, tombstone.subject) == ("session.delete", ANN, "any name / at all")
    assert json.loads(tombstone.before) == {"session": session.pk, "entries": 2, "head": session.audit_hash}
    assert entries(session) == []
    assert AuditHead.objects.get().count == 1


def test_a_decision_tells_what_was_shown_and_what_was_allowed() -> None:
    session = told.session("s")
    Run.objects.filter(session=session).update(correlation_id="req-1")
    shown = ToolCall.objects.get(session=session).arguments
    edited = {"path": "b.txt"}
    answers.decide("s", Decision("call_1", "edit", "rather so"), ANN, "owner", AGENTS, lambda call, session: edited)
    *_, entry = entries(session)
    assert (entry.action, entry.who, entry.subject) == ("approval.decide", ANN, "call_1")
    assert entry.correlation_id == "req-1"
    before, after = json.loads(entry.before), json.loads(entry.after)
    assert before == {"state": "pending", "tool": "write_file", "arguments": f"sha256:{approvals.hash_of(shown)}"}
    assert after == {
        "state": "edited",
        "arguments": f"sha256:{approvals.hash_of(edited)}",
        "feedback": audit.digest("rather so"),
    }


def test_a_cancel_and_a_retry_name_whoever_wanted_them() -> None:
    session = told.session("s")
    run = told.waiting_run(session)
    runs.request_cancel("s", who=ANN)
    runs.retry("s", "owner", AGENTS, who="key:1")
    assert acts(session)[-2:] == [("run.cancel", ANN), ("run.retry", "key:1")]
    assert {entry.subject for entry in entries(session)[-2:]} == {str(run.pk)}


def test_a_turn_that_nobody_steered_adds_no_entry_but_its_sessions_birth() -> None:
    outcome = runs.submit("s", Request("hello", who="key:1"), "owner", AGENTS)
    assert acts(outcome.session) == [("session.create", "key:1")]
    chosen = runs.submit("t", Request("hello", agent="ask", who="key:1"), "owner", AGENTS)
    assert acts(chosen.session) == [("session.create", "key:1"), ("agent.switch", "key:1")]


def test_a_replay_of_deliveries_is_the_installations() -> None:
    session = services.create_session("s")
    event = Event.objects.filter(session=session).first()
    assert event is not None
    one = EventDelivery.objects.create(event=event, handler="sink", state="dead")
    assert deliveries.replay([one.pk], who=ANN) == 1
    assert deliveries.replay_dead("nobody", who=ANN) == 0
    (entry,) = entries()
    assert (entry.action, entry.who) == ("delivery.replay", ANN)
    assert json.loads(entry.after) == {"ids": [one.pk], "count": 1}


def test_many_acts_of_one_transaction_lock_the_head_once(django_assert_num_queries: Any) -> None:
    audit.record_installation("test.act", ANN)
    with django_assert_num_queries(5), database.atomic():  # of them two are the savepoint's
        for _ in range(50):
            audit.record_installation("test.act", ANN)
    assert [entry.number for entry in entries()] == list(range(1, 52))


@pytest.mark.django_db(transaction=True)
def test_the_chains_of_many_writers_at_once_have_no_gap() -> None:
    """Sessions and the installation in one transaction, in whatever order: nobody waits in a circle."""
    for number in range(8):
        services.create_session(f"s{number}")

    def act(name: str) -> None:
        audit.record_installation("test.act", name)
        with writing.locked(name) as change:
            audit.record(change, "test.act", name)

    async def everything() -> None:
        await asyncio.gather(*(database.write(f"s{n % 8}", act, f"s{n % 8}") for n in range(80)))

    asyncio.run(everything())
    assert [entry.number for entry in entries()] == list(range(1, 81))
    assert set(Session.objects.values_list("audit_count", flat=True)) == {11}


@pytest.mark.django_db(transaction=True)
def test_an_act_inside_a_transaction_of_djangos_own_goes_with_it() -> None:
    with transaction.atomic():
        audit.record_installation("test.act", ANN)
    with suppress(RuntimeError), transaction.atomic():
        audit.record_installation("test.act", ANN)
        raise RuntimeError
    assert [entry.number for entry in entries()] == [1]
