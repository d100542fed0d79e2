"""Every broken state is found by its name, repaired, and then gone; a sound database has none."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import call_command
from django.db.models import F
from django.utils import timezone

from sessions_app import doctor, events, runs, services
from sessions_app.models import (
    Approval,
    ApprovalState,
    Event,
    Message,
    MessageState,
    Run,
    RunState,
    Session,
    ToolCall,
    ToolCallState,
)
from sessions_app.runs import Request

pytestmark = pytest.mark.django_db
AGENTS = ("orchestrator", "coder", "ask")


def started() -> Run:
    outcome = runs.submit("s1", Request("hello", agent="ask"), "owner", AGENTS)
    assert outcome.run is not None
    return outcome.run


def lose_the_lease() -> None:
    started()
    Run.objects.update(lease_until=timezone.now() - timedelta(minutes=1))


def wait_for_nothing() -> None:
    run = started()
    Message.objects.filter(state=MessageState.OPEN).update(state=MessageState.COMPLETE)
    Run.objects.filter(pk=run.pk).update(state=RunState.WAITING, lease_until=None)


def queue_for_an_hour() -> None:
    started()
    runs.submit("s1", Request("second"), "owner", AGENTS)
    Run.objects.filter(state=RunState.QUEUED).update(created_at=timezone.now() - timedelta(hours=1))


def leave_a_message_open() -> None:
    Run.objects.filter(pk=started().pk).update(state=RunState.COMPLETED)


def a_call(run: Run, state: ToolCallState) -> ToolCall:
    message = Message.objects.get(state=MessageState.OPEN)
    calls = [{"id": "c1", "type": "function", "function": {"name": "read_file", "arguments": "{}"}}]
    Message.objects.filter(pk=message.pk).update(state=MessageState.COMPLETE, tool_calls=calls)
    Session.objects.update(message_count=F("message_count") + 1)
    fields = {"session": run.session, "run": run, "message": message, "name": "read_file", "call_id": "c1"}
    return ToolCall.objects.create(**fields, state=state)


def leave_a_call_open() -> None:
    run = started()
    a_call(run, ToolCallState.OUT)
    Run.objects.filter(pk=run.pk).update(state=RunState.COMPLETED)


def leave_an_approval_pending() -> None:
    run = started()
    call = a_call(run, ToolCallState.COMPLETED)
    Run.objects.filter(pk=run.pk).update(state=RunState.COMPLETED)
    Approval.objects.create(session=run.session, call=call, state=ApprovalState.PENDING)


def let_an_approval_wait_too_long() -> None:
    run = started()
    a_call(run, ToolCallState.PENDING)
    Run.objects.filter(pk=run.pk).update(state=RunState.WAITING, lease_until=None)
    late = timezone.now() - timedelta(minutes=1)
    Approval.objects.create(session=run.session, call=ToolCall.objects.get(), expires_at=late)


def miscount() -> None:
    started()
    Session.objects.update(message_count=7)


def fall_behind() -> None:
    started()
    Session.objects.update(last_seq=1)


def forget_to_tell() -> None:
    run = started()
    Message.objects.create(session=run.session, number=90, role=Message.USER, content="silent")
    Session.objects.update(last_number=90, message_count=F("message_count") + 1)


STATES: list[tuple[str, Callable[[], None]]] = [
    ("run-without-lease", lose_the_lease),
    ("run-waits-for-nothing", wait_for_nothing),
    ("stale-queue", queue_for_an_hour),
    ("open-message", leave_a_message_open),
    ("endless-call", leave_a_call_open),
    ("orphan-approval", leave_an_approval_pending),
    ("late-approval", let_an_approval_wait_too_long),
    ("wrong-counter", miscount),
    ("numbers-behind", fall_behind),
    ("untold-message", forget_to_tell),
]


@pytest.mark.parametrize(("name", "break_it"), STATES, ids=[name for name, _ in STATES])
def test_a_broken_state_is_found_repaired_and_gone(name: str, break_it: Callable[[], None]) -> None:
    break_it()
    findings = doctor.examine()
    assert [finding.broken.name for finding in findings] == [name]
    assert findings[0].session_id == "s1"
    assert all(doctor.repair(finding) for finding in findings)
    assert doctor.examine() == []


def test_a_gap_is_told_and_left_to_people() -> None:
    started()
    Event.objects.filter(type=events.TASK_STARTED).delete()
    findings = doctor.examine()
    assert [finding.broken.name for finding in findings] == ["event-gap"]
    assert not doctor.repair(findings[0])


def test_every_state_is_tested() -> None:
    assert {broken.name for broken in doctor.BROKEN} == {name for name, _ in STATES} | {"event-gap"}


def test_a_sound_database_has_nothing_broken() -> None:
    services.create_session("empty")
    started()
    out = StringIO()
    call_command("doctor", stdout=out)
    assert "Nothing is broken." in out.getvalue()


def test_the_command_exits_with_one_while_something_is_broken_and_fixes_it() -> None:
    miscount()
    out = StringIO()
    with pytest.raises(SystemExit) as ended:
        call_command("doctor", stdout=out)
    assert ended.value.code == 1
    assert "wrong-counter" in out.getvalue()
    call_command("doctor", "--fix", stdout=out)
    assert "repaired" in out.getvalue()
