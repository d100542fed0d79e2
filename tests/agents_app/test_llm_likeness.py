"""Chunks whose text alone is read mean what they mean when the whole of them is."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents_app.llm_assembly import Assembly
from agents_app.llm_events import loads
from agents_app.llm_likeness import LESSONS, Likeness


def event(content: Any, *, compact: bool = True, ascii_only: bool = True, model: str = "m", **beside: Any) -> bytes:
    chunk = {
        "id": "content",
        "model": model,
        "choices": [{"index": 0, "delta": {"content": content}, "finish_reason": None, **beside}],
        "system_fingerprint": "delta",
    }
    separators = (",", ":") if compact else (", ", ": ")
    return json.dumps(chunk, ensure_ascii=ascii_only, separators=separators).encode("utf-8", "surrogatepass")


def both_ways(events: list[bytes]) -> tuple[list[str], Any]:
    """What the events say, having made sure that it is the same when each is read whole."""
    quick, whole = Assembly(), Assembly()
    texts = [quick.add_event(one) for one in events]
    assert texts == [whole.add(loads(one)) for one in events]
    assert quick.answer() == whole.answer()
    return texts, quick.answer()


@given(st.lists(st.text(max_size=12), max_size=8), st.booleans(), st.booleans())
def test_any_texts_are_read_as_they_are(texts: list[str], compact: bool, ascii_only: bool) -> None:
    both_ways([event(text, compact=compact, ascii_only=ascii_only) for text in texts])


@given(st.data())
def test_any_bytes_in_the_place_of_the_text_mean_what_they_mean(data: st.DataObject) -> None:
    before, after = event("MARK").split(b'"MARK"')
    some = [b'"', b"\\", b"\\u0000", b"a", b",", b":", b"{", b"}", b"null", b" ", b'"content"', b"\xff"]
    pieces = st.sampled_from(some)
    middle = b"".join(data.draw(st.lists(pieces, max_size=8)))
    known, mine = Assembly(), Assembly()
    known.add_event(event("first"))
    mine.add_event(event("first"))
    try:
        whole = known.add(loads(before + middle + after))
    except Exception as error:
        with pytest.raises(type(error)):
            mine.add_event(before + middle + after)
    else:
        assert mine.add_event(before + middle + after) == whole
        assert mine.text() == known.text()


PIECES = (
    b'"',
    b"\\",
    b"\\u0000",
    b"\\n",
    b"\n",
    b"a",
    b",",
    b":",
    b"[",
    b"]",
    b"{",
    b"}",
    b"1",
    b" ",
    b'","',
    b"\xff",
    b"MARK",
)


@given(st.data())
def test_several_at_once_mean_what_each_of_them_means(data: st.DataObject) -> None:
    before, after = event("MARK").split(b"MARK")
    middle = st.lists(st.sampled_from(PIECES), max_size=4).map(b"".join)
    made = middle.map(lambda one: one if one == b"MARK" else before + one + after)
    events = data.draw(st.lists(made | st.just(before + after[1:]), max_size=6))  # the last: one quote for two
    several, each = Assembly(), Assembly()
    for one in (several, each):
        one.add_event(event("first"))
    count, text = several.add_alike(events)
    assert count in (0, *range(max(len(events) - 4, 2), len(events) + 1))
    assert text == "".join(each.add_event(one) for one in events[:count])
    assert several.text() == each.text()


@given(st.lists(st.text(max_size=12), min_size=2, max_size=8), st.booleans(), st.booleans(), st.integers(0, 4))
def test_several_texts_are_read_at_once_whatever_ends_the_answer(
    texts: list[str], compact: bool, ascii_only: bool, ends: int
) -> None:
    events = [event(text, compact=compact, ascii_only=ascii_only) for text in texts]
    assembly, each = Assembly(), Assembly()
    for one in (assembly, each):
        one.add_event(event("first", compact=compact, ascii_only=ascii_only))
    count, text = assembly.add_alike([*events, *[b"[DONE]"] * ends])
    halves = any("\ud800" <= one <= "\udfff" for text in texts for one in text)  # of a character: read slowly
    if not halves and not any(text.endswith("\\") for text in texts):
        assert count == len(events)
    assert count in (0, len(events))
    assert text == "".join(each.add_event(one) for one in events[:count])


def test_two_wrongs_make_no_right() -> None:
    before, after = event("MARK").split(b"MARK")
    assembly = Assembly()
    assembly.add_event(event("first"))
    short = before + after[1:]  # its text has one quote alone
    assert assembly.add_alike([short, before + b',"x",' + after, short]) == (0, "")  # as an array: three strings
    assert assembly.add_alike([before + b"a\\" + after, before + b'b","c' + after]) == (0, "")
    assert assembly.add_alike([before + b'a",["b' + after, event("c"), before + b'd"],"e' + after]) == (0, "")


def test_several_are_looked_at_one_by_one_where_the_answer_may_grow_too_long(settings: Any) -> None:
    settings.MAX_ANSWER_BYTES = 20
    assembly = Assembly()
    assembly.add_event(event("first"))
    assert assembly.add_alike([event("a"), event("b")]) == (2, "ab")
    assert assembly.add_alike([event("c"), event("d"), event("e")]) == (0, "")
    assert assembly.text() == "firstab"


def test_of_what_is_alike_the_text_alone_is_read() -> None:
    likeness, first = Likeness(), event("one")
    chunk = loads(first)
    assert likeness.text_in(first) is None
    likeness.learn(first, chunk, chunk["choices"][0]["delta"])
    assert likeness.text_in(event("two\n\u00e9\u2028")) == "two\n\u00e9\u2028"
    assert likeness.text_in(event(None)) is None
    assert likeness.text_in(event(1)) is None
    assert likeness.text_in(event("two", logprobs=None)) is None
    assert likeness.text_in(event("two", model="other")) is None
    likeness.forget()
    assert likeness.text_in(event("two")) is None


def test_a_text_that_stands_elsewhere_too_is_not_taken_for_that() -> None:
    events = [event(text) for text in ("content", "delta", "m", "id", "", "a", "content")]
    texts, _ = both_ways(events)
    assert texts == ["content", "delta", "m", "id", "", "a", "content"]


def refusal(text: str, **beside: Any) -> bytes:
    chunk = orjson.loads(event("x"))
    chunk["choices"][0]["delta"] = {"refusal": text, **beside}
    return orjson.dumps(chunk)


def test_a_refusal_is_text_and_is_read_whole() -> None:
    events = [refusal("I "), refusal("cannot", content="a "), event("b"), event("c"), refusal(" do it")]
    texts, _ = both_ways(events)
    assert texts == ["I ", "a cannot", "b", "c", " do it"]


def test_a_chunk_that_ends_the_answer_stands_for_no_other() -> None:
    ends = [orjson.loads(event("a")) for _ in range(4)]
    for chunk, reason in zip(ends, ("stop", "stop", "length", "stop"), strict=True):
        chunk["choices"][0]["finish_reason"] = reason
    _, answer = both_ways([orjson.dumps(chunk) for chunk in ends])
    assert (answer.finish_reason, answer.text) == ("stop", "aaaa")


def test_the_probe_itself_may_be_said() -> None:
    ids = [event("likeness").replace(b'"id":"content"', b'"id":"%s"' % name) for name in (b"likeness", b"other")]
    texts, _ = both_ways(ids)
    assert texts == ["likeness", "likeness"]


def test_more_than_a_text_in_its_place_is_read_whole() -> None:
    before, after = event("MARK").split(b'"MARK"')
    events = [event("one"), before + b'"two","content":"three"' + after, before + b'"a","tool_calls":[]' + after]
    texts, _ = both_ways(events)
    assert texts == ["one", "three", "a"]


def test_the_last_model_named_is_the_answers() -> None:
    _, answer = both_ways([event("a"), event("b"), event("c", model="n"), event("d"), event("e")])
    assert answer.model == "m"


def test_a_null_character_is_written_out() -> None:
    texts, answer = both_ways([event("a"), event("b\x00")])
    assert texts[1] == "b\\u0000"
    assert answer.text == "ab\\u0000"


def test_what_changes_with_each_chunk_is_read_whole() -> None:
    events = [event(f"t{number}", obfuscation="x" * number) for number in range(LESSONS + 4)]
    texts, _ = both_ways(events)
    assert texts == [f"t{number}" for number in range(LESSONS + 4)]


def test_usage_and_the_finish_reason_count_wherever_they_stand() -> None:
    last = orjson.loads(event("b"))
    last["usage"] = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    last["choices"][0]["finish_reason"] = "stop"
    _, answer = both_ways([orjson.dumps(last), event("a"), orjson.dumps(last)])
    assert (answer.usage.total_tokens, answer.finish_reason, answer.text) == (3, "stop", "bab")


def framed(chunk: bytes) -> bytes:
    return b"data: " + chunk + b"\n\n"


def test_an_event_with_its_framing_is_one_and_whole() -> None:
    assembly = Assembly()
    assembly.add_event(event("one"))
    known = framed(event("two"))
    assert assembly.add_framed(known) == "two"
    for other in (
        known[:-1],  # half of the blank line
        known + b"\n",
        b" " + known,
        known * 2,
        framed(event("two", model="other")),
        known.replace(b'"two"', b'"two" \n'),  # JSON would have it, an event has ended there
        known.replace(b'"two"', b'"t\nwo"'),
        known.replace(b'"two"', b'"'),  # one quote is not two
        known.replace(b'"two"', b'"t","content":"wo"'),
        b"",
    ):
        assert assembly.add_framed(other) is None
    assert assembly.text() == "onetwo"


def test_of_what_came_in_several_lines_no_framing_is_learnt() -> None:
    chunk = event("one", compact=False).replace(b", ", b",\n", 1)
    assembly = Assembly()
    assert assembly.add_event(chunk) == "one"
    assert assembly.add_framed(framed(chunk)) is None
    assert assembly.add_event(chunk) == "one"
