"""Agents change hands: by the model, by a person, while tools are out; and what a new message does to open calls."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from sessions_app.history import NO_RESULT
from sessions_app.models import Approval, ToolCall
from tests import talk
from tests.model_server import Gate, ModelServer, strict, text, tool_calls, verdict
from tests.stream_truth import Listener, unchanged, usable
from tests.talk import Heard

Call = tuple[str, str, str]
READ = ("a", "read_file", '{"path": "a.py"}')
LIST = ("b", "list_files", "{}")
WRITE = ("w", "write_file", '{"path": "a.py", "content": ""}')


@pytest.fixture
def me(client: httpx.Client) -> Listener:
    return Listener(client)


def to(mode: str, call_id: str = "s", reason: str = "") -> Call:
    return (call_id, "switch_mode", f'{{"mode": "{mode}"' + (f', "reason": "{reason}"' if reason else "") + "}")


def ask(me: Listener, model: ModelServer, *calls: Call, agent: str = "ask", said: str = "") -> Heard:
    model.reply(tool_calls(calls, said))
    return me.say("Please", agent_type=agent)


def up(model: ModelServer) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = model.requests[-1].body["messages"]
    assert strict(messages) == []
    return messages


def read_by_model(model: ModelServer) -> list[str]:
    return [message["content"] for message in up(model) if message["role"] == "tool"]


def switches(heard: Heard) -> list[tuple[str, str]]:
    return [(f["metadata"]["from_agent"], f["metadata"]["to_agent"]) for f in heard.of("agent_switched")]


def tools_offered(model: ModelServer) -> set[str]:
    return {tool["function"]["name"] for tool in model.requests[-1].body["tools"]}


# --- the model's own switch_mode ---------------------------------------------------------------------------------


def test_the_next_agent_answers_in_the_same_stream(me: Listener, model: ModelServer) -> None:
    heard = ask(me, model, to("coder", reason="It needs code"), said="One moment.")
    assert heard.calls == []
    assert heard.types[-1] == "assistant_message"
    assert heard.contents == ["One moment.", "Hello world"]
    switched = heard.of("agent_switched")[-1]
    assert switched["metadata"]["reason"] == "It needs code"
    assert (switched["metadata"]["from_agent"], switched["metadata"]["to_agent"]) == ("ask", "coder")
    assert switched["is_final"] is False
    assert heard.frames.index(switched) > heard.types.index("assistant_message")
    assert read_by_model(model) == ["Switched to coder."]
    assert "write_file" in tools_offered(model)
    me.check()


def test_code_is_the_coder_and_a_reason_is_made_up(me: Listener, model: ModelServer) -> None:
    heard = ask(me, model, to("code"))
    assert switches(heard)[-1] == ("ask", "coder")
    assert heard.of("agent_switched")[-1]["metadata"]["reason"]
    me.check()


@pytest.mark.parametrize("mode", ["ask", "orchestrator", "universal", "nobody", "", "Coder", "switch_mode"])
def test_a_switch_to_itself_or_to_nonsense_is_the_calls_error(me: Listener, model: ModelServer, mode: str) -> None:
    heard = ask(me, model, to(mode))
    assert switches(heard) == [("orchestrator", "ask")]
    assert heard.tokens == "Hello world"
    (complaint,) = read_by_model(model)
    assert "Switched" not in complaint
    assert me.history()["current_agent"] == "ask"
    me.check()


def test_beside_other_calls_the_new_agent_reads_their_results(me: Listener, model: ModelServer) -> None:
    heard = ask(me, model, READ, to("debug"), LIST, said="Looking.")
    assert heard.types[-3:] == ["agent_switched", "tool_call", "tool_call"]
    assert [call["call_id"] for call in heard.calls] == ["a", "b"]
    assert set(ToolCall.objects.values_list("agent", flat=True)) == {"ask"}
    me.result("b", "B")
    assert me.result("a", "A").contents == ["Hello world"]
    assert read_by_model(model) == ["A", "Switched to debug.", "B"]
    assert "execute_command" in tools_offered(model)
    me.check()


def test_two_switches_in_one_answer_follow_each_other(me: Listener, model: ModelServer) -> None:
    heard = ask(me, model, to("debug", "s1"), to("coder", "s2"), to("coder", "s3"))
    assert switches(heard)[1:] == [("ask", "debug"), ("debug", "coder")]
    assert read_by_model(model)[:2] == ["Switched to debug.", "Switched to coder."]
    assert "already" in read_by_model(model)[2]
    me.check()


def test_switches_of_a_turn_are_bounded(me: Listener, model: ModelServer, settings: Any) -> None:
    """Eight by default, counted across the waits for the client."""
    assert settings.MAX_SWITCHES_PER_RUN == 8

    def other(body: dict[str, Any]) -> Any:
        offered = {tool["function"]["name"] for tool in body["tools"]}
        return tool_calls([to("debug" if "execute_command" not in offered else "ask", ""), ("", "list_files", "{}")])

    model.always(other)
    heard, made = me.say("Please", agent_type="ask"), 0
    while heard.calls:
        made += 1
        heard = me.result(heard.calls[0]["call_id"])
    assert made == 8
    assert heard.error
    assert heard.error["code"] == "SWITCH_LIMIT"
    assert heard.calls == []
    assert ToolCall.objects.filter(state__in=("out", "pending")).count() == 0
    model.always(text("Enough"))
    usable(me, model)


def test_switches_without_other_calls_are_bounded_too(me: Listener, model: ModelServer, settings: Any) -> None:
    settings.MAX_SWITCHES_PER_RUN = 3
    modes = iter(["debug", "ask"] * 10)
    model.always(lambda body: tool_calls([to(next(modes), "")]))
    heard = me.say("Please", agent_type="ask")
    assert len(switches(heard)) == 1 + 3
    assert heard.error
    assert heard.error["code"] == "SWITCH_LIMIT"
    model.always(text("Enough"))
    usable(me, model)


def test_the_count_starts_anew_with_the_next_turn(me: Listener, model: ModelServer, settings: Any) -> None:
    settings.MAX_SWITCHES_PER_RUN = 1
    for mode in ("debug", "ask", "debug"):
        model.reply(tool_calls([to(mode, "")]))
        assert me.say("Please", **({} if me.frames else {"agent_type": "ask"})).error is None
    me.check()


# --- what ends the turn ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (("f", "attempt_completion", '{"result": "All *done*"}'), "All *done*"),
        (("f", "ask_followup_question", '{"question": "Which?"}'), "Which?"),
        (("f", "ask_followup_question", '{"question": "Which?", "suggestions": ["A", "Б"]}'), "Which?\n\n1. A\n2. Б"),
    ],
)
@pytest.mark.parametrize("before", ["", "Some text."])
def test_the_final_text_is_the_last_message_of_the_turn(
    me: Listener, model: ModelServer, call: Call, said: str, before: str
) -> None:
    heard = ask(me, model, call, said=before)
    assert heard.calls == []
    assert heard.contents == [*([before] if before else []), said]
    assert heard.frames[-1]["is_final"] is True
    assert len(model.requests) == 1
    assert [m["role"] for m in me.messages()] == ["user", "assistant", "tool", "assistant"]
    assert me.messages()[-2]["tool_call_id"] == "f"
    usable(me, model)
    assert up(model)[4]["content"] == said


def test_finishing_beside_open_calls_waits_for_their_results(me: Listener, model: ModelServer) -> None:
    heard = ask(me, model, ("f", "attempt_completion", '{"result": "Done"}'), READ)
    assert [call["call_id"] for call in heard.calls] == ["a"]
    assert heard.contents == []
    model.reply(tool_calls([("f2", "attempt_completion", '{"result": "Really done"}')]))
    assert me.result("a", "A").contents == ["Really done"]
    usable(me, model)


def test_finishing_beside_a_switch_does_both(me: Listener, model: ModelServer) -> None:
    heard = ask(me, model, to("coder"), ("f", "attempt_completion", '{"result": "Done"}'))
    assert heard.contents == ["Done"]
    assert switches(heard)[-1] == ("ask", "coder")
    usable(me, model)


def test_finishing_beside_a_refused_call_ends_the_turn(me: Listener, model: ModelServer) -> None:
    heard = ask(me, model, ("x", "fly", "{}"), ("f", "attempt_completion", '{"result": "Done"}'))
    assert heard.contents == ["Done"]
    usable(me, model)


@pytest.mark.parametrize("arguments", ["{}", '{"result": " "}', '{"result": 5}', "{"])
def test_a_broken_finish_is_the_models_error(me: Listener, model: ModelServer, arguments: str) -> None:
    heard = ask(me, model, ("f", "attempt_completion", arguments))
    assert heard.contents == ["Hello world"]
    assert len(read_by_model(model)) == 1
    me.check()


# --- a person switches while results are missing -----------------------------------------------------------------


@pytest.mark.parametrize("way", ["message", "rest"])
def test_a_switch_leaves_the_calls_open_and_the_new_agent_reads_the_results(
    me: Listener, model: ModelServer, way: str
) -> None:
    ask(me, model, READ, WRITE, agent="coder")
    asked = len(model.requests)
    by(me, way, "debug")
    assert len(model.requests) == asked
    assert [one["call_id"] for one in me.pending()] == ["w"]
    assert me.result("a", "A").frames == []
    assert me.decide("w", "approve").types == ["tool_call"]
    heard = me.result("w", "W")
    assert heard.contents == ["Hello world"]
    assert read_by_model(model) == ["A", "W"]
    assert "write_file" not in tools_offered(model)
    assert "execute_command" in tools_offered(model)
    assert me.history()["current_agent"] == "debug"
    if way == "message":
        me.check()


def by(me: Listener, way: str, agent: str) -> None:
    if way == "message":
        heard = me.switch(agent, reason="I want so", content="Switched to Somebody")
        assert heard.types == ["agent_switched"]
        assert heard.frames[0]["is_final"] is True
        assert heard.frames[0]["metadata"]["reason"] == "I want so"
    else:
        answer = me.client.post("/agents/s1/switch", json={"target_agent": agent, "reason": "I want so"})
        assert answer.status_code == 200


def test_an_edit_after_a_switch_is_checked_by_the_rules_of_who_asked(me: Listener, model: ModelServer) -> None:
    ask(me, model, ("w", "write_file", '{"path": "a.md", "content": ""}'), agent="architect")
    me.switch("coder")
    with unchanged(me.client):
        assert me.decide("w", "edit", modified_arguments={"path": "a.py", "content": ""}).error
    assert me.decide("w", "edit", modified_arguments={"path": "b.md", "content": ""}).calls
    me.result("w")
    me.check()


@pytest.mark.parametrize("way", ["message", "rest"])
def test_a_switch_to_the_orchestrator_lets_it_route_the_results(me: Listener, model: ModelServer, way: str) -> None:
    ask(me, model, READ, agent="coder")
    by(me, way, "orchestrator")
    model.route(verdict("architect"))
    heard = me.result("a", "A")
    assert heard.types[0] == "agent_switched"
    assert switches(heard) == [("orchestrator", "architect")]
    assert heard.contents == ["Hello world"]
    assert read_by_model(model) == ["A"]
    assert me.history()["current_agent"] == "architect"
    if way == "message":
        me.check()


def test_a_switch_to_the_current_agent_records_nothing_and_keeps_the_calls(me: Listener, model: ModelServer) -> None:
    ask(me, model, READ, agent="coder")
    with unchanged(me.client):
        heard = me.switch("code")
        assert heard.types == ["agent_switched"]
        assert switches(heard) == [("coder", "coder")]
    assert me.result("a", "A").contents == ["Hello world"]


def test_a_label_never_reaches_the_model(me: Listener, model: ModelServer) -> None:
    ask(me, model, READ, agent="coder")
    me.send({"type": "switch_agent", "agent_type": "ask", "content": "LABEL for people", "reason": None})
    me.result("a", "A")
    assert "LABEL" not in str(up(model))
    me.check()


def test_a_person_who_switches_while_the_router_thinks_is_obeyed(me: Listener, model: ModelServer) -> None:
    gate = Gate()
    model.route(verdict("coder").held(gate))
    with ThreadPoolExecutor(1) as pool:
        turn = pool.submit(talk.say, me.client, "s1", "Do something")
        assert gate.reached.wait(30)
        assert talk.send(me.client, "s1", {"type": "switch_agent", "agent_type": "ask"}).error is None
        gate.open()
        heard = turn.result(30)
    assert heard.contents == ["Hello world"]
    story = me.history()
    assert story["current_agent"] == "ask"
    assert [(item["from"], item["to"]) for item in story["agent_history"]] == [("orchestrator", "ask")]
    assert "write_file" not in tools_offered(model)
    usable_after_race(me, model)


def usable_after_race(me: Listener, model: ModelServer) -> None:
    assert talk.say(me.client, "s1", "And now?").error is None
    assert strict(model.requests[-1].body["messages"]) == []


# --- a person speaks while results are missing -------------------------------------------------------------------


def test_a_new_message_closes_what_is_missing_and_goes_on(me: Listener, model: ModelServer) -> None:
    ask(me, model, READ, WRITE, LIST, agent="coder")
    me.result("a", "A")
    heard = me.say("Never mind, something else")
    assert heard.contents == ["Hello world"]
    assert read_by_model(model) == ["A", NO_RESULT, NO_RESULT]
    assert up(model)[-1] == {"role": "user", "content": "Never mind, something else"}
    assert me.pending() == []
    assert Approval.objects.get().state == "closed"
    assert [m["content"] for m in me.messages() if m["role"] == "tool"] == ["A", NO_RESULT, NO_RESULT]
    me.check()


def test_a_late_result_is_noted_for_operators_and_never_told(me: Listener, model: ModelServer) -> None:
    ask(me, model, READ, WRITE, agent="coder")
    me.say("Never mind")
    asked = len(model.requests)
    with unchanged(me.client):
        for call_id, message in (("a", {"result": "LATE"}), ("w", {"error": "LATE"}), ("a", {"result": "LATE"})):
            heard = me.send({"type": "tool_result", "call_id": call_id, **message})
            assert heard.types == ["error"]
            assert heard.frames[0]["code"] == "CALL_CLOSED"
    assert len(model.requests) == asked
    notes = {call.call_id: [note["text"] for note in call.late_results] for call in ToolCall.objects.all()}
    assert notes == {"a": ["LATE", "LATE"], "w": ["Error: LATE"]}
    usable(me, model)
    assert "LATE" not in str(up(model))


def test_a_new_message_may_name_its_agent_and_closes_the_calls_just_so(me: Listener, model: ModelServer) -> None:
    ask(me, model, READ, agent="coder")
    heard = me.say("Explain instead", agent_type="ask")
    assert switches(heard) == [("coder", "ask")]
    assert read_by_model(model) == [NO_RESULT]
    me.check()


def test_refused_messages_leave_the_calls_open(me: Listener, model: ModelServer) -> None:
    ask(me, model, READ, WRITE, agent="coder")
    with unchanged(me.client):
        for message in (
            {"type": "user_message", "content": " "},
            {"type": "user_message", "content": "x", "agent_type": "nobody"},
            {"type": "switch_agent"},
            {"type": "switch_agent", "agent_type": "nobody"},
            {"type": "tool_result"},
            {"type": "tool_result", "call_id": "a", "error": 5},
            {"type": "nonsense"},
        ):
            assert talk.post(me.client, "s1", message).status_code in (400, 422), message
        body = {"target_agent": "nobody", "reason": "x"}
        assert me.client.post("/agents/s1/switch", json=body).status_code == 400
    me.result("a")
    assert me.result("w").contents == ["Hello world"]
    usable(me, model)
