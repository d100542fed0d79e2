"""The fixture that judges histories is judged here."""

import pytest

from tests.strict_provider import strict

SYSTEM, USER = {"role": "system", "content": "s"}, {"role": "user", "content": "u"}


def asks(*ids, content=None, arguments="{}"):
    calls = [{"id": i, "type": "function", "function": {"name": "f", "arguments": arguments}} for i in ids]
    return {"role": "assistant", "content": content, "tool_calls": calls}


def answers(call_id, content="r"):
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def says(content):
    return {"role": "assistant", "content": content}


GOOD = [
    [SYSTEM, USER],
    [SYSTEM, USER, says("a"), USER],
    [SYSTEM, USER, asks("1", "2"), answers("2"), answers("1", ""), says("a")],
    [SYSTEM, USER, asks("1", content="So"), answers("1"), asks("2"), answers("2")],
]
BAD = {
    "no system message": [USER],
    "two system messages": [SYSTEM, SYSTEM, USER],
    "a late system message": [USER, SYSTEM],
    "an unanswered call": [SYSTEM, USER, asks("1", "2"), answers("1"), USER],
    "an unanswered call at the end": [SYSTEM, USER, asks("1")],
    "an answer twice": [SYSTEM, USER, asks("1"), answers("1"), answers("1")],
    "an answer to nothing": [SYSTEM, USER, answers("1")],
    "an id twice": [SYSTEM, USER, asks("1"), answers("1"), asks("1"), answers("1")],
    "an id twice in one message": [SYSTEM, USER, asks("1", "1"), answers("1")],
    "an empty assistant": [SYSTEM, USER, says("")],
    "null from the user": [SYSTEM, {"role": "user", "content": None}],
    "null from the assistant": [SYSTEM, USER, says(None)],
    "an unknown role": [SYSTEM, {"role": "robot", "content": "x"}],
    "arguments that do not parse": [SYSTEM, USER, asks("1", arguments="{"), answers("1")],
    "arguments that are no object": [SYSTEM, USER, asks("1", arguments="[]"), answers("1")],
    "a result that is no text": [SYSTEM, USER, asks("1"), answers("1", {"a": 1})],
    "no calls at all": [SYSTEM, USER, {"role": "assistant", "content": "a", "tool_calls": []}],
    "a call without an id": [SYSTEM, USER, asks(""), answers("")],
}


@pytest.mark.parametrize("messages", GOOD)
def test_a_valid_history_draws_no_complaint(messages):
    assert strict(messages) == []


@pytest.mark.parametrize("messages", BAD.values(), ids=BAD)
def test_every_fault_draws_one(messages):
    assert strict(messages)
