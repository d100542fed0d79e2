"""Nearly all chunks of an answer differ in their text alone. What stands around the text is learnt from one of them;
of those that begin and end like it only the text is read, which costs a fraction of the whole JSON. Pure.

Exact, not a guess: a parser that has come to where a value belongs goes on after any string in the same way. So a
chunk that is the known one, but for one whole JSON string in the place of the text, means the same but for its text.
"""

from __future__ import annotations

from typing import Any

import orjson

LESSONS = 4  # of chunks that change from one to the next nothing is to be learnt: not tried for ever
PROBE = "likeness"
QUOTE = b'"'
_Around = tuple[bytes, bytes]
"""What stands before and after the letters of a text, its quotes too."""
UNKNOWN: _Around = b"", b""


def _around(before: bytes, after: bytes) -> _Around:
    return before + QUOTE, QUOTE + after


def text_within(data: bytes, before: bytes, after: bytes) -> str | None:
    """The text of what begins and ends so; None where it does not. An event with its framing is then one, and whole:
    a string of JSON holds no line break."""
    if not before or not data.startswith(before) or not data.endswith(after):
        return None
    try:
        text: str = orjson.loads(data[len(before) - 1 : 1 - len(after)])  # in quotes: a string, if it is one value
    except orjson.JSONDecodeError:
        return None
    return text


def text_of_all(events: list[bytes], before: bytes, after: bytes) -> str | None:
    """The texts of events that all begin and end so, one after the other, read in one go; None where one does not, or
    may not.

    Their texts stand in one JSON array. Exact as well: each has its two quotes, none escapes the second, and each
    quote too many within one makes one string more.
    """
    if not before:
        return None
    first, last, least = len(before) - 1, 1 - len(after), len(before) + len(after)
    quoted = [
        event[first:last]
        for event in events
        if event.startswith(before) and event.endswith(after) and len(event) >= least
    ]
    together = b",".join(quoted)
    if len(quoted) != len(events) or b'\\","' in together:
        return None
    try:
        texts = orjson.loads(b"[%b]" % together)
        return "".join(texts) if len(texts) == len(events) else None
    except (orjson.JSONDecodeError, TypeError):  # no JSON, or no strings alone
        return None


class Likeness:
    """What the plain chunks of one answer have in common, as soon as it is known."""

    __slots__ = ("_lessons", "bare", "framed")

    def __init__(self) -> None:
        self.bare = self.framed = UNKNOWN  # `framed`: of an event with its framing
        self._lessons = LESSONS

    def text_in(self, chunk: bytes) -> str | None:
        """The text of a chunk that is like the known one; None for any other."""
        return text_within(chunk, *self.bare)

    def learn(self, event: bytes, chunk: dict[str, Any], delta: dict[str, Any]) -> None:
        """Takes as the known one this chunk, of which nothing counts but `content` in its `delta`."""
        if not self._lessons or delta["content"] == PROBE:
            return
        self._lessons -= 1
        before, text, after = event.partition(orjson.dumps(delta["content"]))
        if not text or not after:
            return
        delta["content"] = PROBE
        try:
            same = orjson.loads(before + orjson.dumps(PROBE) + after) == chunk
        except orjson.JSONDecodeError:
            same = False
        if same:
            self.bare = _around(before, after)
            in_one_line = b"\n" not in event and b"\r" not in event
            self.framed = _around(b"data: " + before, after + b"\n\n") if in_one_line else UNKNOWN

    def forget(self) -> None:
        """What was known does not hold any more."""
        self.bare = self.framed = UNKNOWN
