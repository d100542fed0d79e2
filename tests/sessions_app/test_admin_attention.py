"""What the home page says needs a person: what it is, why, and the button that frees it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from sessions_app import breakers, gauges
from sessions_app.admin import attention
from sessions_app.models import (
    Approval,
    Breaker,
    BreakerState,
    Event,
    EventDelivery,
    Message,
    Run,
    RunState,
    Session,
    ToolCall,
    ToolCallState,
)
from tests.sessions_app.test_admin import operator, visitor

__all__ = ["operator", "visitor"]
pytestmark = pytest.mark.django_db
HOSTILE = "<script>alert(1)</script>\u202e"


def turn(session_id: str, state: str = RunState.WAITING, **fields: object) -> Run:
    session = Session.objects.create(session_id=session_id)
    return Run.objects.create(session=session, state=state, **fields)


def call(run: Run, *, seconds_ago: int, state: str = ToolCallState.OUT, name: str = "write_file") -> ToolCall:
    message = Message.objects.create(session=run.session, run=run, number=1, role=Message.ASSISTANT)
    Session.objects.filter(pk=run.session_id).update(last_number=1)
    asked = timezone.now() - timedelta(seconds=seconds_ago)
    return ToolCall.objects.create(
        session=run.session, run=run, message=message, call_id="c", name=name, state=state, requested_at=asked
    )


def approval(session_id: str, *, expires_in: int | None) -> Approval:
    waiting = call(turn(session_id), seconds_ago=5, state=ToolCallState.PENDING)
    ends = None if expires_in is None else timezone.now() + timedelta(seconds=expires_in)
    return Approval.objects.create(session=waiting.session, call=waiting, expires_at=ends)


def dead_letter(handler: str, error: str = "HTTP 500") -> None:
    session, _ = Session.objects.get_or_create(session_id="d")
    event = Event.objects.create(session=session, seq=Event.objects.count() + 1, type="TaskCompleted")
    EventDelivery.objects.create(event=event, handler=handler, state="dead", last_error=error)


def test_nothing_needs_a_person_while_all_is_well(operator: Client) -> None:
    call(turn("fresh"), seconds_ago=5)
    approval("later", expires_in=attention.NEAR_END_SECONDS * 3)
    approval("for ever", expires_in=None)
    turn("queued", RunState.QUEUED)
    assert attention.found() == []
    assert "Nothing needs a person" in operator.get("/admin/").content.decode()


def test_each_trouble_says_what_it_is_and_leads_to_where_it_is_mended(operator: Client) -> None:
    late = timezone.now() - timedelta(hours=1)
    lost = turn("lost", RunState.RUNNING, lease_owner="gone", lease_until=late)
    doubtful = call(turn("doubtful"), seconds_ago=attention.IN_DOUBT_SECONDS + 5)
    queued = turn("queued", RunState.QUEUED)
    Run.objects.filter(pk=queued.pk).update(created_at=late)
    ending = approval("ending", expires_in=600)
    Breaker.objects.update_or_create(
        name=breakers.state().name, defaults={"state": BreakerState.OPEN, "last_error": HOSTILE, "opened_at": late}
    )
    dead_letter("b" + HOSTILE)
    dead_letter("a")
    dead_letter("a")
    gauges.note_broken(gauges.DOCTOR, 2)
    troubles = attention.found()
    assert [(one.title, one.session) for one in troubles] == [
        ("lost", lost.session), ("doubtful", doubtful.session), ("queued", queued.session), ("ending", None),
        ("The language model is not asked", None), ("2 dead letters of a", None),
        (f"1 dead letter of b{HOSTILE}", None), ("2 broken states", None),
    ]  # fmt: skip
    assert troubles[1].address.endswith(f"#call-{doubtful.pk}")
    assert troubles[3].address.endswith(f"#call-{ending.call_id}")
    assert "10 min" in troubles[3].why or "9 min" in troubles[3].why
    for one in troubles:
        assert operator.get(one.address).status_code == 200, one.title
    page = operator.get("/admin/").content.decode()
    assert page.count("Free the session</button>") == 3
    assert "<script>alert" not in page
    assert "\u202e" not in page


def test_the_button_asks_before_it_frees_the_session(operator: Client) -> None:
    stuck = call(turn("stuck"), seconds_ago=600)
    form = {
        "action": "cancel_run", "_selected_action": stuck.session_id, "back": stuck.session_id, "index": "0",
        "select_across": "0",
    }  # fmt: skip
    address = reverse("admin:sessions_app_session_changelist")
    assert operator.post(address, form).status_code == 200
    assert Run.objects.get().state == RunState.WAITING
    assert operator.post(address, {**form, "confirmed": "cancel_run"}).status_code == 302
    assert Run.objects.get().state == RunState.CANCELLED
    assert attention.found() == []


def test_a_viewer_sees_the_trouble_and_no_button(visitor: Client) -> None:
    viewer = User.objects.create(username="viewer", is_staff=True)
    viewer.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    visitor.force_login(viewer)
    call(turn("stuck"), seconds_ago=600)
    page = visitor.get("/admin/").content.decode()
    assert "Settle it" in page
    assert "Free the session" not in page


def test_many_troubles_cost_the_same_queries_as_one(operator: Client) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as made:
            assert operator.get("/admin/sessions_app/session/home/").status_code == 200
        return len(made)

    call(turn("a"), seconds_ago=600)
    approval("b", expires_in=60)
    dead_letter("h")
    queries()
    few = queries()
    for number in range(attention.SHOWN + 3):
        call(turn(f"a{number}"), seconds_ago=600)
        approval(f"b{number}", expires_in=60)
        dead_letter(f"h{number}")
    assert queries() == few
    assert len(attention.found()) == 3 * attention.SHOWN
