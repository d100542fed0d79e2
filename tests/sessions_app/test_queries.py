"""What the read functions return, and that their cost does not grow with what is stored."""

from __future__ import annotations

from typing import Any

import pytest

from sessions_app import queries, services
from sessions_app.errors import RunNotFound, SessionNotFound
from sessions_app.models import Message, Session
from sessions_app.serializers import sessions as shapes
from sessions_app.session_ids import is_session_id
from tests.sessions_app import told

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("text", "accepted"),
    [
        ("a", True),
        ("a" * 255, True),
        ("a" * 256, False),
        ("", False),
        (" ", True),
        ("a/b?c#d%", True),
        ("сессия 🙂", True),
        ("..", True),
        ("a\u2028b", True),
        ("a\x00b", False),
        ("a\nb", False),
        ("a\x7fb", False),
        ("a\x85b", False),
        ("a\ud800b", False),
    ],
)
def test_session_ids_are_any_text_without_control_characters(text: str, accepted: bool) -> None:
    assert is_session_id(text) is accepted


@pytest.mark.parametrize("name", ["nobody", "", "a\x00b", "x" * 300])
def test_unknown_and_impossible_sessions_are_not_found(name: str) -> None:
    with pytest.raises(SessionNotFound) as caught:
        queries.session(name)
    assert str(caught.value) == f"Session {name} not found"


def test_unknown_runs_are_not_found() -> None:
    with pytest.raises(RunNotFound):
        queries.run(2**63 - 1)


def test_newest_activity_comes_first_and_creation_is_one() -> None:
    for name in ("first", "second", "third"):
        services.create_session(name)
    services.add_message("first", Message.USER, "hello")
    services.deactivate("second")
    assert [row.session_id for row in queries.sessions()] == ["first", "third"]
    assert [row.session_id for row in queries.sessions(active_only=False)] == ["first", "third", "second"]


def test_messages_still_open_and_empty_are_neither_listed_nor_counted() -> None:
    session = told.session()
    assert session.messages.count() == 5
    found = queries.history("told")
    assert [row["role"] for row in found["messages"]] == ["user", "assistant", "tool", "assistant"]
    assert found["count"] == queries.details("told", include_messages=False)["count"] == session.message_count == 4


def test_history_leaves_out_what_is_empty_and_marks_what_was_cut() -> None:
    told.session()
    wire = shapes.History(queries.history("told")).data
    assert list(wire["messages"]) == [
        {"role": "user", "content": "Write a.txt"},
        {"role": "assistant", "content": "", "tool_calls": told.CALLS},
        {"role": "tool", "content": "done", "name": "read_file", "tool_call_id": "call_0"},
        {"role": "assistant", "content": "It is writ", "interrupted": True},
    ]
    (switch,) = wire["agent_history"]
    assert (switch["from"], switch["to"], switch["reason"]) == ("orchestrator", "coder", "code")
    assert switch["timestamp"].endswith("Z")


def _grow(session: Session, times: int) -> None:
    for number in range(times):
        services.add_message(session.session_id, Message.USER, f"message {number}")
        services.switch_agent(session.session_id, ("ask", "coder")[number % 2], reason="back and forth")


READS: dict[str, tuple[Any, int]] = {
    "history": (lambda: shapes.History(queries.history("told")).data, 3),
    "details": (lambda: shapes.SessionDetails(queries.details("told", include_messages=False)).data, 2),
    "details with messages": (lambda: shapes.SessionDetails(queries.details("told", include_messages=True)).data, 2),
    "context": (lambda: shapes.AgentContext(queries.agent_context("told", include_history=True)).data, 2),
    "approvals": (lambda: shapes.PendingApprovals(queries.pending_approvals("told")).data, 2),
    "sessions": (lambda: shapes.SessionItem(queries.sessions(), many=True).data, 1),
    "measured": (queries.measured_sessions, 1),
}


@pytest.mark.parametrize("name", READS)
def test_reading_costs_the_same_however_much_is_stored(name: str, django_assert_num_queries: Any) -> None:
    read, statements = READS[name]
    session = told.session()
    with django_assert_num_queries(statements):
        read()
    _grow(session, 10)
    told.session("another")
    with django_assert_num_queries(statements):
        read()


def test_the_newest_fifty_switches_are_kept_and_all_are_counted() -> None:
    session = services.create_session("busy")
    _grow(session, 60)
    found = shapes.AgentContext(queries.agent_context("busy", include_history=True)).data["context"]
    assert (found["switch_count"], len(found["switch_history"])) == (60, 50)
    assert found["switch_history"][-1]["to_agent"] == found["current_agent"]


def test_sessions_that_only_routed_are_not_measured() -> None:
    told.session()
    services.create_session("silent")
    assert queries.measured_sessions() == ["told"]
