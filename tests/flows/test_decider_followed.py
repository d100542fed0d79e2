"""Who decided by which request: whatever way a decision comes, event and audit bear the id of the request that brought
it, and the way back to the run that asked is the event's cause."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from django.contrib.auth.models import User

from sessions_app import audit, keys
from sessions_app.models import AuditEntry, Event, Run
from tests import talk
from tests.conftest import RunningServer
from tests.flows.test_admin_security import PASSWORD, log_in
from tests.listening import Socket
from tests.model_server import ModelServer, text, tool_calls

WRITE = '{"path": "a.txt", "content": "x"}'
ASKING, DECIDING = {"X-Request-ID": "asking-1"}, {"X-Request-ID": "deciding-2"}


@pytest.fixture(autouse=True)
def _waiting(client: httpx.Client, model: ModelServer) -> None:
    """The coder wants to write a file."""
    model.reply(tool_calls([("w", "write_file", WRITE)]), text("Done"))
    message = {"type": "user_message", "content": "Go", "agent_type": "coder"}
    assert len(talk.parse(talk.post(client, "s", message, **ASKING).content).calls) == 1


@pytest.fixture
def browser(server: RunningServer) -> Iterator[httpx.Client]:
    User.objects.create_superuser("anna", password=PASSWORD)
    with httpx.Client(base_url=server.url, timeout=30) as one:
        log_in(one)
        yield one


def event(type_: str) -> Event:
    return Event.objects.get(type=type_)


def decided_by(correlation_id: str, client: httpx.Client) -> None:
    """The decision bears this id, wherever it is told; what the run does by itself bears the run's."""
    decision, asked = event("ToolApprovalDecided"), event("ToolApprovalRequired")
    assert decision.correlation_id == correlation_id
    assert decision.causation_id == str(asked.event_id)
    assert (asked.correlation_id, asked.run_id, decision.run_id) == ("asking-1", *[Run.objects.get().pk] * 2)
    entry = AuditEntry.objects.get(action=audit.APPROVAL_DECIDE)
    assert entry.correlation_id == correlation_id
    told = client.get("/events/audit-log", params={"event_type": "hitl_decision_made"}).json()["audit_log"]
    assert [one["correlation_id"] for one in told] == [correlation_id]
    theirs = Event.objects.filter(type__in=["TaskResumed", "LLMRequestStarted", "MessageCompleted", "TaskCompleted"])
    assert set(theirs.values_list("correlation_id", flat=True)) == {"asking-1"}


def test_by_rest(client: httpx.Client) -> None:
    message = {"type": "hitl_decision", "call_id": "w", "decision": "approve"}
    assert talk.post(client, "s", message, **DECIDING).headers["x-request-id"] == "deciding-2"
    released = event("ToolCallReleased")
    assert (released.correlation_id, released.causation_id) == (
        "deciding-2", str(event("ToolApprovalDecided").event_id)
    )  # fmt: skip
    talk.result(client, "s", "w", "written")
    decided_by("deciding-2", client)


def test_by_a_rejection_that_takes_the_turn_on(client: httpx.Client, model: ModelServer) -> None:
    message = {"type": "hitl_decision", "call_id": "w", "decision": "reject", "feedback": "no"}
    assert talk.parse(talk.post(client, "s", message, **DECIDING).content).contents == ["Done"]
    decided_by("deciding-2", client)
    assert model.requests[-1].headers["x-correlation-id"] == "asking-1"


def test_by_its_result(client: httpx.Client) -> None:
    message = {"type": "tool_result", "call_id": "w", "result": "written"}
    assert talk.parse(talk.post(client, "s", message, **DECIDING).content).contents == ["Done"]
    decided_by("deciding-2", client)
    assert event("ToolCallCompleted").correlation_id == "asking-1"


def test_in_bulk(client: httpx.Client) -> None:
    wanted = {"decision": "approve", "call_ids": [{"session_id": "s", "call_id": "w"}]}
    assert client.post("/api/v1/approvals/bulk", json=wanted, headers=DECIDING).json()["decided"] == 1
    decided_by("deciding-2", client)


def test_over_a_socket(server: RunningServer, client: httpx.Client) -> None:
    with Socket(server.websocket_url, "s") as socket:
        socket.send({"type": "hitl_decision", "call_id": "w", "decision": "approve"})
        assert len(socket.turn().calls) == 1
    decision = event("ToolApprovalDecided")
    assert decision.correlation_id not in ("", "asking-1")
    decided_by(decision.correlation_id, client)


def test_in_the_admin(browser: httpx.Client, client: httpx.Client) -> None:
    token = browser.cookies["csrftoken"]
    page = f"/admin/sessions_app/session/{Run.objects.get().session_id}/do/decide/"
    form = {"csrfmiddlewaretoken": token, "call_id": "w", "decision": "approve"}
    assert browser.post(page, data=form, headers=DECIDING).status_code in (200, 302)
    decided_by("deciding-2", client)
    assert AuditEntry.objects.get(action=audit.APPROVAL_DECIDE).who == "operator:anna"


def test_what_else_a_request_writes_down_bears_its_id(client: httpx.Client, server: RunningServer) -> None:
    client.patch("/sessions/s", json={"title": "Another"}, headers={"X-Request-ID": "renaming-3"})
    client.post("/sessions/s/cancel", headers={"X-Request-ID": "cancelling-4"})
    assert event("SessionUpdated").correlation_id == "renaming-3"
    found = dict(AuditEntry.objects.values_list("action", "correlation_id"))
    assert (found[audit.SESSION_UPDATE], found[audit.RUN_CANCEL]) == ("renaming-3", "cancelling-4")
    assert event("TaskCancelled").correlation_id == "asking-1"


def test_what_nobody_asks_for_bears_none(client: httpx.Client) -> None:
    keys.create("by-hand", by="shell:me")
    assert AuditEntry.objects.get(action=audit.KEY_CREATE).correlation_id == ""
