"""Approvals: what waits for a person, the two ways to settle it, and what becomes of a decision."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from sessions_app import approvals
from sessions_app.models import Approval, PolicyRule
from tests import talk
from tests.flows.test_tools import at_once
from tests.model_server import ModelServer, strict, tool_calls
from tests.stream_truth import Listener, unchanged, usable
from tests.talk import Heard

WRITE = ("w", "write_file", '{"path": "a.py", "content": "old"}')
RUN = ("r", "execute_command", '{"command": "ls"}')
READ = ("a", "read_file", '{"path": "a.py"}')


@pytest.fixture
def me(client: httpx.Client) -> Listener:
    return Listener(client)


@pytest.fixture
def wanted(me: Listener, model: ModelServer) -> Heard:
    """The coder wants to write a file."""
    return ask(me, model, WRITE)


def ask(me: Listener, model: ModelServer, *calls: tuple[str, str, str], agent: str = "coder") -> Heard:
    model.reply(tool_calls(calls))
    return me.say("Please", agent_type=agent)


def up(model: ModelServer) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = model.requests[-1].body["messages"]
    assert strict(messages) == []
    return messages


def state_of(call_id: str) -> str:
    return Approval.objects.get(call__call_id=call_id).state


# --- what needs one ----------------------------------------------------------------------------------------------


def test_by_default_what_changes_something_needs_approval_and_reading_does_not(
    me: Listener, model: ModelServer, settings: Any
) -> None:
    settings.CLIENT_TOOLS = ["apply_diff", "delete_file", "move_file"]
    diff = "--- a/a.py\\n+++ b/a.py\\n@@ -1 +1 @@\\n-x\\n+y\\n"
    calls = {
        "write_file": ('{"path": "a", "content": ""}', True),
        "delete_file": ('{"path": "a"}', True),
        "move_file": ('{"source": "a", "destination": "b"}', True),
        "create_directory": ('{"path": "a"}', True),
        "execute_command": ('{"command": "ls"}', True),
        "apply_diff": (f'{{"path": "a.py", "diff": "{diff}"}}', True),
        "read_file": ('{"path": "a"}', False),
        "list_files": ("{}", False),
        "search_in_code": ('{"query": "x"}', False),
    }
    heard = ask(me, model, *((name, name, arguments) for name, (arguments, _) in calls.items()))
    assert {c["tool_name"]: c["requires_approval"] for c in heard.calls} == {n: a for n, (_, a) in calls.items()}
    assert [one["tool_name"] for one in me.pending()] == [name for name, (_, needed) in calls.items() if needed]
    me.check()


def test_a_pending_approval_is_listed_in_full(me: Listener, wanted: Heard) -> None:
    (call,) = wanted.calls
    assert call["requires_approval"] is True
    (one,) = me.pending()
    listed = me.waiting()
    assert one.pop("created_at") == listed["created_at"] < listed["expires_at"]
    assert listed["arguments_hash"] == approvals.hash_of(call["arguments"])
    assert one == {
        "request_id": "w",
        "request_type": "tool",
        "subject": "write_file",
        "details": {"arguments": call["arguments"]},
        "reason": "Writes a file",
        "call_id": "w",
        "tool_name": "write_file",
        "arguments": call["arguments"],
    }
    me.check()


def test_rules_in_the_database_decide_from_the_next_call_on(me: Listener, model: ModelServer) -> None:
    reads = [("", "read_file", '{"path": "a"}'), ("", "write_file", '{"path": "a", "content": ""}')]

    def needed() -> list[bool]:
        model.reply(tool_calls(reads))
        return [call["requires_approval"] for call in me.say("Again", agent_type="coder").calls]

    assert needed() == [False, True]
    rule = PolicyRule.objects.create(order=1, pattern="read_*", action="ask", reason="Secrets are read too")
    assert needed() == [True, True]
    assert me.pending()[0]["reason"] == "Secrets are read too"
    PolicyRule.objects.create(order=0, pattern="*", action="allow", reason="")
    assert needed() == [False, False]
    PolicyRule.objects.filter(order=0).first().delete()  # type: ignore[union-attr]
    rule.enabled = False
    rule.save()
    assert needed() == [False, True]
    me.say("Enough")
    me.check()


def test_without_any_rule_the_tools_own_default_holds(me: Listener, model: ModelServer) -> None:
    PolicyRule.objects.all().delete()
    PolicyRule.objects.create(order=1, pattern="nothing", action="ask", reason="")
    heard = ask(me, model, WRITE, READ, RUN)
    assert [call["requires_approval"] for call in heard.calls] == [True, False, True]


# --- a result settles it -----------------------------------------------------------------------------------------


def test_a_result_approves(me: Listener, model: ModelServer, wanted: Heard) -> None:
    assert me.result("w", "written").tokens == "Hello world"
    assert state_of("w") == "approved"
    assert me.pending() == []
    assert up(model)[-1]["content"] == "written"
    log = me.client.get("/events/audit-log", params={"event_type": "hitl_decision_made"}).json()["audit_log"]
    assert [(entry["call_id"], entry["decision"]) for entry in log] == [("w", "approve")]
    me.check()


def test_an_error_rejects(me: Listener, model: ModelServer, wanted: Heard) -> None:
    assert me.fail("w", "User rejected").tokens == "Hello world"
    assert state_of("w") == "rejected"
    assert me.pending() == []
    assert up(model)[-1]["content"] == "Error: User rejected"
    me.check()


def test_after_a_result_no_decision_is_taken(me: Listener, model: ModelServer, wanted: Heard) -> None:
    me.result("w")
    asked = len(model.requests)
    with unchanged(me.client):
        for decision in ("approve", "reject", "edit"):
            refused(me.decide("w", decision, modified_arguments={"path": "evil.py", "content": ""}))
    assert len(model.requests) == asked
    usable(me, model)


def refused(heard: Heard, code: str = "APPROVAL_ALREADY_DECIDED") -> str:
    assert heard.types == ["error"]
    assert heard.frames[0]["code"] == code
    return str(heard.frames[0]["content"])


# --- a decision settles it ---------------------------------------------------------------------------------------


def test_approve_sends_the_call_again_to_be_executed(me: Listener, model: ModelServer, wanted: Heard) -> None:
    asked = len(model.requests)
    heard = me.decide("w", "approve")
    assert heard.frames == [{**wanted.calls[0], "requires_approval": False}]
    assert len(model.requests) == asked
    assert state_of("w") == "approved"
    assert me.pending() == []
    assert [m["role"] for m in me.messages()] == ["user", "assistant"], "nothing is told as executed before its result"
    assert me.result("w", "written").tokens == "Hello world"
    assert up(model)[-1]["content"] == "written"
    me.check()


def test_edit_sends_the_new_arguments_and_keeps_them_in_the_history(
    me: Listener, model: ModelServer, wanted: Heard
) -> None:
    (call,) = me.decide("w", "edit", modified_arguments={"path": "b.py", "content": "new", "backup": None}).calls
    final = {"path": "b.py", "content": "new", "encoding": "utf-8", "create_dirs": False, "backup": True}
    assert (call["call_id"], call["arguments"], call["requires_approval"]) == ("w", final, False)
    assert state_of("w") == "edited"
    (kept,) = me.messages()[-1]["tool_calls"]
    assert json.loads(kept["function"]["arguments"]) == final
    me.result("w", "written")
    (read,) = up(model)[-2]["tool_calls"]
    assert json.loads(read["function"]["arguments"]) == final
    assert "old" not in json.dumps(up(model)[1:])
    me.check()


def test_edit_changes_its_own_call_only(me: Listener, model: ModelServer) -> None:
    ask(me, model, WRITE, ("w2", "write_file", '{"path": "a.py", "content": "old"}'))
    me.decide("w2", "edit", modified_arguments={"path": "b.py", "content": "new"})
    first, second = (json.loads(c["function"]["arguments"]) for c in me.messages()[-1]["tool_calls"])
    assert (first["path"], second["path"]) == ("a.py", "b.py")
    assert [one["call_id"] for one in me.pending()] == ["w"]
    me.check()


@pytest.mark.parametrize(
    ("fields", "read"),
    [
        ({"feedback": "Not this file"}, "The user rejected this call: Not this file"),
        ({"feedback": "Не тот файл"}, "The user rejected this call: Не тот файл"),
        ({}, "The user rejected this call."),
        ({"feedback": None, "modified_arguments": None, "content": None}, "The user rejected this call."),
    ],
)
def test_reject_goes_on_and_the_model_reads_why(
    me: Listener, model: ModelServer, wanted: Heard, fields: dict[str, Any], read: str
) -> None:
    heard = me.decide("w", "reject", **fields)
    assert heard.tokens == "Hello world"
    assert up(model)[-1] == {"role": "tool", "tool_call_id": "w", "content": read}
    assert state_of("w") == "rejected"
    assert me.pending() == []
    with unchanged(me.client):
        refused(me.result("w", "did it anyway"), "CALL_ALREADY_ANSWERED")
    me.check()


def test_reject_beside_open_calls_says_nothing_until_the_last_is_answered(me: Listener, model: ModelServer) -> None:
    ask(me, model, WRITE, READ, RUN)
    asked = len(model.requests)
    assert me.decide("w", "reject", feedback="no").frames == []
    assert me.decide("r", "approve").types == ["tool_call"]
    assert me.result("a", "content").frames == []
    assert len(model.requests) == asked
    assert me.result("r", "listed").tokens == "Hello world"
    contents = [m["content"] for m in up(model) if m["role"] == "tool"]
    assert contents == ["The user rejected this call: no", "content", "listed"]
    me.check()


def test_reject_may_be_the_last_that_was_missing(me: Listener, model: ModelServer) -> None:
    ask(me, model, WRITE, READ)
    me.result("a", "content")
    assert me.decide("w", "reject").tokens == "Hello world"
    me.check()


@pytest.mark.parametrize(
    ("agent", "arguments"),
    [
        ("coder", {}),
        ("coder", {"path": "a.py"}),
        ("coder", {"path": 5, "content": ""}),
        ("coder", {"path": "a.py", "content": "", "mode": "x"}),
        ("coder", {"path": "", "content": ""}),
        ("coder", {"path": "a\x00.py", "content": ""}),
        ("coder", {"path": "a.py", "content": {"$": 1}}),
        ("architect", {"path": "a.py", "content": ""}),
        ("architect", {"path": "docs/../a.py.md", "content": ""}),
        ("architect", {"path": "/etc/a.md", "content": ""}),
        ("architect", {"path": "~/a.md", "content": ""}),
    ],
    ids=repr,
)
def test_an_edit_passes_the_same_checks_or_changes_nothing(
    me: Listener, model: ModelServer, agent: str, arguments: dict[str, Any]
) -> None:
    ask(me, model, ("w", "write_file", '{"path": "docs/a.md", "content": "x"}'), agent=agent)
    asked = len(model.requests)
    with unchanged(me.client):
        assert refused(me.decide("w", "edit", modified_arguments=arguments), "ARGUMENTS_REFUSED")
    assert state_of("w") == "pending"
    assert len(model.requests) == asked
    assert me.decide("w", "approve").types == ["tool_call"]
    me.result("w")
    usable(me, model)


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ({"decision": "approve"}, 400),
        ({"call_id": "w"}, 400),
        ({"call_id": "w", "decision": "APPROVE"}, 400),
        ({"call_id": "w", "decision": "approved"}, 400),
        ({"call_id": "w", "decision": ""}, 400),
        ({"call_id": "w", "decision": "edit"}, 400),
        ({"call_id": "w", "decision": "edit", "modified_arguments": None}, 400),
        ({"call_id": "w", "decision": "edit", "modified_arguments": "{}"}, 422),
        ({"call_id": "w", "decision": "edit", "modified_arguments": [["path", "x"]]}, 422),
        ({"call_id": "w", "decision": "reject", "feedback": 5}, 422),
        ({"call_id": 5, "decision": "approve"}, 422),
        ({"call_id": ["w"], "decision": "approve"}, 422),
    ],
    ids=repr,
)
def test_a_malformed_decision_is_refused_and_changes_nothing(
    me: Listener, model: ModelServer, wanted: Heard, message: dict[str, Any], status: int
) -> None:
    with unchanged(me.client):
        answer = talk.post(me.client, "s1", {"type": "hitl_decision", **message})
        assert (answer.status_code, "detail" in answer.json()) == (status, True)
    assert state_of("w") == "pending"
    assert me.decide("w", "approve").error is None


def test_a_second_or_foreign_decision_changes_nothing(me: Listener, model: ModelServer, wanted: Heard) -> None:
    other = Listener(me.client, "s2")
    ask(other, model, ("w2", "write_file", '{"path": "a.py", "content": ""}'), READ)
    with unchanged(me.client), unchanged(me.client, "s2"):
        refused(me.decide("w2", "approve"), "CALL_NOT_FOUND")
        refused(me.decide("nobody", "reject"), "CALL_NOT_FOUND")
        refused(other.decide("a", "approve"))  # it never needed one
    me.decide("w", "approve")
    asked = len(model.requests)
    with unchanged(me.client):
        refused(me.decide("w", "approve"))
        refused(me.decide("w", "reject"))
        refused(me.decide("w", "edit", modified_arguments={"path": "evil.py", "content": ""}))
    assert len(model.requests) == asked
    me.result("w")
    with unchanged(me.client):
        refused(me.decide("w", "reject"))
    usable(me, model)


def test_of_decisions_at_the_same_moment_one_counts(me: Listener, model: ModelServer, wanted: Heard) -> None:
    decisions = ["approve", "reject", "approve", "reject"]
    heard = at_once([lambda d=d: talk.decide(me.client, "s1", "w", d) for d in decisions])
    assert sum(one.error is None for one in heard) == 1
    assert {one.frames[0]["code"] for one in heard if one.error} == {"APPROVAL_ALREADY_DECIDED"}
    log = me.client.get("/events/audit-log", params={"event_type": "hitl_decision_made"}).json()["audit_log"]
    assert len(log) == 1


def test_a_decision_and_a_result_at_the_same_moment_leave_one_outcome(
    me: Listener, model: ModelServer, wanted: Heard
) -> None:
    heard = at_once(
        [lambda: talk.decide(me.client, "s1", "w", "reject"), lambda: talk.result(me.client, "s1", "w", "written")]
    )
    assert sum(one.error is None for one in heard) == 1
    assert sum(m["role"] == "tool" for m in me.messages()) == 1
    assert strict(model.requests[-1].body["messages"]) == []


def test_a_new_message_ends_the_approval(me: Listener, model: ModelServer, wanted: Heard) -> None:
    assert me.say("Forget it").tokens == "Hello world"
    assert me.pending() == []
    assert state_of("w") == "closed"
    with unchanged(me.client):
        refused(me.decide("w", "approve"))
        refused(me.decide("w", "reject"))
    usable(me, model)


def test_an_approved_call_may_fail_at_the_client(me: Listener, model: ModelServer, wanted: Heard) -> None:
    me.decide("w", "approve")
    assert me.fail("w", "disk full").tokens == "Hello world"
    assert state_of("w") == "approved"
    assert up(model)[-1]["content"] == "Error: disk full"
    tools = me.client.get("/events/metrics").json()["metrics"]
    assert tools["hitl_decisions"] == {"write_file": {"APPROVE": 1, "EDIT": 0, "REJECT": 0}}
    assert tools["tool_executions"]["write_file"]["failed"] == 1
    assert tools["tool_executions"]["write_file"]["requested"] == 1
    me.check()
