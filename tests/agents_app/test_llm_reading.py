"""An answer's bytes mean the same wherever the reads cut them, also where a read is one event like those before it."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents_app.llm_assembly import Assembly
from agents_app.llm_events import EventReader, loads
from agents_app.llm_reading import Reading
from sessions_app.errors import AnswerTooLong, LLMCut, LLMGarbage

TEXTS = st.text(max_size=6) | st.sampled_from(["\n", "\r\n", "\n\n", "data: ", "\u2028", "\x00", "[DONE]", '"', "}"])
PLAIN = "data: {}\n\n"
FRAMES = st.sampled_from([PLAIN, PLAIN, PLAIN, "data:{}\n\n", "data: {}\r\n\r\n", ": ping\ndata: {}\n\n"])


class Counted:
    """Hears of reads as the bound of an attempt does."""

    def __init__(self) -> None:
        self.reads = 0

    def heard(self, reading: Reading) -> None:
        self.reads += 1


def chunk(text: str, **beside: Any) -> str:
    return json.dumps({"model": "m", "choices": [{"index": 0, "delta": {"content": text}, **beside}]})


def read(reads: list[bytes]) -> tuple[list[str], Reading, int]:
    told: list[str] = []
    reading = Reading(told.append, bound := Counted())  # type: ignore[arg-type]
    for data in reads:
        reading.feed(data)
    return told, reading, bound.reads


@given(st.data())
def test_reads_may_cut_anywhere(data: st.DataObject) -> None:
    texts = data.draw(st.lists(TEXTS, max_size=10))
    events = [data.draw(FRAMES).replace("{}", chunk(text)).encode() for text in texts]
    whole = b"".join(events)
    inside = st.integers(0, len(whole)) if whole else st.just(0)
    ends = [sum(map(len, events[: n + 1])) for n in range(len(events))]
    cuts = sorted({0, len(whole), *data.draw(st.lists(inside | st.sampled_from(ends or [0]), max_size=12))})
    told, reading, _ = read([whole[a:b] for a, b in pairwise(cuts)])
    plain = Assembly()
    assert "".join(told) == "".join(plain.add(loads(event)) for event in EventReader()._feed(whole))
    assert reading.assembly.text() == plain.text() == "".join(told)
    assert reading.events == len(texts)
    assert "" not in told
    assert reading.spoken is bool(plain.text())


def test_an_event_like_those_before_it_is_told_alone_and_the_bound_need_not_hear_of_it() -> None:
    events = [f"data: {chunk(str(n))}\n\n".encode() for n in range(5)]
    told, _, reads = read(events)
    assert told == ["0", "1", "2", "3", "4"]
    assert reads == 1  # the first, from which the others are known
    told, reading, reads = read([*events[:2], events[2] + events[3], events[4]])
    assert told == ["0", "1", "23", "4"]
    assert reading.events == 5
    assert reads == 1
    told, reading, reads = read([*events[:2], events[2] + b": alive\n\n" + events[3], events[4]])
    assert told == ["0", "1", "23", "4"]
    assert reading.events == 5
    assert reads == 2


@pytest.mark.parametrize(("text", "most_bytes"), [("5", 6), ("\x00", 36)], ids=["text", "what is written longer"])
def test_a_read_that_would_make_the_answer_too_long_is_told_up_to_there(
    settings: Any, text: str, most_bytes: int
) -> None:
    settings.MAX_ANSWER_BYTES = most_bytes
    events = [f"data: {chunk(text)}\n\n".encode()] * 9
    told: list[str] = []
    reading = Reading(told.append, Counted())  # type: ignore[arg-type]
    reading.feed(events[0])
    with pytest.raises(AnswerTooLong):
        reading.feed(b"".join(events[1:]))
    assert len("".join(told)) == most_bytes


def test_half_an_event_is_not_taken_for_one_like_those_before_it() -> None:
    first, second, third = (f"data: {chunk(text)}\n\n".encode() for text in ("a", "b", "c"))
    with pytest.raises(LLMGarbage):  # the line that was begun has what looks like an event in it
        read([first, b"data: ", second, third])
    assert read([first, b"data: " + second[6:-3], second[-3:], third])[0] == ["a", "b", "c"]


def test_nothing_is_read_after_the_end() -> None:
    said = f"data: {chunk('a')}\n\n".encode()
    told, reading, _ = read([said, said, b"data: [DONE]\n\n", said])
    assert (told, reading.done) == (["a", "a"], True)
    told, reading, _ = read([said, f"data: {chunk('', finish_reason='stop')}\n\n".encode(), said])
    assert reading.finished
    with pytest.raises(LLMCut):
        read([said])[1].end()
