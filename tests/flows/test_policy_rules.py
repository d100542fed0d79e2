"""Rules as data, in a turn: what is forbidden never leaves, versions are named, and many calls are decided at once."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from agents_app import planning
from sessions_app import policies
from sessions_app.models import Approval, Event, PolicyRule, PolicyVersion, ToolCall
from tests.agents_app.test_policy import rule
from tests.flows.test_approvals import READ, RUN, WRITE, ask, refused, state_of, up
from tests.flows.test_tools import at_once
from tests.listening import Listening
from tests.model_server import ModelServer, text, tool_calls
from tests.stream_truth import Listener, unchanged, usable


@pytest.fixture
def me(client: httpx.Client) -> Listener:
    return Listener(client)


def forbid(pattern: str, **fields: Any) -> PolicyRule:
    return PolicyRule.objects.create(order=0, pattern=pattern, action="forbid", **fields)


def test_a_forbidden_call_never_reaches_the_client_and_the_model_reads_why(me: Listener, model: ModelServer) -> None:
    forbid("execute_command", commands="rm", reason="Nothing is removed here")
    heard = ask(me, model, ("r", "execute_command", '{"command": "ls; sudo rm -rf /"}'))
    assert heard.calls == []
    assert heard.tokens == "Hello world"
    assert up(model)[-1]["content"] == f"{planning.FORBIDDEN}: Nothing is removed here"
    call = ToolCall.objects.get()
    assert (call.state, call.policy_version) == ("refused", policies.version().number)
    told = Event.objects.get(type="ToolCallRefused").data
    assert (told["forbidden"], told["reason"]) == (True, "Nothing is removed here")
    assert me.pending() == []
    refused(me.result("r", "did it"), "CALL_NOT_FOUND")
    usable(me, model)


def test_forbidden_calls_are_bounded_like_other_mistakes(me: Listener, model: ModelServer, settings: Any) -> None:
    settings.MAX_MISTAKES_PER_RUN = 2
    forbid("read_file")
    model.always(lambda body: tool_calls([("", *READ[1:])]))
    heard = me.say("Go", agent_type="coder")
    assert heard.error is not None
    assert heard.error["code"] == "TOOL_MISTAKE_LIMIT"
    assert heard.calls == []


def test_a_change_made_in_another_process_counts_from_the_next_call_on(me: Listener, model: ModelServer) -> None:
    assert len(ask(me, model, READ).calls) == 1
    newest = PolicyVersion.objects.order_by("-number").values_list("number", flat=True).first() or 0
    PolicyVersion.objects.create(number=newest + 1, rules=[rule("read_file", "forbid")])  # tells this one nothing
    assert ask(me, model, ("a2", *READ[1:])).calls == []
    assert ToolCall.objects.get(call_id="a2").policy_version == newest + 1


def test_calls_and_approvals_name_the_version_that_judged_them(me: Listener, model: ModelServer) -> None:
    PolicyRule.objects.create(order=0, pattern="read_*", reason="Secrets are read too", expires_seconds=60)
    ask(me, model, READ, WRITE)
    number = policies.version().number
    assert set(ToolCall.objects.values_list("policy_version", flat=True)) == {number}
    read, write = Approval.objects.order_by("pk")
    assert {read.policy_version, write.policy_version} == {number}
    assert read.expires_at is not None
    assert write.expires_at is not None
    assert (read.expires_at - read.created_at).total_seconds() == 60
    assert (write.expires_at - write.created_at).total_seconds() == 86400
    listed = me.client.get("/api/v1/approvals").json()["results"]
    assert {one["policy_version"] for one in listed} == {number}
    me.check()


def test_what_is_forbidden_by_now_can_only_be_rejected(me: Listener, model: ModelServer) -> None:
    ask(me, model, WRITE)
    forbid("write_file", paths="secrets/**", reason="Secrets")
    edit = {"path": "x/../secrets/key", "content": ""}
    with unchanged(me.client):
        refused(me.decide("w", "edit", modified_arguments=edit), "FORBIDDEN_BY_POLICY")
    forbid("write_file", reason="Frozen")
    with unchanged(me.client):
        assert "Frozen" in refused(me.decide("w", "approve"), "FORBIDDEN_BY_POLICY")
    assert me.decide("w", "reject").tokens == "Hello world"
    usable(me, model)


# --- many at once ------------------------------------------------------------------------------------------------


def bulk(client: httpx.Client, decision: str, *calls: tuple[str, str], **fields: Any) -> httpx.Response:
    named = [{"session_id": session_id, "call_id": call_id} for session_id, call_id in calls]
    return client.post("/api/v1/approvals/bulk", json={"decision": decision, "call_ids": named, **fields})


def test_many_are_approved_at_once_and_streams_hear_of_each(me: Listener, model: ModelServer) -> None:
    ask(me, model, WRITE, RUN)
    other = Listener(me.client, "s2")
    ask(other, model, ("w2", *WRITE[1:]))
    with Listening(me.client, "GET", "/sessions/s2/stream") as follower:
        follower.until(lambda heard: follower.status == 200)
        answer = bulk(me.client, "approve", ("s1", "w"), ("s1", "nobody"), ("s2", "w2"), ("no such", "w"), ("s1", "w"))
        assert answer.status_code == 200, answer.text
        released = follower.until(lambda heard: bool(heard.calls)).calls
    assert [(one["call_id"], one["requires_approval"]) for one in released] == [("w2", False)]
    told = answer.json()
    assert (told["decided"], told["refused"]) == (2, 3)
    assert [one.get("code", one.get("state")) for one in told["results"]] == [
        "approved", "CALL_NOT_FOUND", "approved", "SESSION_NOT_FOUND", "APPROVAL_ALREADY_DECIDED",
    ]  # fmt: skip
    who = Approval.objects.get(call__call_id="w").decided_by
    assert who
    assert told["results"][-1]["metadata"]["decided_by"] == who
    assert [state_of(call_id) for call_id in ("w", "r", "w2")] == ["approved", "pending", "approved"]
    assert [frame["requires_approval"] for frame in me.told_again() if frame["type"] == "tool_call"] == [
        True,
        True,
        False,
    ]


def test_many_are_rejected_at_once_and_their_turns_go_on(me: Listener, model: ModelServer) -> None:
    sessions = [f"s{number}" for number in range(3)]
    for name in sessions:
        ask(Listener(me.client, name), model, WRITE)
    model.always(lambda body: text("Then not"))
    answer = bulk(me.client, "reject", *((name, "w") for name in sessions), feedback="Not today")
    assert answer.json()["decided"] == 3
    for name in sessions:
        with Listening(me.client, "GET", f"/sessions/{name}/stream", params={"after": "0.0"}) as follower:
            follower.until(lambda heard: "Then not" in heard.contents)
        contents = [m["content"] for m in Listener(me.client, name).messages()]
        assert contents[-2:] == ["The user rejected this call: Not today", "Then not"]


def test_bulk_decisions_are_bound_to_the_hash_too(me: Listener, model: ModelServer) -> None:
    ask(me, model, WRITE)
    calls = [{"session_id": "s1", "call_id": "w", "arguments_hash": "0" * 64}]
    answer = me.client.post("/api/v1/approvals/bulk", json={"decision": "approve", "call_ids": calls})
    assert answer.json()["results"][0]["code"] == "ARGUMENTS_CHANGED"
    assert state_of("w") == "pending"
    calls[0]["arguments_hash"] = me.waiting()["arguments_hash"]
    assert (
        me.client.post("/api/v1/approvals/bulk", json={"decision": "approve", "call_ids": calls}).json()["decided"] == 1
    )


@pytest.mark.parametrize(
    "body",
    [
        None, [], {}, {"decision": "approve"}, {"decision": "approve", "call_ids": []},
        {"decision": "edit", "call_ids": [{"session_id": "s1", "call_id": "w"}]},
        {"decision": "approve", "call_ids": ["w"]}, {"decision": "approve", "call_ids": {"session_id": "s1"}},
        {"decision": "approve", "call_ids": [{"session_id": "s1"}]},
        {"decision": "approve", "call_ids": [{"session_id": 5, "call_id": "w"}]},
        {"decision": "approve", "call_ids": [{"session_id": "s1", "call_id": "w"}] * 101},
        {"decision": "reject", "feedback": 5, "call_ids": [{"session_id": "s1", "call_id": "w"}]},
    ],
    ids=repr,
)  # fmt: skip
def test_a_malformed_bulk_decision_decides_nothing(me: Listener, model: ModelServer, body: Any) -> None:
    ask(me, model, WRITE)
    answer = me.client.post("/api/v1/approvals/bulk", json=body)
    assert (answer.status_code, "detail" in answer.json()) == (422, True)
    assert state_of("w") == "pending"


def test_a_bulk_and_single_decisions_at_the_same_moment_have_one_winner_each(me: Listener, model: ModelServer) -> None:
    calls = [(f"c{number}", *WRITE[1:]) for number in range(4)]
    ask(me, model, *calls)
    named = [("s1", call_id) for call_id, *_ in calls]
    first, second, third = at_once(
        [
            lambda: bulk(me.client, "approve", *named).json(),
            lambda: bulk(me.client, "reject", *named[::-1]).json(),
            lambda: me.client.post(
                "/api/v1/agent/message/stream",
                json={"session_id": "s1", "message": {"type": "hitl_decision", "call_id": "c1", "decision": "reject"}},
            ),
        ]
    )
    won = first["decided"] + second["decided"] + (third.status_code == 200)
    assert won == 4
    lost = [one for told in (first, second) for one in told["results"] if not one["ok"]]
    assert {one["code"] for one in lost} == {"APPROVAL_ALREADY_DECIDED"}
    assert all(one["metadata"]["decided_by"] for one in lost)
    assert Event.objects.filter(type="ToolApprovalDecided").count() == 4


def test_an_operator_decides_about_what_the_page_has_shown(me: Listener, model: ModelServer) -> None:
    ask(me, model, WRITE)
    shown = me.waiting()
    operator = Client(headers={"accept": "application/json"})
    operator.force_login(User.objects.create_superuser("ann"))
    assert shown["arguments_hash"] in operator.get(reverse("admin:sessions_app_approval_inbox")).content.decode()
    act = reverse("admin:sessions_app_session_do", args=[Approval.objects.get().session_id, "decide"])
    said = {"call_id": "w", "decision": "approve"}
    answer = operator.post(act, {**said, "arguments_hash": "0" * 64})
    assert (answer.status_code, state_of("w")) == (409, "pending")
    assert operator.post(act, {**said, "arguments_hash": shown["arguments_hash"]}).status_code == 200
    assert (state_of("w"), Approval.objects.get().decided_by) == ("approved", "operator:ann")
