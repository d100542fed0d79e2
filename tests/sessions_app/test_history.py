"""The history that goes up is valid for a strict provider whatever is stored, and is cut in whole exchanges."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions_app import history
from sessions_app.history import NO_RESULT
from sessions_app.models import Message
from tests.model_server import strict

SYSTEM = {"role": "system", "content": "You are."}


def user(content: str = "question") -> Message:
    return Message(role=Message.USER, content=content)


def says(content: str = "answer", *call_ids: str) -> Message:
    return Message(role=Message.ASSISTANT, content=content, tool_calls=[call(one) for one in call_ids] or None)


def answers(call_id: str, content: str = "result") -> Message:
    return Message(role=Message.TOOL, content=content, tool_call_id=call_id)


def call(call_id: str) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": "read_file", "arguments": '{"path": "a"}'}}


def complaints(rows: list[Message]) -> list[str]:
    return strict([SYSTEM, *history.build(rows)])


def told(rows: list[Message]) -> list[tuple[str, str | None]]:
    return [(entry["role"], entry["content"]) for entry in history.build(rows)]


# --- built -------------------------------------------------------------------------------------------------------

BROKEN: dict[str, list[Message]] = {
    "nothing": [],
    "a plain exchange": [user(), says()],
    "an open answer": [user(), says("")],
    "calls with results": [user(), says("", "a", "b"), answers("a"), answers("b"), says()],
    "results in another order": [user(), says("", "a", "b"), answers("b"), answers("a"), says()],
    "a result that is missing": [user(), says("", "a", "b"), answers("b"), user()],
    "no result at all": [user(), says("text", "a")],
    "a result after the next question": [user(), says("", "a"), user("second"), answers("a"), says()],
    "a result without its call": [user(), answers("nobody's"), says()],
    "a result before its call": [user(), answers("a"), says("", "a")],
    "an empty result": [user(), says("", "a"), answers("a", ""), says()],
    "no question": [says("hello"), user()],
    "two questions": [user("one"), user("two"), says()],
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_built_is_valid_for_a_strict_provider(name: str) -> None:
    assert complaints(BROKEN[name]) == []


def test_results_follow_their_calls_in_the_order_of_the_calls() -> None:
    rows = [user(), says("", "a", "b"), user("second"), answers("b", "B"), answers("a", "A")]
    assert told(rows) == [("user", "question"), ("assistant", None), ("tool", "A"), ("tool", "B"), ("user", "second")]


def test_a_missing_result_says_that_nobody_knows() -> None:
    assert told([says("text", "a"), user()]) == [("assistant", "text"), ("tool", NO_RESULT), ("user", "question")]


def test_a_result_without_its_call_and_an_empty_answer_do_not_go_up() -> None:
    assert told([user(), answers("x"), says(""), says("end")]) == [("user", "question"), ("assistant", "end")]


@st.composite
def stored_rows(draw: st.DrawFn) -> list[Message]:
    """Any rows that the constraints of the database allow, in any order."""
    rows: list[Message] = []
    for number in range(draw(st.integers(0, 8))):
        kind = draw(st.sampled_from(["user", "says", "calls"]))
        if kind == "user":
            rows.append(user(draw(st.text(min_size=1))))
        elif kind == "says":
            rows.append(says(draw(st.text())))
        else:
            ids = [f"c{number}.{index}" for index in range(draw(st.integers(1, 3)))]
            rows.append(says(draw(st.text()), *ids))
            answered = draw(st.lists(st.sampled_from([*ids, f"x{number}"]), unique=True))
            rows += [answers(one, draw(st.text())) for one in answered]
    return list(draw(st.permutations(rows)))


@given(stored_rows())
def test_any_stored_rows_make_a_valid_history(rows: list[Message]) -> None:
    assert complaints(rows) == []
    assert history.build(rows) == history.build(rows)


# --- trimmed -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("characters", range(195, 300))
def test_a_text_is_not_made_longer_by_what_says_that_it_was_cut(characters: int) -> None:
    entries = [{"role": "user", "content": "0" * characters}]
    assert history.size(history.trimmed(entries, 0)) <= history.size(entries)


@given(stored_rows(), st.integers(0, 2000))
def test_trimming_keeps_whole_exchanges_from_the_end(rows: list[Message], most: int) -> None:
    entries = history.build(rows)
    kept = history.trimmed(entries, most)
    assert strict([SYSTEM, *kept]) == []
    assert history.trimmed(entries, most) == kept
    whole = history.exchanges(entries)
    if whole and history.size(whole[-1]) <= most:
        parts = history.exchanges(kept)
        assert parts == whole[-len(parts) :]
        assert history.size(kept) <= most
        assert parts == whole or history.size(whole[-len(parts) - 1]) + history.size(kept) > most
    elif whole:  # the newest alone is too large: its question stays, and no other exchange does
        assert history.size(kept) <= history.size(whole[-1])
        assert kept[0]["role"] == whole[-1][0]["role"] or whole[-1][0]["role"] != "user"


@given(stored_rows())
def test_what_fits_is_left_as_it_is(rows: list[Message]) -> None:
    entries = history.build(rows)
    assert history.trimmed(entries, history.size(entries)) == entries


def test_the_newest_exchange_stays_and_its_long_texts_are_cut_in_the_middle() -> None:
    long = "b" * 5000 + "e" * 5000
    rows = [user("old" * 100), says("old"), user("Q"), says("", "a"), answers("a", long), says("end")]
    kept = history.trimmed(history.build(rows), 3000)
    assert [entry["role"] for entry in kept] == ["user", "assistant", "tool", "assistant"]
    cut = kept[2]["content"]
    assert len(cut) < 2500
    assert cut.startswith("bbb")
    assert cut.endswith("eee")
    assert "characters left out" in cut
    assert strict([SYSTEM, *kept]) == []


def test_size_grows_with_texts_and_arguments() -> None:
    entries = history.build([user("x" * 10), says("", "a"), answers("a", "y" * 5)])
    arguments = len(json.dumps({"path": "a"}))
    assert history.size(entries) == (10 + 20) + (0 + arguments + 50 + 20) + (5 + 20)
