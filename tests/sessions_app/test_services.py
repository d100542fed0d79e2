"""The commands on sessions: what each changes, what it tells, and what it refuses without a trace."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from sessions_app import queries, services, writing
from sessions_app.errors import (
    AgentSwitchRefused,
    MessageInvalid,
    SessionExists,
    SessionFull,
    SessionInactive,
    SessionNotFound,
)
from sessions_app.models import (
    AgentSwitch,
    Approval,
    ApprovalState,
    Event,
    Message,
    Run,
    RunState,
    Session,
    ToolCall,
    ToolCallState,
)
from tests.sessions_app import told

pytestmark = pytest.mark.django_db


def types(session_id: str = "s") -> list[str]:
    """The session's log, which must be numbered without a gap."""
    rows = list(Event.objects.filter(session__session_id=session_id).order_by("seq").values_list("seq", "type"))
    assert [seq for seq, _ in rows] == list(range(1, len(rows) + 1))
    assert Session.objects.get(session_id=session_id).last_seq == len(rows)
    return [type_ for _, type_ in rows]


@pytest.fixture
def session() -> Session:
    return services.create_session("s", correlation_id="corr")


# --- create ------------------------------------------------------------------------------------------------------


def test_a_new_session_is_the_orchestrators_and_empty(session: Session) -> None:
    found = queries.session("s")
    assert (found.current_agent, found.message_count, found.is_active) == ("orchestrator", 0, True)
    assert types() == ["SessionCreated", "AgentAssigned"]
    assert set(Event.objects.values_list("correlation_id", flat=True)) == {"corr"}


def test_a_session_without_a_name_gets_one() -> None:
    first, second = services.create_session(), services.create_session()
    assert len({first.session_id, second.session_id}) == 2
    assert len(first.session_id) == 36


def test_a_name_is_taken_once_and_the_refusal_leaves_no_trace(session: Session) -> None:
    with pytest.raises(SessionExists, match="Session s already exists"):
        services.create_session("s")
    assert types() == ["SessionCreated", "AgentAssigned"]


# --- every command -----------------------------------------------------------------------------------------------

COMMANDS: dict[str, Callable[[str], Any]] = {
    "update": lambda name: services.update_session(name, title="x"),
    "delete": services.delete_session,
    "add": lambda name: services.add_message(name, "user", "x"),
    "switch": lambda name: services.switch_agent(name, "ask"),
    "deactivate": services.deactivate,
    "activate": services.activate,
    "expire": services.expire,
    "clear": services.clear_messages,
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_names_the_session_that_is_not_there(name: str) -> None:
    with pytest.raises(SessionNotFound, match="Session nobody not found"):
        COMMANDS[name]("nobody")
    assert not Event.objects.exists()


TELLS = {
    "update": ["SessionUpdated"],
    "add": ["MessageReceived"],
    "switch": ["AgentSwitchRequested", "AgentSwitched"],
    "deactivate": ["SessionDeactivated"],
    "activate": ["SessionActivated"],
    "expire": ["SessionExpired"],
    "clear": ["MessagesCleared"],
}


@pytest.mark.parametrize("name", TELLS)
def test_a_command_tells_what_it_did(session: Session, name: str) -> None:
    COMMANDS[name]("s")
    assert types()[2:] == TELLS[name]


# --- messages ----------------------------------------------------------------------------------------------------


def test_messages_are_numbered_counted_and_give_a_title(session: Session) -> None:
    services.add_message("s", Message.ASSISTANT, "Welcome")
    services.add_message("s", Message.USER, "  What\n is " + "x" * 100)
    services.add_message("s", Message.USER, "second")
    found = queries.session("s")
    assert list(found.messages.order_by("number").values_list("number", flat=True)) == [1, 2, 3]
    assert found.message_count == 3
    assert found.title.startswith("What is xxx")
    assert (len(found.title), found.title[-1]) == (services.TITLE_CHARACTERS, "…")


@pytest.mark.parametrize(
    ("role", "content"),
    [("system", "x"), ("", "x"), ("User", "x"), ("user", ""), ("user", " \n"), ("assistant", ""), ("tool", "x")],
)
def test_a_message_that_no_provider_takes_is_refused(session: Session, role: str, content: str) -> None:
    with pytest.raises(MessageInvalid):
        services.add_message("s", role, content)
    assert types() == ["SessionCreated", "AgentAssigned"]
    assert not Message.objects.exists()


def test_a_full_session_takes_no_more_of_a_person(session: Session, settings: Any) -> None:
    settings.MAX_MESSAGES_PER_SESSION = 1
    services.add_message("s", Message.USER, "one")
    with pytest.raises(SessionFull):
        services.add_message("s", Message.USER, "two")
    services.add_message("s", Message.ASSISTANT, "the limit is checked on people's messages only")
    assert queries.session("s").message_count == 2


def test_an_inactive_session_takes_neither_messages_nor_switches(session: Session) -> None:
    services.deactivate("s")
    before = types()
    for command in (COMMANDS["add"], COMMANDS["switch"]):
        with pytest.raises(SessionInactive):
            command("s")
    assert types() == before
    services.activate("s")
    services.add_message("s", Message.USER, "again")


# --- agents ------------------------------------------------------------------------------------------------------


def test_a_switch_is_recorded_with_its_reason(session: Session) -> None:
    switched = services.switch_agent("s", "ask", reason="why not", confidence="high", correlation_id="c2")
    assert (switched.current_agent, switched.switch_count) == ("ask", 1)
    row = AgentSwitch.objects.get()
    assert (row.from_agent, row.to_agent, row.reason, row.confidence) == ("orchestrator", "ask", "why not", "high")
    assert queries.session("s").last_switch_at == row.switched_at
    assert Event.objects.get(type="AgentSwitched").correlation_id == "c2"


def test_a_switch_to_the_current_agent_is_refused_without_a_trace(session: Session) -> None:
    with pytest.raises(AgentSwitchRefused, match="orchestrator"):
        services.switch_agent("s", "orchestrator")
    assert (types(), AgentSwitch.objects.count()) == (["SessionCreated", "AgentAssigned"], 0)


def test_fifty_switches_are_kept_and_all_are_counted(session: Session) -> None:
    for number in range(55):
        services.switch_agent("s", ("ask", "coder")[number % 2], reason=str(number))
    assert [row.reason for row in queries.switches(session)] == [str(number) for number in range(5, 55)]
    assert queries.session("s").switch_count == 55


# --- the ends ----------------------------------------------------------------------------------------------------

ENDING: dict[str, Callable[[str], Any]] = {
    "deactivate": services.deactivate,
    "expire": services.expire,
    "clear": services.clear_messages,
}


@pytest.mark.parametrize("name", ENDING)
def test_what_ends_a_session_ends_what_runs_and_waits_in_it(name: str) -> None:
    session = told.session("s")
    queued = Run.objects.create(session=session, state=RunState.QUEUED)
    ENDING[name]("s")
    assert set(Run.objects.values_list("state", flat=True)) == {RunState.CANCELLED}
    assert Event.objects.filter(type="TaskCancelled", run=queued).exists()
    assert not Approval.objects.filter(state=ApprovalState.PENDING).exists()
    assert not ToolCall.objects.filter(state__in=[ToolCallState.PENDING, ToolCallState.OUT]).exists()
    assert not Message.objects.filter(state="open").exists()
    found = queries.history("s")
    assert found["count"] == queries.session("s").message_count


def test_expiry_is_noted_and_undone_by_activation(session: Session) -> None:
    before = timezone.now() - timedelta(seconds=1)
    expired = services.expire("s")
    assert expired.is_active is False
    assert expired.expired_at is not None
    assert expired.expired_at > before
    found = services.activate("s")
    assert (found.is_active, found.expired_at) == (True, None)


def test_a_cleared_session_goes_on_with_new_numbers(session: Session) -> None:
    services.add_message("s", Message.USER, "one")
    services.clear_messages("s")
    assert queries.history("s")["count"] == queries.session("s").message_count == 0
    assert Event.objects.get(type="MessagesCleared").data == {"count": 1}
    assert services.add_message("s", Message.USER, "two").number == 2
    assert queries.session("s").message_count == 1


def test_a_deleted_session_is_gone_with_all_of_it() -> None:
    told.session("s")
    services.create_session("other")
    services.delete_session("s")
    assert [row.session_id for row in Session.objects.all()] == ["other"]
    for rows in (Message, Run, ToolCall, Approval, AgentSwitch):
        assert not rows.objects.exists()
    assert set(Event.objects.values_list("session__session_id", flat=True)) == {"other"}
    services.create_session("s")
    assert types() == ["SessionCreated", "AgentAssigned"]


def test_a_deleted_sessions_cursor_is_no_namesakes(session: Session) -> None:
    tag = session.cursor_tag
    services.delete_session("s")
    assert services.create_session("s").cursor_tag != tag


def test_an_update_sets_what_is_given(session: Session) -> None:
    services.update_session("s", title="T" * 300, description="D")
    services.update_session("s", title=None, description=None)
    found = queries.session("s")
    assert (found.title, found.description) == ("T" * 255, "D")


def test_a_refusal_inside_a_change_stores_nothing(session: Session) -> None:
    def refuse() -> None:
        with writing.locked("s") as change:
            change.message(Message.USER, "never")
            change.event("MessageReceived")
            raise SessionInactive()

    with pytest.raises(SessionInactive):
        refuse()
    assert (types(), Message.objects.count()) == (["SessionCreated", "AgentAssigned"], 0)
