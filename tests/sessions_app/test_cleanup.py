"""What goes when nobody needs it, what stays because somebody does, and that the rest is whole."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.utils import timezone

from agents_app import reader
from sessions_app import (
    answers,
    audit_chains,
    cleanup,
    doctor,
    events,
    queries,
    retention,
    runs,
    schedules,
    services,
    steps,
    tallies,
    writing,
)
from sessions_app.answers import Result
from sessions_app.errors import CursorExpired, SessionExpired, SessionNotFound
from sessions_app.models import (
    Approval,
    AuditEntry,
    Batch,
    BatchPart,
    DeliveryState,
    Event,
    EventDelivery,
    LLMRequest,
    Message,
    Run,
    RunState,
    Session,
    ToolCall,
)
from sessions_app.retention import Retention
from sessions_app.runs import Request
from tests.sessions_app import told

pytestmark = pytest.mark.django_db
AGENTS = ("orchestrator", "coder", "ask")
NOW = timezone.now()


def days_ago(days: float) -> datetime:
    return timezone.now() - timedelta(days=days)


@pytest.fixture(autouse=True)
def _kept_a_week(settings: Any) -> None:
    settings.SESSION_IDLE_EXPIRE_HOURS = 24 * 7
    settings.SESSION_PURGE_DAYS = 30
    settings.EVENT_RETENTION_DAYS = 14
    settings.APPROVAL_EXPIRY_SECONDS = 86_400


def age(session: Session, days: float) -> None:
    """Everything of the session happened so many days ago."""
    then = days_ago(days)
    Session.objects.filter(pk=session.pk).update(last_activity=then, created_at=then)
    Event.objects.filter(session=session).update(at=then)
    LLMRequest.objects.filter(session=session).update(started_at=then)


def answered(session_id: str, content: str = "hello") -> Session:
    """One more turn of the session, from the question to the answer."""
    outcome = runs.submit(session_id, Request(content, agent="ask"), "owner", AGENTS)
    assert outcome.work is not None
    assert outcome.work.message is not None
    asked = {"agent": "ask", "model": "m", "total_tokens": 3, "prompt_tokens": 2, "completion_tokens": 1}
    steps.complete(outcome.work.run, outcome.work.message, "an answer", "", asked, {})
    return outcome.session


def cleaned() -> dict[str, int]:
    """What went, by name, as the command and the schedule have it go."""
    tallies.fold()
    kept = Retention.by_settings()
    gone = {}
    for chore in cleanup.wanted(kept):
        expected, gone[chore.name] = chore.count(kept), 0
        for portion in chore.portions(kept):
            while count := chore.apply(kept, portion):
                gone[chore.name] += count
        assert gone[chore.name] == expected
    return {name: count for name, count in gone.items() if count}


def sound() -> None:
    assert [finding.broken.name for finding in doctor.examine()] == []
    assert list(audit_chains.faults()) == []


# --- sessions ----------------------------------------------------------------------------------------------------


def test_a_session_that_nobody_used_is_expired_and_says_so() -> None:
    session = answered("s")
    age(session, 8)
    answered("t")
    assert cleaned() == {"sessions to expire": 1}
    session.refresh_from_db()
    assert not session.is_active
    assert session.expired_at is not None
    assert Event.objects.get(session=session, type=events.SESSION_EXPIRED).seq == session.last_seq
    assert queries.session("t").is_active
    with pytest.raises(SessionExpired):
        runs.submit("s", Request("hello"), "owner", AGENTS)
    sound()


def test_an_expired_session_that_is_activated_is_in_use_again() -> None:
    age(answered("s"), 8)
    cleaned()
    services.activate("s")
    assert cleaned() == {}
    answered("s", "again")


def test_a_session_that_works_or_has_a_message_waiting_is_in_use() -> None:
    outcome = runs.submit("s", Request("one"), "owner", AGENTS)
    runs.submit("s", Request("two"), "owner", AGENTS)
    age(outcome.session, 100)
    assert "sessions to expire" not in cleaned()
    Run.objects.filter(session=outcome.session, state=RunState.RUNNING).update(state=RunState.COMPLETED)
    assert "sessions to expire" not in cleaned()


@pytest.mark.parametrize(("patience_seconds", "goes"), [(86_400 * 9, False), (86_400, True), (0, False)])
def test_a_session_that_waits_for_its_client_is_in_use_while_an_approval_may_wait(
    settings: Any, patience_seconds: int, goes: bool
) -> None:
    settings.APPROVAL_EXPIRY_SECONDS = patience_seconds
    session = told.session("s")
    Message.objects.filter(session=session, state="open").delete()
    age(session, 8)
    assert "sessions to expire" not in cleaned()  # without an end, the approval waits for ever
    Approval.objects.update(expires_at=days_ago(7))
    assert ("sessions to expire" in cleaned()) is goes
    assert (told.waiting_run(session).state == RunState.CANCELLED) is goes
    assert queries.session("s").is_active is not goes
    assert len(queries.pending_approvals("s")["pending_approvals"]) == (0 if goes else 1)


def test_a_session_that_is_used_after_it_was_found_is_not_expired() -> None:
    session = answered("s")
    age(session, 8)
    kept = Retention.by_settings()
    expire = next(chore for chore in cleanup.wanted(kept) if chore.name == "sessions to expire")
    (portion,) = expire.portions(kept)
    answered("s", "just in time")
    assert expire.apply(kept, portion) == 0
    assert queries.session("s").is_active


def test_an_expired_session_is_purged_whole_and_its_counts_and_head_stay() -> None:
    age(answered("s"), 8)
    cleaned()
    session = queries.session("s")
    counted = tallies.totals()
    Session.objects.update(expired_at=days_ago(31))
    other = answered("t")
    assert cleaned()["sessions to purge"] == 1
    with pytest.raises(SessionNotFound):
        queries.session("s")
    for model in (Message, Run, Event, LLMRequest, AuditEntry):
        assert not model._default_manager.filter(session=session.pk).exists()
    tombstone = AuditEntry.objects.get(session=None)
    assert (tombstone.action, tombstone.who, tombstone.subject) == ("session.purge", "system", "s")
    assert json.loads(tombstone.before) == {"session": session.pk, "entries": 3, "head": session.audit_hash}
    assert all(tallies.totals()[series] >= value for series, value in counted.items())
    assert other.is_active
    sound()
    assert answered("s", "a new one").pk != session.pk


def test_what_was_closed_by_hand_or_opened_again_is_not_purged() -> None:
    for name in ("closed", "opened"):
        age(answered(name), 8)
    services.deactivate("closed")
    cleaned()
    Session.objects.filter(session_id="opened").update(expired_at=days_ago(31))
    kept = Retention.by_settings()
    purge = next(chore for chore in cleanup.wanted(kept) if chore.name == "sessions to purge")
    (portion,) = purge.portions(kept)
    services.activate("opened")
    assert purge.apply(kept, portion) == 0
    assert set(Session.objects.values_list("session_id", flat=True)) == {"closed", "opened"}


# --- events ------------------------------------------------------------------------------------------------------


def old_and_new() -> Session:
    """Two turns of long ago, and one of today."""
    answered("s", "one")
    session = answered("s", "two")
    age(session, 20)
    Session.objects.update(last_activity=timezone.now())
    return answered("s", "three")


def test_old_events_go_by_whole_turns_and_the_history_stays() -> None:
    session = old_and_new()
    history = queries.history("s")["messages"]
    first = Event.objects.filter(session=session, at__gt=days_ago(1)).order_by("seq").first()
    assert first is not None
    assert cleaned() == {"events": first.seq - 1, "model requests": 2}
    session.refresh_from_db()
    assert session.first_seq == first.seq
    assert Event.objects.filter(session=session).order_by("seq").first() == first
    assert queries.history("s")["messages"] == history
    last = AuditEntry.objects.filter(session=session).order_by("number").last()
    assert last is not None
    assert (last.action, json.loads(last.after)) == ("retention.apply", {"first_event": first.seq})
    sound()
    assert cleaned() == {}


def test_a_turn_that_began_long_ago_keeps_all_of_its_events() -> None:
    session = old_and_new()
    turn = Run.objects.filter(session=session).order_by("pk").last()
    begun = Event.objects.filter(run=turn).order_by("seq").first()
    assert begun is not None
    Event.objects.filter(pk=begun.pk).update(at=days_ago(20))
    cleaned()
    assert Event.objects.filter(session=session).order_by("seq").first() == begun


def test_what_an_unfinished_run_needs_stays_however_old() -> None:
    answered("s")
    session = told.session("t")
    age(session, 20)
    Session.objects.update(last_activity=timezone.now())
    run = told.waiting_run(session)
    begun = Event.objects.filter(run=run).order_by("seq").first()
    assert begun is not None
    assert cleaned() == {"events": begun.seq - 1}
    assert ToolCall.objects.filter(run=run).exists()
    assert LLMRequest.objects.filter(run=run).count() == 3


@pytest.mark.parametrize("state", [DeliveryState.DUE, DeliveryState.RUNNING, DeliveryState.DEAD])
def test_what_a_handler_is_owed_or_has_given_up_stays(state: DeliveryState) -> None:
    session = old_and_new()
    second = Event.objects.get(session=session, seq=2)
    EventDelivery.objects.create(event=second, handler="sink", state=state)
    assert cleaned()["events"] == 1
    EventDelivery.objects.update(state=DeliveryState.DELIVERED, delivered_at=timezone.now())
    assert cleaned()["events"] > 1
    assert not EventDelivery.objects.exists()
    sound()


def test_a_log_may_lose_all_of_its_events() -> None:
    session = answered("s")
    age(session, 20)
    Session.objects.update(last_activity=timezone.now())
    cleaned()
    session.refresh_from_db()
    assert not Event.objects.filter(session=session).exists()
    assert session.first_seq == session.last_seq + 1
    sound()
    answered("s", "and on")
    sound()


def test_a_long_log_goes_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (retention, cleanup):
        monkeypatch.setattr(module, "PORTION_ROWS", 10)
    session = answered("s")
    with writing.locked("s") as change:
        for _ in range(35):
            change.event(events.SESSION_UPDATED)
    age(session, 20)
    Session.objects.update(last_activity=timezone.now())
    kept = Retention.by_settings()
    trim = next(chore for chore in cleanup.wanted(kept) if chore.name == "events")
    (portion,) = trim.portions(kept)
    portions = []
    while count := trim.apply(kept, portion):
        portions.append(count)
        sound()
    assert sum(portions) == queries.session("s").last_seq
    assert set(portions[:-1]) == {10}


def test_deliveries_that_were_made_go_before_their_events() -> None:
    session = old_and_new()
    first = Event.objects.get(session=session, seq=1)
    EventDelivery.objects.create(event=first, handler="dead", state=DeliveryState.DEAD)
    for seq, days in ((2, 20), (3, 1)):
        event = Event.objects.get(session=session, seq=seq)
        EventDelivery.objects.create(event=event, handler="sink", state="delivered", delivered_at=days_ago(days))
    assert cleaned()["deliveries"] == 1
    assert sorted(EventDelivery.objects.values_list("event__seq", flat=True)) == [1, 3]
    entry = AuditEntry.objects.filter(session=None, subject="deliveries").get()
    assert json.loads(entry.after)["count"] == 1


def test_actions_in_the_background_go_when_they_ended_long_ago() -> None:
    for action, ended in (("old", days_ago(20)), ("young", days_ago(1)), ("at work", None)):
        batch = Batch.objects.create(action=action, ended_at=ended)
        BatchPart.objects.create(batch=batch, number=0, chosen=[1])
    assert cleaned()["background actions"] == 1
    assert set(Batch.objects.values_list("action", flat=True)) == {"young", "at work"}
    assert BatchPart.objects.count() == 2
    entry = AuditEntry.objects.filter(session=None, subject="background_actions").get()
    assert json.loads(entry.after)["count"] == 1


def test_a_request_to_the_model_goes_only_when_it_is_counted() -> None:
    old_and_new()
    kept = Retention.by_settings()
    requests = next(chore for chore in cleanup.wanted(kept) if chore.name == "model requests")
    assert (requests.count(kept), tallies.totals()) == (2, {})  # what a run takes, which counts first
    assert cleaned()["model requests"] == 2
    assert LLMRequest.objects.count() == 1
    tallies.fold()
    assert tallies.totals()[tallies.TOKENS, "prompt"] == 6


def test_a_cursor_older_than_the_log_has_expired_and_the_first_of_it_has_not() -> None:
    session = old_and_new()
    cleaned()
    session.refresh_from_db()
    tag = session.cursor_tag
    for seq in (0, 1, session.first_seq - 2):
        with pytest.raises(CursorExpired):
            reader.locate("s", f"{seq}.0-{tag}" if seq else "0.0")
    _, where, _, _ = reader.locate("s", f"{session.first_seq - 1}.0-{tag}")
    found, _ = reader.stored(session.pk, where.seq, None)
    assert found is not None
    assert found[0].seq == session.first_seq
    Event.objects.filter(session=session).delete()
    Session.objects.update(first_seq=session.last_seq + 1)
    with pytest.raises(CursorExpired):
        reader.stored(session.pk, where.seq, None)
    assert reader.stored(session.pk, session.last_seq, None) == ([], "")


def test_a_late_result_for_a_call_of_an_expired_session_is_refused() -> None:
    session = told.session("s")
    Message.objects.filter(session=session, state="open").delete()
    Approval.objects.update(expires_at=days_ago(7))
    age(session, 8)
    cleaned()
    outcome = answers.answer("s", Result("call_1", "done", failed=False), "key:1", "owner", AGENTS)
    assert outcome.fault is not None
    assert outcome.fault.code == "CALL_CLOSED"


# --- by settings, by hand and by schedule ------------------------------------------------------------------------


def test_without_settings_everything_is_kept(settings: Any) -> None:
    settings.SESSION_IDLE_EXPIRE_HOURS = settings.SESSION_PURGE_DAYS = settings.EVENT_RETENTION_DAYS = 0
    age(answered("s"), 10_000)
    assert Retention.by_settings().keeps_everything
    assert cleanup.wanted(Retention.by_settings()) == []
    assert "Everything is kept" in command()


def test_a_setting_beyond_the_calendar_keeps_for_ever(settings: Any) -> None:
    settings.SESSION_IDLE_EXPIRE_HOURS = settings.SESSION_PURGE_DAYS = settings.EVENT_RETENTION_DAYS = 1e12
    assert Retention.by_settings().keeps_everything


def command(*arguments: str) -> str:
    out = StringIO()
    call_command("cleanup", *arguments, stdout=out)
    return out.getvalue()


def test_a_dry_run_counts_and_changes_nothing() -> None:
    age(answered("s"), 20)
    rows = Event.objects.count()
    counted = command("--dry-run").splitlines()
    assert counted == [
        "model requests: 1 would go",  # although nobody has counted it yet
        "deliveries: 0 would go",
        "background actions: 0 would go",
        f"events: {rows} would go",
        "sessions to expire: 1 would go",
        "sessions to purge: 0 would go",
    ]
    assert Event.objects.count() == rows
    assert queries.session("s").is_active
    assert AuditEntry.objects.filter(action__in=["session.expire", "retention.apply"]).count() == 0


def test_a_dry_run_counts_what_then_goes() -> None:
    """Also of what goes with something else: requests, deliveries and events with a purged session, and a delivery with
    its event."""
    for name, days in (("expired long ago", 40), ("unused", 20), ("used", 0)):
        age(answered(name), days)
    waiting = told.session("waiting")
    Approval.objects.filter(session=waiting).update(expires_at=days_ago(20))
    age(waiting, 30)
    Session.objects.filter(session_id="expired long ago").update(is_active=False, expired_at=days_ago(40))
    for event in Event.objects.filter(type="TaskCompleted"):
        EventDelivery.objects.create(event=event, handler="h", state="delivered", delivered_at=event.at)
    Batch.objects.create(action="expire", state="finished", ended_at=days_ago(20))
    before = [line.split(" would go")[0] for line in command("--dry-run").splitlines()]
    done = command().splitlines()
    assert [f"{one} of {one.rpartition(': ')[2]} done" for one in before] == done
    assert [int(one.rpartition(": ")[2]) > 0 for one in before] == [True] * 6
    sound()


def test_the_command_names_its_user_in_the_audit(capsys: pytest.CaptureFixture[str]) -> None:
    age(answered("s"), 20)
    assert "sessions to expire: 1 of 1 done" in command()
    assert AuditEntry.objects.get(action="session.expire").who.startswith("shell:")
    assert "sessions to expire" in capsys.readouterr().err  # the progress
    sound()


def test_one_process_at_a_time_does_what_is_due() -> None:
    assert schedules.is_due("work")
    assert schedules.claim("work", "one", 60)
    assert not schedules.is_due("work")
    assert not schedules.claim("work", "two", 60)
    assert schedules.renew("work", "one", 60)
    assert not schedules.renew("work", "two", 60)
    schedules.finish("work", "one", 60)
    assert not schedules.claim("work", "two", 60)
    schedules.Schedule.objects.update(due_at=days_ago(1))
    assert schedules.claim("work", "two", -1)  # and dies
    assert schedules.claim("work", "one", 60)
    assert not schedules.renew("work", "two", 60)
