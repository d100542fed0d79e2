"""A history that no longer fits: the oldest whole exchanges stay behind, and the person still gets an answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from sessions_app.models import Event
from tests.model_server import ModelServer, Reply, status, strict, text, tool_calls
from tests.stream_truth import Listener

TOO_LONG = status(400, body={"error": {"message": "too long", "code": "context_length_exceeded"}})


@pytest.fixture
def me(client: httpx.Client) -> Listener:
    return Listener(client)


def history_size(body: dict[str, Any]) -> int:
    return len(json.dumps(body["messages"][1:], ensure_ascii=False))


def window(most: int, answer: Callable[[dict[str, Any]], Reply] = lambda body: text("Fits")) -> Any:
    """A provider whose window holds a history of so many characters."""
    return lambda body: TOO_LONG if history_size(body) > most else answer(body)


def talked(me: Listener, model: ModelServer, turns: int, characters: int = 400) -> None:
    """A conversation with a read in every other turn."""
    for turn in range(turns):
        if turn % 2:
            model.reply(tool_calls([("", "read_file", '{"path": "a.py"}'), ("", "list_files", "{}")]))
        heard = me.say(f"Question {turn}: " + "q" * characters, agent_type="coder")
        for call in heard.calls:
            me.result(call["call_id"], f"Result {turn}")


def questions(body: dict[str, Any]) -> list[int]:
    return [int(m["content"].split()[1].rstrip(":")) for m in body["messages"] if m["role"] == "user"]


def trims() -> list[dict[str, int]]:
    return list(Event.objects.filter(type="HistoryTrimmed").order_by("id").values_list("data", flat=True))


def test_the_providers_context_error_leaves_out_the_oldest_whole_exchanges(me: Listener, model: ModelServer) -> None:
    talked(me, model, 12)
    model.always(window(3000))
    heard = me.say("Question 12: short")
    assert heard.contents == ["Fits"]
    body = model.requests[-1].body
    assert strict(body["messages"]) == []
    kept = questions(body)
    assert kept == list(range(kept[0], 13))
    assert 0 < kept[0] < 12
    assert body["messages"][1]["role"] == "user"
    assert trims()[-1]["left_out"] > 0
    assert "HistoryTrimmed" not in heard.types
    assert next(m["content"] for m in me.messages() if m["role"] == "user").startswith("Question 0"), "nothing is lost"
    me.check()


def test_the_same_history_is_trimmed_the_same_way(client: httpx.Client, model: ModelServer) -> None:
    seen = []
    for name in ("s1", "s2"):
        model.always(text("Hello world"))
        me = Listener(client, name)
        talked(me, model, 8)
        model.always(window(2500))
        me.say("Question 8: short")
        seen.append([{**m, "tool_calls": None, "tool_call_id": None} for m in model.requests[-1].body["messages"]])
    assert seen[0] == seen[1]


def test_a_configured_window_is_kept_without_asking_first(me: Listener, model: ModelServer, settings: Any) -> None:
    talked(me, model, 12)
    settings.LLM_CONTEXT_TOKENS = 6000
    asked = len(model.requests)
    model.always(lambda body: status(500) if len(json.dumps(body)) > 6000 * 2.5 + 2500 else text("Fits"))
    for turn in range(12, 16):
        assert me.say(f"Question {turn}: " + "long " * 800).contents == ["Fits"]
        assert strict(model.requests[-1].body["messages"]) == []
        assert questions(model.requests[-1].body)[-1] == turn
    assert len(model.requests) - asked == 4
    assert trims()
    me.check()


def test_a_window_that_holds_all_changes_nothing(me: Listener, model: ModelServer, settings: Any) -> None:
    settings.LLM_CONTEXT_TOKENS = 100_000
    talked(me, model, 6)
    assert questions(model.requests[-1].body) == list(range(6))
    assert trims() == []


@pytest.mark.parametrize("most", [1500, 4000, 9000])
def test_a_huge_question_is_cut_and_answered(me: Listener, model: ModelServer, most: int) -> None:
    model.always(window(most))
    heard = me.say("BEGIN " + "x" * 100_000 + " END", agent_type="coder")
    assert heard.contents == ["Fits"]
    (_, question) = model.requests[-1].body["messages"]
    assert question["content"].startswith("BEGIN")
    assert question["content"].endswith("END")
    assert len(me.messages()[0]["content"]) == 100_010
    me.check()


@pytest.mark.parametrize("most", [3000, 9000])
def test_one_exchange_of_many_steps_leaves_out_its_oldest_calls(me: Listener, model: ModelServer, most: int) -> None:
    model.always(window(most, lambda body: tool_calls([("", "read_file", '{"path": "a.py"}')], "Reading on.")))
    heard = me.say("Question 0: read everything", agent_type="coder")
    for step in range(12):
        assert heard.error is None
        (call,) = heard.calls
        heard = me.result(call["call_id"], f"Result {step} " + "r" * 1500)
        messages = model.requests[-1].body["messages"]
        assert strict(messages) == []
        assert messages[1]["content"] == "Question 0: read everything"
        assert messages[-1]["content"].startswith(f"Result {step} ")
    assert trims()
    me.check()


def test_huge_results_of_parallel_calls_are_cut(me: Listener, model: ModelServer) -> None:
    model.reply(tool_calls([(f"c{i}", "read_file", '{"path": "a.py"}') for i in range(6)]))
    me.say("Question 0: read", agent_type="coder")
    model.always(window(5000))
    for i in range(5):
        me.result(f"c{i}", f"R{i} " + "z" * 50_000)
    heard = me.result("c5", "R5 " + "z" * 50_000)
    assert heard.contents == ["Fits"]
    results = [m["content"] for m in model.requests[-1].body["messages"] if m["role"] == "tool"]
    assert [result[:2] for result in results] == [f"R{i}" for i in range(6)]
    assert strict(model.requests[-1].body["messages"]) == []
    me.check()


def test_huge_arguments_are_cut_and_still_parse(me: Listener, model: ModelServer) -> None:
    arguments = json.dumps({"path": "a.py", "content": "c" * 60_000})
    model.reply(tool_calls([("w", "write_file", arguments)]))
    me.say("Question 0: write", agent_type="coder")
    model.always(window(5000))
    heard = me.result("w", "written")
    assert heard.contents == ["Fits"]
    assert strict(model.requests[-1].body["messages"]) == []
    (call,) = me.messages()[1]["tool_calls"]
    assert json.loads(call["function"]["arguments"])["content"] == "c" * 60_000
    me.check()


def test_a_window_too_small_for_anything_is_an_error_chunk(me: Listener, model: ModelServer) -> None:
    talked(me, model, 3)
    model.always(TOO_LONG)
    heard = me.say("Question 3: short")
    assert heard.error
    assert heard.error["code"] == "CONTEXT_TOO_LONG"
    assert len(model.requests) < 20
    model.always(text("Fits again"))
    assert me.say("Question 4: short").contents == ["Fits again"]
    assert strict(model.requests[-1].body["messages"]) == []
    me.check()


def test_the_context_error_of_a_later_step_is_mended_too(me: Listener, model: ModelServer) -> None:
    talked(me, model, 8)
    model.reply(tool_calls([("a", "read_file", '{"path": "a.py"}')], "Looking."))
    me.say("Question 8: look")
    model.always(window(2000))
    heard = me.result("a", "seen")
    assert heard.contents == ["Fits"]
    assert strict(model.requests[-1].body["messages"]) == []
    assert model.requests[-1].body["messages"][-1]["content"] == "seen"
    me.check()
