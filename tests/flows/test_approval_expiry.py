"""Approvals that nobody decides about: they end in time, the model reads so later, and who comes too late is told."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx
import pytest
from django.utils import timezone

from sessions_app import approvals, strict_json
from sessions_app.models import Approval, Run, ToolCall
from tests.faults.servers import until
from tests.flows.test_approvals import READ, WRITE, ask, refused, state_of, up
from tests.model_server import ModelServer
from tests.stream_truth import Listener, counts_agree, unchanged


@pytest.fixture
def me(client: httpx.Client) -> Listener:
    return Listener(client)


def let_expire(call_id: str = "w") -> None:
    """Its time is over; returns once some process has noticed."""
    Approval.objects.filter(call__call_id=call_id).update(expires_at=timezone.now() - timedelta(seconds=1))
    until(lambda: state_of(call_id) == "expired", 30, "the approval expires")


def test_what_nobody_decides_expires_and_the_session_is_free(me: Listener, model: ModelServer) -> None:
    ask(me, model, WRITE)
    asked = len(model.requests)
    before = me.client.get("/sessions/s1").json()["session"]["last_activity"]
    let_expire()
    assert len(model.requests) == asked, "nobody is called"
    run = Run.objects.get()
    assert (run.state, run.error_code) == ("cancelled", "APPROVAL_EXPIRED")
    assert me.pending() == []
    assert me.client.get("/sessions/s1").json()["session"]["last_activity"] == before
    assert me.told_again()[-1]["code"] == "APPROVAL_EXPIRED"
    assert [m["content"] for m in me.messages() if m["role"] == "tool"] == [approvals.EXPIRED]
    counts_agree(me.client, "s1")
    assert me.say("And now?").tokens == "Hello world"
    assert [m["content"] for m in up(model) if m["role"] == "tool"] == [approvals.EXPIRED]


def test_readers_of_all_events_hear_that_it_expired(me: Listener, model: ModelServer) -> None:
    ask(me, model, WRITE)
    let_expire()
    query = {"after": "0.0", "follow": "false", "events": "all"}
    body = me.client.get("/sessions/s1/stream", params=query).text
    told = [strict_json.loads(line[6:]) for line in body.splitlines() if line.startswith("data: ")]
    types = [one.get("event_type") for one in told]
    assert types.index("ToolApprovalExpired") < types.index("ToolCallClosed")


@pytest.mark.parametrize("decision", ["approve", "reject", "edit"])
def test_a_late_decision_hears_that_it_expired(me: Listener, model: ModelServer, decision: str) -> None:
    ask(me, model, WRITE)
    Approval.objects.update(expires_at=timezone.now())  # the decision comes before anybody else has noticed, or after
    arguments = {"path": "b.py", "content": ""}
    heard = me.decide("w", decision, modified_arguments=arguments)
    assert refused(heard, "APPROVAL_EXPIRED")
    assert heard.frames[0]["metadata"]["outcome"] == "expired"
    assert state_of("w") == "expired"
    with unchanged(me.client):
        refused(me.decide("w", decision, modified_arguments=arguments), "APPROVAL_EXPIRED")
    assert me.say("Go on").error is None


def test_a_late_result_hears_that_it_expired_and_is_noted_for_operators(me: Listener, model: ModelServer) -> None:
    ask(me, model, WRITE)
    let_expire()
    with unchanged(me.client):
        refused(me.result("w", "did it anyway"), "APPROVAL_EXPIRED")
        refused(me.fail("w", "no"), "APPROVAL_EXPIRED")
    assert [late["text"] for late in ToolCall.objects.get().late_results] == ["did it anyway", "Error: no"]


def test_the_turn_waits_on_for_the_other_calls(me: Listener, model: ModelServer) -> None:
    ask(me, model, WRITE, READ)
    let_expire()
    assert Run.objects.get().state == "waiting"
    assert me.result("a", "content").tokens == "Hello world"
    assert [m["content"] for m in up(model) if m["role"] == "tool"] == [approvals.EXPIRED, "content"]


def test_a_turn_that_ended_so_can_be_retried(me: Listener, model: ModelServer) -> None:
    ask(me, model, WRITE)
    let_expire()
    assert "Hello world" in me.client.post("/sessions/s1/retry").text.replace('"token":"Hello "', "Hello world")
    assert up(model)[-1]["content"] == approvals.EXPIRED


def test_the_time_is_a_setting_and_nought_is_for_ever(me: Listener, model: ModelServer, settings: Any) -> None:
    settings.APPROVAL_EXPIRY_SECONDS = 0
    ask(me, model, WRITE)
    assert me.waiting()["expires_at"] is None
    me.say("Never mind")
    settings.APPROVAL_EXPIRY_SECONDS = 0.05
    ask(me, model, ("w2", *WRITE[1:]))
    until(lambda: state_of("w2") == "expired", 30, "the approval expires")


# --- bound to what was shown -------------------------------------------------------------------------------------


def test_a_decision_about_other_arguments_is_refused_and_still_waits(me: Listener, model: ModelServer) -> None:
    heard = ask(me, model, WRITE)
    shown = me.waiting()
    assert shown["arguments_hash"] == approvals.hash_of(heard.calls[0]["arguments"])
    with unchanged(me.client):
        for decision in ("approve", "reject", "edit"):
            answer = me.decide("w", decision, arguments_hash="0" * 64, modified_arguments={"path": "b", "content": ""})
            refused(answer, "ARGUMENTS_CHANGED")
    (call,) = me.decide("w", "approve", arguments_hash=shown["arguments_hash"].upper()).calls
    assert approvals.hash_of(call["arguments"]) == shown["arguments_hash"]
    log = me.client.get("/api/v1/sessions/s1/events", params={"limit": 1000}).json()["results"]
    hashes = {e["type"]: e["data"].get("arguments_hash") for e in log if e["type"].startswith("ToolApproval")}
    assert set(hashes.values()) == {shown["arguments_hash"]}


def test_what_is_not_what_was_shown_is_never_released(me: Listener, model: ModelServer) -> None:
    ask(me, model, WRITE)
    ToolCall.objects.update(arguments={"path": "/etc/passwd", "content": "evil"})
    with unchanged(me.client):
        refused(me.decide("w", "approve"), "ARGUMENTS_CHANGED")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"a": 1, "b": [1.5, "x"]}, {"b": [1.5, "x"], "a": 1}, True),
        ({"a": 1e22}, {"a": 10**22}, True),
        ({"a": -0.0}, {"a": 0}, True),
        ({"a": True}, {"a": 1}, False),
        ({"a": "1"}, {"a": 1}, False),
        ({"a": [1, 2]}, {"a": [2, 1]}, False),
        ({"a": "e\u0301"}, {"a": "\u00e9"}, False),
        ({"a": None}, {}, False),
    ],
)
def test_the_hash_is_of_the_value_and_not_of_its_spelling(
    one: dict[str, Any], other: dict[str, Any], same: bool
) -> None:
    assert (approvals.hash_of(one) == approvals.hash_of(other)) is same


def test_who_comes_too_late_is_told_who_won(me: Listener, model: ModelServer) -> None:
    ask(me, model, WRITE)
    me.decide("w", "approve")
    told = me.decide("w", "reject").frames[0]
    assert (told["code"], told["metadata"]["outcome"]) == ("APPROVAL_ALREADY_DECIDED", "approved")
    assert told["metadata"]["decided_by"] == Approval.objects.get().decided_by != ""
    assert told["metadata"]["decided_at"]
    assert f"{told['metadata']['decided_by']} was first" in told["content"]
    message = {"type": "hitl_decision", "call_id": "w", "decision": "reject"}
    answer = me.client.post("/api/v1/agent/message/stream", json={"session_id": "s1", "message": message})
    assert (answer.status_code, answer.json()["metadata"]) == (409, told["metadata"])
