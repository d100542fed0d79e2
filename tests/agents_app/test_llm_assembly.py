import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents_app.llm import RequestedCall, Usage
from agents_app.llm_assembly import Assembly
from agents_app.llm_failures import Again
from sessions_app.errors import AnswerTooLong, LLMFault, LLMGarbage, LLMOutputLimit, LLMRefused
from tests.model_server import chunk

A, B = RequestedCall("a", "read", '{"p": 1}'), RequestedCall("b", "list", "{}")


def assembled(*deltas, finish="tool_calls"):
    assembly = Assembly()
    for delta in deltas:
        assembly.add(chunk(delta))
    assembly.add(chunk({}, finish))
    return assembly.answer()


def fragments(*pieces):
    return [{"tool_calls": [piece]} for piece in pieces]


def part(index=None, id=None, name=None, arguments=None):  # noqa: A002
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    fragment = {"index": index, "id": id, "function": function}
    return {key: value for key, value in fragment.items() if value is not None}


CALLS = {
    "by index": (
        fragments(
            part(0, "a", "read", ""), part(1, "b", "list", "{"), part(0, arguments='{"p": 1}'), part(1, arguments="}")
        ),
        [A, B],
    ),
    "by id, the index is missing": (
        fragments(part(None, "a", "read", '{"p"'), part(None, "b", "list", "{}"), part(None, "a", arguments=": 1}")),
        [A, B],
    ),
    "by id, every index is 0": (
        fragments(
            part(0, "a", "read", '{"p"'), part(0, None, None, ": 1}"), part(0, "b", "list", "{"), part(0, arguments="}")
        ),
        [A, B],
    ),
    "by id, interleaved under one index": (
        fragments(
            part(0, "a", "read", '{"p"'), part(0, "b", "list", "{"), part(0, "a", None, ": 1}"), part(0, "b", None, "}")
        ),
        [A, B],
    ),
    "neither index nor id: a name begins the next": (
        fragments(part(name="read", arguments='{"p"'), part(arguments=": 1}"), part(name="list", arguments="{}")),
        [RequestedCall("", "read", '{"p": 1}'), RequestedCall("", "list", "{}")],
    ),
    "one index, no ids, the same name": (
        fragments(part(0, name="read", arguments='{"p": 1}'), part(0, name="read", arguments='{"p": 2}')),
        [RequestedCall("", "read", '{"p": 1}'), RequestedCall("", "read", '{"p": 2}')],
    ),
    "id and name repeated in every fragment": (
        fragments(part(0, "a", "read", '{"p"'), part(0, "a", "read", ": 1}")),
        [A],
    ),
    "name repeated without the id": (fragments(part(0, "a", "read", '{"p"'), part(0, None, "read", ": 1}")), [A]),
    "one id for two indexes": (
        fragments(part(0, "a", "read", '{"p": 1}'), part(1, "a", "list", "{}")),
        [A, RequestedCall("a", "list", "{}")],
    ),
    "a late id": (fragments(part(0, None, "read", '{"p": '), part(0, "a", None, "1}")), [A]),
    "an odd index": (fragments(part("x", "a", "read", '{"p": 1}'), part(True, "b", "list", "{}")), [A, B]),
    "indexes with gaps": (fragments(part(5, "a", "read", '{"p": 1}'), part(2, "b", "list", "{}")), [A, B]),
    "arguments as an object": (
        fragments(part(0, "a", "read", {"p": 1}), part(1, "b", "list", {})),
        [A, B],
    ),
    "big integers in an object": (
        fragments(part(0, "a", "n", {"n": 2**70})),
        [RequestedCall("a", "n", json.dumps({"n": 2**70}))],
    ),
    "blank arguments": (fragments(part(0, "a", "read", '{"p": 1}'), part(1, "b", "list", " ")), [A, B]),
    "broken arguments stay": (fragments(part(0, "a", "read", '{"p": ')), [RequestedCall("a", "read", '{"p": ')]),
    "a whole message's calls": (
        [{"tool_calls": [part(None, "a", "read", '{"p": 1}'), part(None, "b", "list")]}],
        [A, B],
    ),
    "legacy function_call": (
        [{"function_call": {"name": "read", "arguments": ""}}, {"function_call": {"arguments": '{"p": 1}'}}],
        [RequestedCall("", "read", '{"p": 1}')],
    ),
    "both shapes of the same call": (
        [{"function_call": {"name": "read", "arguments": "{}"}}, *fragments(part(0, "a", "read", '{"p": 1}'))],
        [A],
    ),
    "null everywhere": (
        [
            {"role": None, "content": None, "tool_calls": None, "function_call": None, "refusal": None},
            {
                "tool_calls": [
                    None,
                    {"index": 0, "id": "a", "type": None, "function": {"name": "read", "arguments": None}},
                ]
            },
            {"tool_calls": [{"index": 0, "id": None, "function": None}]},
            {"tool_calls": [{"index": 0, "id": None, "function": {"name": None, "arguments": '{"p": 1}'}}]},
        ],
        [A],
    ),
    "NUL in names, ids and arguments": (
        fragments(part(0, "a\x00", "re\x00ad", '"\x00"')),
        [RequestedCall("a\\u0000", "re\\u0000ad", '"\\u0000"')],
    ),
}


@pytest.mark.parametrize(("deltas", "calls"), CALLS.values(), ids=CALLS)
def test_calls_are_assembled(deltas, calls):
    assert assembled(*deltas).calls == calls


@given(st.lists(st.text(max_size=30), max_size=4), st.lists(st.integers(0, 200), max_size=8), st.booleans())
def test_arguments_cut_anywhere_are_put_together(arguments, cuts, with_index):
    deltas = []
    for i, text in enumerate(json.dumps({"text": text}) for text in arguments):
        edges = sorted({0, len(text), *(cut % len(text) for cut in cuts)})
        deltas.append(part(i if with_index else None, f"call_{i}", "write"))
        deltas += [part(i if with_index else None, None, None, text[a:b]) for a, b in pairwise(edges)]
    answer = assembled(*fragments(*deltas))
    assert [json.loads(call.arguments)["text"] for call in answer.calls] == arguments


def test_a_whole_answer_without_ids_keeps_equal_calls_apart():
    twice = [{"function": {"name": "read", "arguments": {}}}] * 2
    assembly = Assembly()
    assert assembly.add_whole({"choices": [{"message": {"content": "So", "tool_calls": twice}}]}) == "So"
    assert assembly.answer().calls == [RequestedCall("", "read", "{}")] * 2
    assert assembly.answer().finish_reason == "stop"


def test_reasoning_is_kept_apart():
    answer = assembled(
        {"reasoning_content": "hm"}, {"reasoning": " hm\x00"}, {"content": "Yes"}, {"reasoning": {"a": 1}}
    )
    assert (answer.text, answer.reasoning) == ("Yes", "hm hm\\u0000")


@pytest.mark.parametrize(
    ("delta", "text"),
    [
        ({"content": "a\x00b"}, "a\\u0000b"),
        ({"content": [{"type": "text", "text": "a"}, {"type": "image"}, "b"]}, "ab"),
        ({"refusal": "I will not."}, "I will not."),
        ({"content": ""}, ""),
        ({}, ""),
    ],
)
def test_text_is_read_from_every_shape(delta, text):
    assembly = Assembly()
    assert assembly.add(chunk(delta)) == text
    assert assembly.text() == text


@pytest.mark.parametrize(
    ("told", "usage"),
    [
        ({"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 4}, Usage(1, 2, 4)),
        ({"prompt_tokens": 1, "completion_tokens": 2}, Usage(1, 2, 3)),
        ({"prompt_tokens": "1", "completion_tokens": -2, "total_tokens": True}, Usage()),
        ({"prompt_tokens": 10**30}, Usage(2**31 - 1, 0, 2**31 - 1)),
        ([1], Usage()),
        (None, Usage()),
    ],
)
def test_usage_is_taken_where_it_makes_sense(told, usage):
    assembly = Assembly()
    assembly.add({"choices": [], "usage": told})
    assert assembly.answer().usage == usage


WRONG = {
    "a list": [],
    "text": "text",
    "null": None,
    "choices as an object": {"choices": {"delta": {}}},
    "a choice as text": {"choices": ["x"]},
    "a delta as text": {"choices": [{"delta": "x"}]},
    "content as a number": {"choices": [{"delta": {"content": 5}}]},
    "finish_reason as an object": {"choices": [{"delta": {}, "finish_reason": {}}]},
    "calls as an object": {"choices": [{"delta": {"tool_calls": {"index": 0}}}]},
    "a call as text": {"choices": [{"delta": {"tool_calls": ["x"]}}]},
    "a function as text": {"choices": [{"delta": {"tool_calls": [{"function": "x"}]}}]},
    "a name as a number": {"choices": [{"delta": {"tool_calls": [{"function": {"name": 5}}]}}]},
}


@pytest.mark.parametrize("value", WRONG.values(), ids=WRONG)
def test_wrong_types_are_garbage(value):
    with pytest.raises(LLMGarbage):
        Assembly().add(value)


def test_a_whole_answer_without_choices_is_garbage():
    for answer in ({}, {"choices": []}, {"detail": "x"}):
        with pytest.raises(LLMGarbage):
            Assembly().add_whole(answer)


KEYS = [
    *("choices", "delta", "message", "content", "tool_calls", "function", "name", "arguments", "id", "index"),
    *("usage", "error", "finish_reason", "function_call", "reasoning", "refusal", "object", "model", "code"),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6),
    max_leaves=30,
)


@given(st.lists(JSON, max_size=3), st.booleans())
def test_whatever_comes_is_an_answer_or_a_fault(values, wrapped):
    assembly = Assembly()
    try:
        for value in values:
            assembly.add({"choices": [{"delta": value}]} if wrapped else value)
        assembly.answer()
    except (LLMFault, Again):
        pass


def test_other_choices_than_the_first_are_left_out():
    assembly = Assembly()
    assert assembly.add({"choices": [{"index": 1, "delta": {"content": "no"}}]}) == ""
    assert assembly.add({"choices": [{"index": 0, "delta": {"content": "yes"}}, {"index": 0, "delta": {}}]}) == "yes"


@pytest.mark.parametrize(
    ("finish", "fault"), [("length", LLMOutputLimit), ("content_filter", LLMRefused), ("error", LLMFault)]
)
def test_a_bad_end_is_a_fault(finish, fault):
    with pytest.raises(fault):
        assembled({"content": "a"}, finish=finish)


@pytest.mark.parametrize(
    "deltas",
    [
        [{"content": "x" * 60}] * 2,
        [{"reasoning_content": "я" * 60}],
        fragments(part(0, "a", "w", "x" * 101)),
        fragments(*[part(i) for i in range(10)]),
    ],
)
def test_an_answer_is_bounded_in_all_its_parts(deltas, settings):
    settings.MAX_ANSWER_BYTES = 100
    with pytest.raises(AnswerTooLong):
        assembled(*deltas)
