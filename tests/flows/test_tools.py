"""Tool calls: what leaves, what comes back, and what the model reads."""

from __future__ import annotations

import itertools
import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from sessions_app.models import Message, ToolCall
from tests import talk
from tests.conftest import RunningServer
from tests.model_server import Gate, ModelServer, Reply, drip, function_call, strict, text, tool_calls, verdict
from tests.stream_truth import Listener, unchanged, usable
from tests.talk import Heard

READ_A = ("a", "read_file", '{"path": "a.py"}')
READ_B = ("b", "read_file", '{"path": "b.py"}')
LIST = ("c", "list_files", "{}")
WRITE = ("w", "write_file", '{"path": "a.py", "content": "x"}')


@pytest.fixture
def me(client: httpx.Client) -> Listener:
    return Listener(client)


def ask(me: Listener, model: ModelServer, *calls: tuple[str, str, str], agent: str = "coder", said: str = "") -> Heard:
    """A person's message that the model answers with these calls."""
    model.reply(tool_calls(calls, said))
    return me.say("Please", agent_type=agent)


def sent_up(model: ModelServer) -> list[dict[str, Any]]:
    """The history of the last request, which every provider takes."""
    messages: list[dict[str, Any]] = model.requests[-1].body["messages"]
    assert strict(messages) == []
    return messages


def read_by_model(model: ModelServer) -> list[str]:
    return [message["content"] for message in sent_up(model) if message["role"] == "tool"]


# --- what leaves -------------------------------------------------------------------------------------------------


def test_all_parallel_calls_are_sent_after_the_text_before_them(me: Listener, model: ModelServer) -> None:
    heard = ask(me, model, READ_A, READ_B, LIST, said="Let me look.")
    assert [call["call_id"] for call in heard.calls] == ["a", "b", "c"]
    assert heard.contents == ["Let me look."]
    assert heard.types[-4:] == ["assistant_message", "tool_call", "tool_call", "tool_call"]
    assert [frame["is_final"] for frame in heard.frames[-4:]] == [False, True, True, True]
    answer = me.messages()[-1]
    assert answer["content"] == "Let me look."
    assert [call["id"] for call in answer["tool_calls"]] == ["a", "b", "c"]
    assert {call["type"] for call in answer["tool_calls"]} == {"function"}
    me.check()


def test_calls_without_text_have_no_message_frame(me: Listener, model: ModelServer) -> None:
    assert ask(me, model, READ_A).types == ["agent_switched", "tool_call"]
    me.result("a")
    me.check()


@pytest.mark.parametrize(
    ("call", "sent"),
    [
        (("1", "list_files", "{}"), {"path": ".", "recursive": False, "include_hidden": False}),
        (("1", "list_files", ""), {"path": ".", "recursive": False, "include_hidden": False}),
        (("1", "read_file", '{"path": "x", "start_line": null}'), {"path": "x", "encoding": "utf-8"}),
        (("1", "read_file", '{"path": "x", "path": "y"}'), {"path": "y", "encoding": "utf-8"}),
        (("1", "create_directory", '{"path": "x"}'), {"path": "x", "recursive": True}),
    ],
)
def test_what_is_sent_is_what_was_judged_with_its_defaults(
    me: Listener, model: ModelServer, call: tuple[str, str, str], sent: dict[str, Any]
) -> None:
    (heard,) = ask(me, model, call).calls
    assert heard["arguments"] == sent
    (kept,) = me.messages()[-1]["tool_calls"]
    assert json.loads(kept["function"]["arguments"]) == sent
    me.check()


@pytest.mark.parametrize(
    "reply",
    [
        tool_calls([("", "read_file", '{"path": "a.py"}'), ("", "list_files", "{}")]),
        tool_calls([("same", "read_file", '{"path": "a.py"}'), ("same", "list_files", "{}")]),
        tool_calls([("x" * 300, "read_file", '{"path": "a.py"}'), ("", "list_files", "{}")]),
        drip(tool_calls([("", "read_file", '{"path": "a.py"}'), ("", "list_files", '{"path": "ы"}')])),
    ],
    ids=["missing", "twice in one answer", "too long", "byte by byte"],
)
def test_every_call_has_an_id_of_its_own(me: Listener, model: ModelServer, reply: Reply) -> None:
    model.reply(reply)
    calls = me.say("Please", agent_type="coder").calls
    ids = [call["call_id"] for call in calls]
    assert [call["tool_name"] for call in calls] == ["read_file", "list_files"]
    assert all(0 < len(call_id) <= 64 for call_id in ids)
    assert len(set(ids)) == 2
    assert me.result(ids[1]).frames == []
    assert me.result(ids[0]).tokens == "Hello world"
    sent_up(model)
    me.check()


def test_an_id_used_before_in_the_session_is_made_new(me: Listener, model: ModelServer) -> None:
    ask(me, model, READ_A)
    model.reply(tool_calls([READ_A, ("a", "list_files", "{}")]))
    second = me.result("a")
    ids = [call["call_id"] for call in second.calls]
    assert "a" not in ids
    assert len(set(ids)) == 2
    model.reply(tool_calls([("", "read_file", '{"path": "z"}'), *((call_id, "list_files", "{}") for call_id in ids)]))
    me.result(ids[0])
    third = [call["call_id"] for call in me.result(ids[1]).calls]
    assert len({"a", *ids, *third}) == 6
    for call_id in third:
        me.result(call_id)
    sent_up(model)
    usable(me, model)


def test_a_model_that_guesses_made_up_ids_breaks_nothing(me: Listener, model: ModelServer) -> None:
    ask(me, model, READ_A)
    latest = Message.objects.latest("pk").pk
    guesses = [f"call_{latest + by}_5" for by in range(1, 6)]
    model.reply(tool_calls([*((guess, "list_files", "{}") for guess in guesses), ("", "list_files", "{}")]))
    second = me.result("a")
    assert second.error is None
    assert len({call["call_id"] for call in second.calls}) == 6
    usable(me, model)


def test_ids_of_other_sessions_are_free(client: httpx.Client, model: ModelServer) -> None:
    for name in ("s1", "s2"):
        assert ask(Listener(client, name), model, READ_A).calls[0]["call_id"] == "a"


def test_a_legacy_function_call_is_understood(me: Listener, model: ModelServer) -> None:
    model.reply(function_call("read_file", '{"path": "a.py"}'))
    (call,) = me.say("Please", agent_type="coder").calls
    assert call["arguments"]["path"] == "a.py"
    me.result(call["call_id"], "content")
    assert sent_up(model)[-1] == {"role": "tool", "tool_call_id": call["call_id"], "content": "content"}
    me.check()


# --- what does not leave -----------------------------------------------------------------------------------------

BROKEN = [
    '{"path": ',
    "not json",
    "[1]",
    '"text"',
    "5",
    "null",
    '{"path": NaN}',
    '{"path": "\\ud800"}',
    '{"path": 1e400}',
    '{"a":' * 300 + "1" + "}" * 300,
    '{"path": "a.py"} {"path": "b.py"}',
]


def test_broken_arguments_go_back_to_the_model_and_history_parses(
    me: Listener, model: ModelServer, settings: Any
) -> None:
    settings.MAX_MISTAKES_PER_RUN = len(BROKEN)
    heard = ask(me, model, *((f"call {i}", "read_file", arguments) for i, arguments in enumerate(BROKEN)))
    assert heard.calls == []
    assert heard.tokens == "Hello world"
    assert all("rguments" in complaint for complaint in read_by_model(model))
    asked = next(message for message in sent_up(model) if message["role"] == "assistant")
    assert [call["function"]["arguments"] for call in asked["tool_calls"]] == ["{}"] * len(BROKEN)
    with unchanged(me.client):
        assert me.result("call 0").error
    me.check()


@pytest.mark.parametrize(
    ("agent", "name", "arguments", "told"),
    [
        ("coder", "fly", "{}", "does not exist"),
        ("coder", "", "{}", "does not exist"),
        ("coder", "read file; rm -rf /" + "x" * 300, '{"path": "a"}', "does not exist"),
        ("coder", "echo", '{"text": "x"}', "not yours"),
        ("coder", "apply_diff", '{"path": "a", "diff": "b"}', "not yours"),
        ("coder", "switch_mode", '{"mode": "ask"}', "not yours"),
        ("ask", "write_file", '{"path": "a.md", "content": ""}', "not yours"),
        ("ask", "execute_command", '{"command": "ls"}', "not yours"),
        ("debug", "write_file", '{"path": "a.md", "content": ""}', "not yours"),
        ("architect", "write_file", '{"path": "a.py", "content": ""}', "Refused path"),
        ("architect", "write_file", '{"path": "docs/../x.py.md", "content": ""}', "Refused path"),
        ("architect", "write_file", '{"path": "/etc/x.md", "content": ""}', "Refused path"),
        ("coder", "read_file", "{}", "path"),
        ("coder", "read_file", '{"path": 5}', "path"),
        ("coder", "read_file", '{"path": "a\\u0000b"}', "path"),
        ("coder", "read_file", '{"path": "a", "mode": "rb"}', "mode"),
        ("coder", "execute_command", '{"command": "ls", "timeout": 301}', "timeout"),
    ],
)
def test_forbidden_calls_are_the_models_errors_never_the_clients(
    me: Listener, model: ModelServer, agent: str, name: str, arguments: str, told: str
) -> None:
    heard = ask(me, model, ("a", name, arguments), agent=agent)
    assert heard.calls == []
    assert heard.types[-1] == "assistant_message"
    (complaint,) = read_by_model(model)
    assert told in complaint
    (call,) = sent_up(model)[-2]["tool_calls"]
    assert re.fullmatch("[A-Za-z0-9_-]{1,64}", call["function"]["name"])
    assert me.pending() == []
    me.check()


def test_a_refused_call_beside_good_ones_holds_nothing_up(me: Listener, model: ModelServer) -> None:
    heard = ask(me, model, READ_A, ("bad", "fly", "{}"), READ_B)
    assert [call["call_id"] for call in heard.calls] == ["a", "b"]
    me.result("b", "B")
    me.result("a", "A")
    first, second, third = read_by_model(model)
    assert (first, third) == ("A", "B")
    assert "does not exist" in second
    me.check()


def test_mistakes_are_bounded_and_a_good_call_starts_the_count_anew(
    me: Listener, model: ModelServer, settings: Any
) -> None:
    settings.MAX_MISTAKES_PER_RUN = 3
    wrong = tool_calls([("x", "fly", "{}")])
    model.reply(wrong, wrong, tool_calls([READ_A]))
    assert len(me.say("Please", agent_type="coder").calls) == 1
    model.always(wrong)
    asked = len(model.requests)
    heard = me.result("a")
    assert heard.error
    assert heard.error["code"] == "TOOL_MISTAKE_LIMIT"
    assert len(model.requests) - asked == 4
    model.always(text("Better now"))
    usable(me, model)


def test_mistakes_beside_good_calls_are_counted_too(me: Listener, model: ModelServer, settings: Any) -> None:
    settings.MAX_MISTAKES_PER_RUN = 3
    model.always(tool_calls([("", "fly", "{}"), ("", "list_files", "{}")]))
    heard = me.say("Please", agent_type="coder")
    rounds = 0
    while heard.calls:
        rounds += 1
        heard = me.result(heard.calls[0]["call_id"])
    assert rounds == 3
    assert heard.error
    assert heard.error["code"] == "TOOL_MISTAKE_LIMIT"
    model.always(text("Better now"))
    usable(me, model)


# --- what comes back ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(itertools.permutations("abc")), ids="".join)
def test_results_in_any_order_call_the_model_once_after_the_last(
    me: Listener, model: ModelServer, order: tuple[str, ...]
) -> None:
    ask(me, model, READ_A, READ_B, LIST)
    asked = len(model.requests)
    for call_id in order[:-1]:
        assert me.result(call_id, f"result of {call_id}").frames == []
    assert len(model.requests) == asked
    assert me.result(order[-1], f"result of {order[-1]}").tokens == "Hello world"
    assert len(model.requests) == asked + 1
    assert read_by_model(model) == ["result of a", "result of b", "result of c"]
    me.check()


def test_results_at_the_same_moment_call_the_model_once(
    client: httpx.Client, server: RunningServer, me: Listener, model: ModelServer
) -> None:
    ids = [f"c{i}" for i in range(8)]
    ask(me, model, *((call_id, "list_files", "{}") for call_id in ids))
    asked = len(model.requests)
    heard = at_once([lambda call_id=call_id: talk.result(client, "s1", call_id, call_id) for call_id in ids])
    assert sorted(len(one.frames) > 0 for one in heard) == [False] * 7 + [True]
    assert len(model.requests) == asked + 1
    assert read_by_model(model) == ids
    for one in heard:
        me.hear(one)
    me.check()


def test_the_same_result_at_the_same_moment_counts_once(client: httpx.Client, me: Listener, model: ModelServer) -> None:
    ask(me, model, READ_A)
    asked = len(model.requests)
    heard = at_once([lambda: talk.result(client, "s1", "a", "same")] * 6)
    assert sum(bool(one.frames) for one in heard) == 1
    assert all(one.error is None for one in heard)
    assert len(model.requests) == asked + 1
    assert [m["role"] for m in me.messages()].count("tool") == 1


def at_once(actions: list[Any]) -> list[Heard]:
    barrier = threading.Barrier(len(actions))

    def run(action: Any) -> Heard:
        barrier.wait(30)
        heard: Heard = action()
        return heard

    with ThreadPoolExecutor(len(actions)) as pool:
        return list(pool.map(run, actions))


TEXTS: list[tuple[dict[str, Any], str]] = [
    ({"result": "plain text"}, "plain text"),
    ({"result": " spaces stay \n"}, " spaces stay \n"),
    ({"result": "Привет ☃ 😀"}, "Привет ☃ 😀"),
    ({"result": "null"}, "null"),
    ({"result": "nul \x00 inside"}, "nul \\u0000 inside"),
    ({"result": ""}, '""'),
    ({"result": None}, "null"),
    ({}, "null"),
    ({"result": 0}, "0"),
    ({"result": False}, "false"),
    ({"result": True}, "true"),
    ({"result": []}, "[]"),
    ({"result": {}}, "{}"),
    ({"result": 1.5}, "1.5"),
    ({"result": 10**30}, str(10**30)),
    ({"result": {"файл": ["a", None]}}, '{"файл": ["a", null]}'),
    ({"error": "no such file"}, "Error: no such file"),
    ({"error": "no such file", "result": None, "content": None, "decision": None}, "Error: no such file"),
    ({"error": "", "result": "fine"}, "fine"),
    ({"error": ""}, "Error: "),
]


def test_the_tool_message_is_a_text_as_it_is_else_json_or_the_error(me: Listener, model: ModelServer) -> None:
    ask(me, model, *((f"c{i}", "read_file", '{"path": "a.py"}') for i in range(len(TEXTS))))
    for i, (told, _) in enumerate(TEXTS):
        assert me.send({"type": "tool_result", "call_id": f"c{i}", "tool_name": "nonsense", **told}).error is None
    assert read_by_model(model) == [read for _, read in TEXTS]
    assert me.messages()[2] == {"role": "tool", "content": "plain text", "name": "read_file", "tool_call_id": "c0"}
    me.check()


def test_an_error_is_read_as_an_error(me: Listener, model: ModelServer) -> None:
    ask(me, model, READ_A)
    me.send({"type": "tool_result", "call_id": "a", "result": None, "error": "no such file", "content": None})
    assert read_by_model(model) == ["Error: no such file"]
    assert ToolCall.objects.get(call_id="a").state == "failed"
    me.check()


def test_a_result_of_two_megabytes_arrives_whole(me: Listener, model: ModelServer) -> None:
    ask(me, model, READ_A)
    content = "ж" * 1_000_000
    me.result("a", content)
    assert read_by_model(model) == [content]
    me.check()


@pytest.mark.parametrize("value", ["first", None, {"b": 1, "a": [2]}, ""])
def test_the_same_result_again_changes_nothing(me: Listener, model: ModelServer, value: Any) -> None:
    ask(me, model, READ_A, READ_B)
    for others in ([], ["b"]):
        for other in others:
            me.result(other)
        me.result("a", value)
        asked = len(model.requests)
        with unchanged(me.client):
            assert me.result("a", value).error is None
        assert len(model.requests) == asked
    usable(me, model)


OTHERS = [{"result": "third"}, {"result": None}, {"error": "first"}, {"result": "Error: second"}, {"result": ["first"]}]


@pytest.mark.parametrize("first", [{"result": "first"}, {"error": "second"}], ids=repr)
def test_a_different_result_for_an_answered_call_is_refused(
    me: Listener, model: ModelServer, first: dict[str, Any]
) -> None:
    ask(me, model, READ_A, READ_B)
    me.send({"type": "tool_result", "call_id": "a", **first})
    asked = len(model.requests)
    with unchanged(me.client):
        for other in OTHERS:
            heard = me.send({"type": "tool_result", "call_id": "a", **other})
            assert heard.error, other
            assert heard.error["code"] == "CALL_ALREADY_ANSWERED"
    assert len(model.requests) == asked
    usable(me, model)


def test_unknown_foreign_and_refused_calls_take_no_result(
    client: httpx.Client, me: Listener, model: ModelServer
) -> None:
    ask(Listener(client, "theirs"), model, ("theirs", "list_files", "{}"))
    ask(me, model, READ_A, ("refused", "fly", "{}"))
    asked = len(model.requests)
    with unchanged(client), unchanged(client, "theirs"):
        for call_id in ("nobody", "theirs", "refused", "A", "a ", "x" * 1000, "\x00", "'; drop table"):
            heard = me.result(call_id, "intruder")
            assert heard.error, call_id
            assert heard.error["code"] == "CALL_NOT_FOUND"
            assert heard.types == ["error"]
    assert len(model.requests) == asked
    me.result("a")
    usable(me, model)


def test_a_result_to_a_session_that_is_not_there_creates_none(client: httpx.Client, model: ModelServer) -> None:
    for message in (
        {"type": "tool_result", "call_id": "a", "result": "x"},
        {"type": "hitl_decision", "call_id": "a", "decision": "approve"},
        {"type": "switch_agent", "agent_type": "coder"},
    ):
        heard = talk.send(client, "nowhere", message)
        assert heard.types == ["error"]
        assert heard.frames[0]["code"] == "SESSION_NOT_FOUND"
        assert client.get("/sessions/nowhere").status_code == 404
    assert model.requests == []


def test_a_call_settled_here_takes_no_result(me: Listener, model: ModelServer) -> None:
    ask(me, model, ("done", "attempt_completion", '{"result": "All done"}'))
    with unchanged(me.client):
        assert me.result("done", "mine").error
    usable(me, model)


def test_many_steps_keep_the_history_valid(me: Listener, model: ModelServer) -> None:
    heard = ask(me, model, READ_A, LIST, said="Step 0")
    for step in range(1, 6):
        for call in heard.calls[:-1]:
            assert me.result(call["call_id"], f"{step}").frames == []
        model.reply(tool_calls([("a", "read_file", '{"path": "b"}'), ("", "list_files", "{}")], f"Step {step}"))
        heard = me.result(heard.calls[-1]["call_id"], {"step": step})
        sent_up(model)
    assert heard.contents == ["Step 5"]
    usable(me, model)


def test_calls_belong_to_the_agent_that_asked_even_when_a_person_switches_meanwhile(
    me: Listener, model: ModelServer
) -> None:
    """The switch comes while the model still writes: an edit of its call is checked by the rules of who asked."""
    gate = Gate()
    model.reply(tool_calls([WRITE]).held(gate))
    with ThreadPoolExecutor(1) as pool:
        turn = pool.submit(talk.say, me.client, "s1", "Please", agent_type="coder")
        assert gate.reached.wait(30)
        talk.send(me.client, "s1", {"type": "switch_agent", "agent_type": "ask"})
        gate.open()
        (call,) = turn.result(30).calls
    assert ToolCall.objects.get(call_id="w").agent == "coder"
    heard = talk.decide(me.client, "s1", call["call_id"], "edit", modified_arguments={"path": "b.py", "content": "y"})
    assert heard.error is None
    assert talk.result(me.client, "s1", "w", "written").tokens == "Hello world"
    assert "You are" in sent_up(model)[0]["content"]
    assert talk.history(me.client, "s1")["current_agent"] == "ask"


def test_a_routed_turn_may_begin_with_calls(me: Listener, model: ModelServer) -> None:
    model.route(verdict("debug"))
    model.reply(tool_calls([READ_A]))
    heard = me.say("It crashes")
    assert heard.types == ["agent_switched", "tool_call"]
    me.result("a")
    assert "tools" not in model.requests[0].body
    assert all(request.body["tools"] for request in model.requests[1:])
    me.check()
