"""Actions on many rows, step by step: frozen when prepared, one owner at a time, nothing lost and nothing twice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django.utils.translation import override

from sessions_app import audit_chains, batches, bulk
from sessions_app.errors import SessionNotFound, StorageUnavailable
from sessions_app.models import (
    Approval,
    AuditEntry,
    Batch,
    BatchPart,
    BatchState,
    Event,
    Message,
    Run,
    RunState,
    Session,
)
from tests.sessions_app import admin_rows

pytestmark = pytest.mark.django_db
WHO = "operator:anna"


@pytest.fixture(autouse=True)
def _in_english() -> Iterator[None]:
    with override("en"):
        yield


def sessions(count: int) -> list[Session]:
    return [Session.objects.create(session_id=f"s{number}") for number in range(count)]


def prepared(action: str, rows: Iterable[Any], **arguments: Any) -> Batch:
    return batches.prepare(action, [row.pk for row in rows], who=WHO, arguments=arguments)


def begun(action: str, rows: Iterable[Any], **arguments: Any) -> Batch:
    batch = prepared(action, rows, **arguments)
    assert batches.start(batch.pk, who=WHO)
    return batch


def finish(batch: Batch, owner: str = "me") -> Batch:
    assert batches.claim(batch.pk, owner, 30)
    while batches.step(batch.pk, owner, 30):
        pass
    batch.refresh_from_db()
    return batch


def counts(batch: Batch) -> tuple[int, int, int]:
    return batch.done, batch.skipped, batch.failed


def lapse(batch: Batch) -> None:
    Batch.objects.filter(pk=batch.pk).update(lease_until=timezone.now() - timedelta(seconds=1))


def test_each_row_is_seen_to_once_across_parts_in_the_operators_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "PART_ROWS", 3)
    batch = begun("deactivate", sessions(8))
    assert BatchPart.objects.count() == 3
    finish(batch)
    assert (batch.state, batch.position, batch.total) == (BatchState.FINISHED, 8, 8)
    assert counts(batch) == (8, 0, 0)
    assert not Session.objects.filter(is_active=True).exists()
    told = AuditEntry.objects.filter(session__isnull=False, action="session.deactivate")
    assert set(told.values_list("who", flat=True)) == {WHO}
    assert told.count() == 8
    [start] = AuditEntry.objects.filter(session=None)
    assert (start.action, start.who, start.subject) == ("batch.start", WHO, str(batch.pk))


def test_what_nobody_confirmed_is_not_done_and_goes_after_a_day() -> None:
    batch = prepared("deactivate", sessions(2))
    assert batches.due() is None
    assert not batches.claim(batch.pk, "me", 30)
    Batch.objects.update(created_at=timezone.now() - timedelta(hours=25))
    other = prepared("activate", [])
    assert [row.pk for row in Batch.objects.all()] == [other.pk]


def test_only_who_prepared_it_begins_it_and_only_once() -> None:
    batch = prepared("deactivate", sessions(2))
    assert not batches.start(batch.pk, who="operator:bob")
    assert batches.start(batch.pk, who=WHO)
    assert not batches.start(batch.pk, who=WHO)


def test_one_owner_at_a_time_and_another_goes_on_after_it() -> None:
    batch = begun("deactivate", sessions(3))
    assert batches.due() == batch.pk
    assert batches.claim(batch.pk, "me", 30)
    assert batches.due() is None
    assert not batches.claim(batch.pk, "you", 30)
    assert batches.step(batch.pk, "me", 30)
    assert not batches.step(batch.pk, "you", 30), "it is not yours"
    lapse(batch)
    assert not batches.step(batch.pk, "me", 30), "nobody's any more"
    finish(batch, "you")
    assert counts(batch) == (3, 0, 0)
    assert AuditEntry.objects.filter(action="session.deactivate").count() == 3


def test_a_process_that_ends_gives_it_back_at_once() -> None:
    batch = begun("deactivate", sessions(1))
    batches.claim(batch.pk, "me", 30)
    batches.give_back(batch.pk, "me")
    assert batches.due() == batch.pk


def test_it_is_stopped_between_two_rows() -> None:
    batch = begun("deactivate", sessions(3))
    batches.claim(batch.pk, "me", 30)
    assert batches.step(batch.pk, "me", 30)
    assert batches.stop(batch.pk, who="operator:bob")
    assert not batches.stop(batch.pk, who="operator:bob")
    assert not batches.step(batch.pk, "me", 30)
    assert batches.due() is None
    batch.refresh_from_db()
    assert (batch.state, counts(batch)) == (BatchState.STOPPED, (1, 0, 0))
    assert Session.objects.filter(is_active=True).count() == 2
    assert AuditEntry.objects.get(action="batch.stop").who == "operator:bob"


def test_what_is_refused_is_left_alone_and_says_why() -> None:
    there, closed = sessions(2)
    Session.objects.filter(pk__in=[there.pk, closed.pk]).update(current_agent="coder")
    Session.objects.filter(pk=closed.pk).update(is_active=False)
    already = Session.objects.create(session_id="already")
    gone = Session(pk=999_999)
    batch = finish(begun("reset_agent", [there, closed, already, gone]))
    assert counts(batch) == (1, 3, 0)
    told = dict(batch.refusals.values_list("subject", "reason"))
    assert "closed" in told["s1"]
    assert "current agent" in told["already"]
    assert "not found" in told["999999"]
    there.refresh_from_db()
    assert there.current_agent == "orchestrator"


def test_reasons_are_in_the_language_of_who_asked() -> None:
    with override("ru"):
        batch = prepared("cancel_run", sessions(1))
    batches.start(batch.pk, who=WHO)
    finish(batch)
    assert "нечего" in batch.refusals.get().reason.lower()


def test_one_that_breaks_does_not_hold_up_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(session: Session, arguments: Any, who: str) -> None:
        Session.objects.filter(pk=session.pk).update(title="half done")
        if session.session_id == "s1":
            raise ZeroDivisionError

    monkeypatch.setitem(bulk.DEEDS, "activate", bulk.Deed("Break", breaks))
    batch = finish(begun("activate", sessions(3)))
    assert counts(batch) == (2, 0, 1)
    assert batch.refusals.get().is_failure
    assert Session.objects.get(session_id="s1").title == "", "nothing of it is kept"


def test_storage_that_is_away_loses_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(session: Session, arguments: Any, who: str) -> None:
        raise StorageUnavailable

    with monkeypatch.context() as broken:
        broken.setitem(bulk.DEEDS, "deactivate", bulk.Deed("Away", away))
        batch = begun("deactivate", sessions(2))
        batches.claim(batch.pk, "me", 30)
        with pytest.raises(StorageUnavailable):
            batches.step(batch.pk, "me", 30)
    batch.refresh_from_db()
    assert (batch.position, counts(batch)) == (0, (0, 0, 0))
    lapse(batch)
    assert counts(finish(batch)) == (2, 0, 0)


# --- what is done ------------------------------------------------------------------------------------------------


def test_a_purge_takes_all_of_a_session_and_none_in_use() -> None:
    idle = admin_rows.conversation("idle")
    Approval.objects.all().delete()
    asked = admin_rows.conversation("asked")
    works = Session.objects.create(session_id="works")
    Run.objects.create(session=works, state=RunState.RUNNING)
    waits = Session.objects.create(session_id="waits")
    Run.objects.create(session=waits, state=RunState.WAITING)
    batch = finish(begun("purge", [idle, asked, works, waits]))
    assert counts(batch) == (1, 3, 0)
    assert set(batch.refusals.values_list("subject", flat=True)) == {"asked", "works", "waits"}
    assert not Message.objects.filter(session_id=idle.pk).exists()
    assert not Event.objects.filter(session_id=idle.pk).exists()
    purged = AuditEntry.objects.get(action="session.purge")
    assert (purged.who, purged.subject) == (WHO, "idle")
    assert list(audit_chains.faults()) == []


def test_a_wait_that_nobody_is_waited_for_in_any_more_is_no_use(settings: Any) -> None:
    settings.APPROVAL_EXPIRY_SECONDS = 60
    session = Session.objects.create(session_id="s", last_activity=timezone.now() - timedelta(minutes=2))
    Run.objects.create(session=session, state=RunState.WAITING)
    assert counts(finish(begun("purge", [session]))) == (1, 0, 0)


def test_old_sessions_that_were_used_meanwhile_stay() -> None:
    old, used = sessions(2)
    moment = timezone.now()
    Session.objects.filter(pk=old.pk).update(last_activity=moment - timedelta(days=1))
    Session.objects.filter(pk=used.pk).update(last_activity=moment + timedelta(seconds=1))
    batch = finish(begun("delete", [old, used], unused_since=moment.isoformat()))
    assert counts(batch) == (1, 1, 0)
    assert [row.session_id for row in Session.objects.all()] == ["s1"]


def test_a_session_that_has_taken_the_name_of_one_that_is_gone_stays() -> None:
    [chosen] = sessions(1)
    Session.objects.filter(pk=chosen.pk).delete()
    successor = Session.objects.create(session_id=chosen.session_id)
    with pytest.raises(SessionNotFound):
        bulk.DEEDS["delete"].apply(chosen, {}, WHO)
    assert Session.objects.get() == successor


def test_runs_are_cancelled_one_by_one() -> None:
    first, second = sessions(2)
    waiting = Run.objects.create(session=first, state=RunState.WAITING)
    ended = Run.objects.create(session=second, state=RunState.COMPLETED)
    batch = finish(begun("cancel_runs", [waiting, ended]))
    assert counts(batch) == (1, 1, 0)
    waiting.refresh_from_db()
    assert waiting.state == RunState.CANCELLED
    assert AuditEntry.objects.get(action="run.cancel").who == WHO


def test_broken_states_are_repaired_one_by_one() -> None:
    wrong = Session.objects.create(session_id="wrong", message_count=5)
    batch = finish(begun("repair", [wrong], check="wrong-counter"))
    assert counts(batch) == (1, 0, 0)
    wrong.refresh_from_db()
    assert wrong.message_count == 0
    assert counts(finish(begun("repair", [wrong], check="event-gap"))) == (0, 1, 0)


def test_a_step_costs_the_same_however_many_are_chosen() -> None:
    costs = []
    for count in (3, 30):
        Session.objects.all().delete()
        batch = begun("activate", sessions(count))
        batches.claim(batch.pk, "me", 30)
        with CaptureQueriesContext(connection) as queries:
            batches.step(batch.pk, "me", 30)
        costs.append(len(queries))
        batches.stop(batch.pk, who=WHO)
    assert costs[0] == costs[1]


def test_an_action_of_a_newer_process_is_left_to_it_and_holds_up_no_other() -> None:
    Batch.objects.create(action="of tomorrow", who="operator:anna", state=BatchState.QUEUED, total=1)
    assert batches.due() is None
    mine = batches.prepare("deactivate", [admin_rows.conversation("s").pk], who="operator:anna")
    assert batches.start(mine.pk, who="operator:anna")
    assert batches.due() == mine.pk
