import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents_app.llm_events import MAX_EVENT_BYTES, EventReader, loads
from sessions_app.errors import LLMGarbage

STREAMS = {
    "one event": (b"data: a\n\n", [b"a"]),
    "no space after the colon": (b"data:a\n\n", [b"a"]),
    "only one space is framing": (b"data:  a b\n\n", [b"a b"]),
    "CRLF": (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
    "CR alone": (b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
    "data of many lines": (b"data: {\ndata: }\n\n", [b"{\n}"]),
    "an extra empty data line": (b"data:\ndata: a\n\n", [b"a"]),
    "an empty event": (b"data:\n\ndata\n\ndata: a\n\n", [b"a"]),
    "comments": (b": ping\n\n:\ndata: a\n: in between\ndata: b\n\n", [b"a\nb"]),
    "other fields": (b"event: x\nid: 1\nretry: 10\ndatabase: no\ndata: a\n\n", [b"a"]),
    "a block without data": (b"retry: 1000\n\ndata: a\n\n", [b"a"]),
    "a BOM first": (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
    "blank lines first": (b"\n\n\r\n\ndata: a\n\n", [b"a"]),
    "separators that only str.splitlines knows": (
        "data: \u2028\u2029\u0085\x0b\x0c\x1c\n\n".encode(),
        ["\u2028\u2029\u0085\x0b\x0c\x1c".encode().strip()],
    ),
    "the last blank line is missing": (b"data: a\n\ndata: b\n", [b"a"]),
}


@pytest.mark.parametrize(("data", "events"), STREAMS.values(), ids=STREAMS)
def test_events_are_the_same_whole_and_byte_by_byte(data, events):
    assert EventReader().feed(data) == events
    reader = EventReader()
    assert [event for i in range(len(data)) for event in reader.feed(data[i : i + 1])] == events


def test_the_end_completes_an_event_whose_blank_line_is_missing():
    for data in (b"data: b", b"data: b\n", b"data: b\r"):
        reader = EventReader()
        assert reader.feed(data) == []
        assert reader.end() == [b"b"]


@given(st.lists(st.text(max_size=20), max_size=5), st.lists(st.integers(0, 300)), st.sampled_from(["\n", "\r\n", "\r"]))
def test_any_text_cut_at_any_bytes_reads_the_same(texts, cuts, line_end):
    stream = "".join(f"data: {json.dumps(text, ensure_ascii=False)}{line_end * 2}" for text in texts)
    data = stream.encode("utf-8", "surrogatepass")
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    reader = EventReader()
    events = [event for start, end in pairwise(edges) for event in reader.feed(data[start:end])]
    assert [loads(event) for event in events] == texts


@pytest.mark.parametrize("step", [1000, 100_000, 10_000_000])
def test_an_event_without_end_is_refused(step):
    reader = EventReader()
    with pytest.raises(LLMGarbage):
        [reader.feed(b"data: " + b"x" * step) for _ in range(0, 10_000_000, step)]


def test_an_event_as_big_as_allowed_is_read_in_pieces():
    data = b"data: " + b"x" * (MAX_EVENT_BYTES - 6) + b"\n\n"
    reader = EventReader()
    for _ in range(3):
        events = [event for i in range(0, len(data), 65_536) for event in reader.feed(data[i : i + 65_536])]
        assert [len(event) for event in events] == [MAX_EVENT_BYTES - 6]


def test_comments_alone_never_fill_the_reader():
    reader = EventReader()
    for _ in range(100):
        assert reader.feed(b": " + b"x" * 50_000) == []
        assert reader.feed(b"\n") == []


def test_an_event_is_begun_by_data_and_not_by_a_comment():
    reader = EventReader()
    reader.feed(b": pi")
    assert not reader.begun
    reader.feed(b"ng\n\nd")
    assert reader.begun


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (rb'{"a": "\ud83d\ude00"}', {"a": "\U0001f600"}),
        (rb'{"a": "x\ud83dy"}', {"a": "x\ufffdy"}),
        (rb'{"\udc00": ["\udc00", 1]}', {"\ufffd": ["\ufffd", 1]}),
        (b'{"a": "\xff"}', {"a": "\ufffd"}),
        (b'{"arguments": {"n": 123456789012345678901234567890}}', {"arguments": {"n": 123456789012345678901234567890}}),
    ],
)
def test_json_is_read_as_far_as_text_can_be_kept(data, value):
    assert loads(data) == value


@pytest.mark.parametrize("data", [b"", b"{", b"\x00\xff", b"<html>", b"[" * 100_000, b'{"a":' * 5000])
def test_what_is_no_json_is_garbage(data):
    with pytest.raises(LLMGarbage):
        loads(data)
