"""The admin through Django's test client: it shows everything as text, changes only what may be changed, and asks."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from sessions_app.models import Event, Message, MessageState, Run, RunState, Session
from tests.sessions_app import admin_rows
from tests.sessions_app.admin_rows import TABLES

pytestmark = pytest.mark.django_db
SESSIONS = "admin:sessions_app_session_changelist"


@pytest.fixture
def visitor(db: None) -> Client:
    return Client()


@pytest.fixture
def operator(visitor: Client) -> Client:
    visitor.force_login(User.objects.create(username="anna", is_staff=True, is_superuser=True))
    return visitor


def listing(table: str) -> str:
    return reverse(f"admin:sessions_app_{table}_changelist")


def own_page(row: Any) -> str:
    return reverse(f"admin:sessions_app_{row._meta.model_name}_change", args=[row.pk])


def html(client: Client, address: str, **query: Any) -> str:
    answer = client.get(address, query)
    assert answer.status_code == 200, address
    return answer.content.decode()


def act(client: Client, action: str, *sessions: Session, **more: str) -> Any:
    chosen = {"action": action, "index": "0", "_selected_action": [session.pk for session in sessions]}
    return client.post(reverse(SESSIONS), {**chosen, **more}, follow=True)


def listed(client: Client, **query: str) -> set[str]:
    return {row.session_id for row in client.get(reverse(SESSIONS), query).context["cl"].result_list}


# --- finding
def test_sessions_are_found_by_id_title_and_text_of_a_message_in_any_case(operator: Client) -> None:
    named = Session.objects.create(session_id="ide-42", title="Fix the login")
    said = Session.objects.create(session_id="other")
    Message.objects.create(session=said, number=1, role="user", content="Почему падает Логин?")
    assert listed(operator, q="IDE-4") == {named.session_id} == listed(operator, q="fix THE")
    assert listed(operator, q="почему") == {said.session_id} == listed(operator, q="логин")
    assert listed(operator, q="100%") == set()
    assert listed(operator, q=" ") == {"ide-42", "other"}


def test_sessions_are_filtered_by_activity_agent_and_state_of_their_runs(operator: Client) -> None:
    running = Session.objects.create(session_id="running", current_agent="coder")
    Run.objects.create(session=running, state=RunState.RUNNING)
    failed = Session.objects.create(session_id="failed", is_active=False)
    Run.objects.create(session=failed, state=RunState.FAILED)
    waiting = admin_rows.conversation("waiting")
    assert listed(operator, is_active__exact="0") == {"failed"}
    assert listed(operator, current_agent="coder") == {"running"}
    assert listed(operator, runs="unfinished") == {"running"}
    assert listed(operator, runs="failed") == {"failed"}
    assert listed(operator, runs="approval") == {waiting.session_id}
    assert listed(operator, last_activity__gte="2999-01-01 00:00:00+00:00") == set()


def test_events_are_filtered_by_type(operator: Client) -> None:
    session = Session.objects.create(session_id="s")
    for seq, type_ in enumerate(("TaskStarted", "TaskFailed", "TaskInterrupted"), 1):
        Event.objects.create(session=session, seq=seq, type=type_)
    for chosen, count in (("TaskFailed", 1), ("failed", 2), ("", 3)):
        assert len(operator.get(listing("event"), {"type": chosen}).context["cl"].result_list) == count


# --- cost
def test_a_list_costs_the_same_queries_with_5_and_with_50_rows(operator: Client) -> None:
    assert listing_costs(operator, rows=5) == listing_costs(operator, rows=50)


def listing_costs(client: Client, *, rows: int) -> dict[str, int]:
    for number in range(rows):
        admin_rows.conversation(f"{rows} {number}")
    client.get(listing("session"))
    costs = {}
    for table in TABLES:
        with CaptureQueriesContext(connection) as queries:
            html(client, listing(table))
        costs[table] = len(queries)
    assert max(costs.values()) <= 12
    return costs


def test_a_session_page_costs_the_same_queries_with_5_and_with_50_calls(operator: Client) -> None:
    costs = []
    for calls in (5, 50):
        session = admin_rows.conversation(f"of {calls}", calls=calls)
        html(operator, own_page(session))  # what a process reads once is not the page's
        with CaptureQueriesContext(connection) as queries:
            html(operator, own_page(session), before="8")  # there are newer messages in both
        costs.append(len(queries))
    assert costs[0] == costs[1] <= 24


def test_a_session_of_ten_thousand_messages_opens_with_its_newest_page(operator: Client) -> None:
    session = admin_rows.long_conversation(10_000)
    with CaptureQueriesContext(connection) as queries:
        page = html(operator, own_page(session))
    assert len(queries) <= 24
    assert len(page) < 400_000
    assert "message 10000 " in page
    assert "message 9951 " in page
    assert "message 9950 " not in page


def test_a_huge_message_is_cut_on_the_page_and_longer_on_its_own(operator: Client) -> None:
    session = Session.objects.create(session_id="s")
    message = Message.objects.create(session=session, number=1, role="tool", content="[" + "1," * 500_000 + "1]")
    assert "980003 more characters" in html(operator, own_page(session))
    assert "800003 more characters" in html(operator, own_page(message))


def test_a_long_log_is_counted_no_further_than_ten_thousand(operator: Client) -> None:
    admin_rows.long_conversation(10_001)
    assert "10000+" in html(operator, listing("event"))


# --- the conversation
def test_the_conversation_is_paged_to_its_beginning_and_back_with_its_part_of_the_log(operator: Client) -> None:
    session = admin_rows.long_conversation(120)
    newest = operator.get(own_page(session)).context
    assert [entry.message.number for entry in newest["page"].entries] == list(range(71, 121))
    older = operator.get(own_page(session), {"before": newest["page"].older}).context
    assert [entry.message.number for entry in older["page"].entries] == list(range(21, 71))
    assert older["moments"][-1].event.seq == 70
    newer = operator.get(own_page(session), {"after": older["page"].newer}).context
    assert [entry.message.number for entry in newer["page"].entries] == list(range(71, 121))
    assert newer["page"].newer is None
    assert operator.get(own_page(session), {"before": "21"}).context["page"].older is None


@pytest.mark.parametrize("nonsense", ["x", "-1", "9" * 30, "²", "0"])
def test_a_nonsense_page_is_no_error(operator: Client, nonsense: str) -> None:
    session = admin_rows.conversation("s")
    assert operator.get(own_page(session), {"before": nonsense}).status_code == 200


def test_a_call_stands_with_its_approval_and_result_at_the_message_that_asked(operator: Client) -> None:
    session = admin_rows.conversation("s", text="w")
    entries = operator.get(own_page(session)).context["page"].entries
    assert [entry.message.role for entry in entries] == ["user", "assistant"]
    (call,) = entries[1].calls
    assert (call.name, call.result, call.approval.decided_by, call.tone) == ("w", "w", "w", "good")


def test_a_result_whose_call_is_on_an_older_page_stands_alone(operator: Client) -> None:
    session = admin_rows.conversation("s")
    entries = operator.get(own_page(session), {"after": "2"}).context["page"].entries
    assert [entry.message.role for entry in entries] == ["tool"]


@pytest.mark.parametrize("calls", [[{"id": "c", "function": {"name": "gone"}}], [{"function": "broken"}, 7], [{}]])
def test_a_call_without_a_record_is_shown_from_the_message(operator: Client, calls: list[Any]) -> None:
    session = Session.objects.create(session_id="s")
    Message.objects.create(session=session, number=1, role="assistant", tool_calls=calls)
    entry = operator.get(own_page(session)).context["page"].entries[0]
    assert [call.row for call in entry.calls] == [None]


@pytest.mark.parametrize(
    ("state", "words"), [(MessageState.INTERRUPTED, "interrupted"), (MessageState.OPEN, "being written")]
)
def test_a_cut_and_an_unfinished_message_are_marked(operator: Client, state: str, words: str) -> None:
    session = Session.objects.create(session_id="s")
    Message.objects.create(session=session, number=1, role="assistant", content="half", state=state)
    assert f">{words}</span>" in html(operator, own_page(session))


def test_the_timeline_tells_the_time_between_events(operator: Client) -> None:
    session = Session.objects.create(session_id="s")
    for seq, at in enumerate(("2026-01-01T10:00:00Z", "2026-01-01T10:00:01.5Z", "2026-01-01T10:02:01.5Z"), 1):
        Event.objects.create(session=session, seq=seq, type="TaskStarted", at=at)
    moments = operator.get(own_page(session)).context["moments"]
    assert [(moment.gap, moment.long_gap) for moment in moments] == [
        ("", False),
        ("+1.5 s", False),
        ("+2 min 0 s", True),
    ]


# --- what may be changed
def test_title_and_description_are_edited_through_the_service_and_nothing_else_is(operator: Client) -> None:
    session = Session.objects.create(session_id="s", title="old")
    posted = {"title": "new", "description": "why", "session_id": "other", "is_active": "", "_continue": "Save"}
    assert operator.post(own_page(session), posted, follow=True).status_code == 200
    session.refresh_from_db()
    assert (session.session_id, session.title, session.description, session.is_active) == ("s", "new", "why", True)
    assert Event.objects.filter(session=session, type="SessionUpdated").exists()


@pytest.mark.parametrize("table", [table for table in TABLES if table not in ("policyrule", "apikey")])
def test_nothing_stored_is_added_or_deleted_by_hand(operator: Client, table: str) -> None:
    admin_rows.conversation("s")
    assert operator.get(reverse(f"admin:sessions_app_{table}_add")).status_code == 403
    if table != "session":
        row = operator.get(listing(table)).context["cl"].result_list[0]
        assert operator.get(reverse(f"admin:sessions_app_{table}_delete", args=[row.pk])).status_code == 403
        assert operator.post(own_page(row), {"content": "forged"}).status_code == 403


# --- who may do it
def test_a_viewer_sees_the_session_and_no_button_and_may_do_nothing(visitor: Client) -> None:
    viewer = User.objects.create(username="viewer", is_staff=True)
    viewer.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    visitor.force_login(viewer)
    session = admin_rows.conversation("s")
    page = html(visitor, own_page(session))
    assert 'name="action"' not in page
    assert 'name="title"' not in page
    assert visitor.get(reverse("admin:sessions_app_session_delete_older")).status_code == 403
    assert visitor.get(reverse("admin:sessions_app_session_delete", args=[session.pk])).status_code == 403
    act(visitor, "deactivate", session, confirmed="deactivate")
    session.refresh_from_db()
    assert session.is_active
    assert "Latest sessions" in html(visitor, reverse("admin:index"))


def test_strangers_are_asked_to_sign_in(visitor: Client) -> None:
    assert visitor.get(listing("session")).status_code == 302
    assert visitor.get(reverse("admin:sessions_app_session_delete_older")).status_code == 302


def test_a_russian_browser_reads_russian(operator: Client) -> None:
    session = admin_rows.conversation("s")
    russian = {"HTTP_ACCEPT_LANGUAGE": "ru"}
    assert "Подтверждения" in operator.get(reverse("admin:index"), **russian).content.decode()  # type: ignore[arg-type]
    page = operator.get(own_page(session), **russian).content.decode()  # type: ignore[arg-type]
    assert "Лента событий" in page
    assert ">завершено</span>" in page
