"""Running totals: every finished row is counted once, whoever folds it and whatever becomes of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection, models
from django.utils import timezone

from sessions_app import services, tallies
from sessions_app.models import Approval, ApprovalState, LLMRequest, Run, RunState, Session, ToolCall, ToolCallState
from tests.sessions_app import told

pytestmark = pytest.mark.django_db
FOLDERS = 4


@pytest.fixture(autouse=True)
def _known_tools() -> Iterator[None]:
    before = tallies._tools
    tallies.know_tools(["write_file"])
    yield
    tallies.know_tools(before)


def end_everything(state: str = ToolCallState.COMPLETED) -> None:
    """What waits in the told sessions has its end."""
    now = timezone.now()
    Run.objects.update(state=RunState.COMPLETED, ended_at=now)
    ToolCall.objects.update(state=state, ended_at=now)
    Approval.objects.update(state=ApprovalState.APPROVED, decided_at=now)


def runs_of(session: Session, count: int) -> None:
    Run.objects.bulk_create(Run(session=session, state=RunState.FAILED, ended_at=timezone.now()) for _ in range(count))


def test_what_has_ended_is_counted_by_its_outcome() -> None:
    told.session()
    end_everything()
    LLMRequest.objects.filter(success=True, purpose=LLMRequest.ANSWER).update(first_token_ms=250)
    tallies.fold()
    assert tallies.totals() == {
        ("turns", "completed"): 1,
        ("tokens", "prompt"): 20,
        ("tokens", "completion"): 10,
        ("first_token", "0.25"): 1,
        ("first_token_ms", ""): 250,
        ("tool_calls", "write_file completed"): 1,
        ("approval_decisions", "approve"): 1,
    }


def test_what_has_not_ended_is_counted_when_it_ends() -> None:
    """Not by its number: what began early may end, or commit, after much that began later."""
    waiting = told.session()
    runs_of(waiting, 2)
    tallies.fold()
    assert tallies.totals()["turns", "failed"] == 2
    assert not {name for name, _ in tallies.totals()} & {"tool_calls", "approval_decisions"}
    end_everything()
    tallies.fold()
    assert tallies.totals()["turns", "completed"] == 1
    assert tallies.totals()["tool_calls", "write_file completed"] == 1


def test_nothing_is_counted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tallies, "BATCH_ROWS", 3)
    runs_of(told.session(), 10)
    assert tallies.fold() == 10 + LLMRequest.objects.count()
    before = tallies.totals()
    assert tallies.fold() == 0
    assert tallies.totals() == before
    assert before["turns", "failed"] == 10


@pytest.mark.parametrize("removed", [services.delete_session, services.clear_messages])
def test_totals_do_not_fall_when_their_rows_go(removed: Any) -> None:
    told.session()
    told.session("another")
    end_everything()
    removed("told")
    assert tallies.totals()["tool_calls", "write_file completed"] == 1
    tallies.fold()
    assert tallies.totals()["turns", "completed"] == 2
    assert tallies.totals()["tool_calls", "write_file completed"] == 2
    assert tallies.totals()["approval_decisions", "approve"] == 2


def test_a_turn_that_its_deletion_ends_is_counted() -> None:
    told.session()
    services.delete_session("told")
    assert tallies.totals()["turns", "cancelled"] == 1
    assert tallies.totals()["tool_calls", "write_file closed"] == 1
    assert tallies.totals()["approval_decisions", "closed"] == 1


def test_tools_that_a_model_makes_up_are_one_series() -> None:
    told.session()
    ToolCall.objects.update(name="rm -rf / " * 20)
    end_everything(ToolCallState.REFUSED)
    tallies.fold()
    assert tallies.totals()["tool_calls", "other refused"] == 1


@pytest.mark.django_db(transaction=True)
def test_folders_that_meet_count_each_row_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As several processes do: each in a transaction of its own, on a connection of its own."""
    monkeypatch.setattr(tallies, "BATCH_ROWS", 7)
    sessions = [told.session(f"s{n}") for n in range(3)]
    for session in sessions:
        runs_of(session, 40)
    Run.objects.filter(state=RunState.WAITING).update(state=RunState.COMPLETED, ended_at=timezone.now())
    meeting = threading.Barrier(FOLDERS + 1)

    def fold() -> int:
        meeting.wait(30)
        try:
            return tallies.fold()
        finally:
            connection.close()

    def delete() -> None:
        meeting.wait(30)
        try:
            services.delete_session("s1")
        finally:
            connection.close()

    with ThreadPoolExecutor(FOLDERS + 1) as pool:
        at_work = [*(pool.submit(fold) for _ in range(FOLDERS)), pool.submit(delete)]
        for one in at_work:
            one.result(60)
    tallies.fold()
    assert tallies.totals()["turns", "failed"] == 120
    assert tallies.totals()["turns", "completed"] == 3
    assert tallies.totals()["tokens", "prompt"] == 60
    assert not Run.objects.filter(counted=False).exists()


def test_folding_finds_its_rows_by_index() -> None:
    """However long the history is: nothing that was counted is read again."""
    if connection.vendor != "sqlite":
        pytest.skip("PostgreSQL reads small tables as a whole, whatever the index")
    for source in tallies.SOURCES:
        plan = tallies._uncounted(source).order_by("pk").values_list("pk", *source.columns)[:9].explain()
        assert f"{_uncounted_index(source.model)}" in plan, plan


def _uncounted_index(model: type[models.Model]) -> str:
    return next(index.name for index in model._meta.indexes if index.name.endswith("_uncounted"))
