"""Server-sent events out of bytes that were cut anywhere, and JSON out of events. Pure; imports only the errors."""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

from sessions_app.errors import LLMGarbage

MAX_EVENT_BYTES = 2 * 1024 * 1024
BOM = b"\xef\xbb\xbf"
_ARGUMENTS_AS_OBJECT = re.compile(rb'"arguments"\s*:\s*[\[{]')


class EventReader:
    """The data of each complete event; comments, other fields and events without data are left out.

    Lines are split in bytes, at LF, CR and CRLF only: U+2028 and its like, which `str.splitlines` would cut at, stay
    text, and a character that was cut in two is whole again before anything is decoded.
    """

    __slots__ = ("_after_cr", "_data", "_first_line", "_held_bytes", "_pieces")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []  # of the line that has not ended
        self._data: list[bytes] = []  # the data lines of the event that has not ended
        self._held_bytes = 0
        self._after_cr = False
        self._first_line = True

    @property
    def begun(self) -> bool:
        """An event is under way: something came that is not a comment."""
        return bool(self._data) or (bool(self._pieces) and not self._pieces[0].startswith(b":"))

    @property
    def is_between(self) -> bool:
        """Nothing is held: what comes next begins an event."""
        return not (self._pieces or self._data or self._after_cr or self._first_line)

    def feed(self, data: bytes) -> list[bytes]:
        if data.startswith(b"data: ") and data.endswith(b"\n\n") and not self._after_cr and len(data) < MAX_EVENT_BYTES:
            events = data[6:-2].split(b"\n\ndata: ")
            # As nearly all reads: whole events of one line each, and nothing held from before.
            if data.count(b"\n") == 2 * len(events) and b"\r" not in data and not self._pieces and not self._data:
                self._first_line = False
                return [event for one in events if (event := one.strip())]
        return self._feed(data)

    def _feed(self, data: bytes) -> list[bytes]:
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]
            self._after_cr = False
        if not data:
            return []
        self._after_cr = data.endswith(b"\r")
        lines = data.splitlines()
        rest = b"" if data.endswith((b"\n", b"\r")) else lines.pop()
        if lines and self._pieces:
            self._held_bytes -= sum(map(len, self._pieces))
            lines[0] = b"".join([*self._pieces, lines[0]])
            self._pieces.clear()
        events = self._events(lines)
        if rest:
            self._hold(self._pieces, rest)
        return events

    def end(self) -> list[bytes]:
        """What a body that ended without the last blank line still held."""
        return self.feed(b"\n\n")

    def _events(self, lines: list[bytes]) -> list[bytes]:
        """One loop without a call for each line: in a fast answer most of a token's cost is here and in its JSON."""
        if lines and self._first_line:
            lines[0], self._first_line = lines[0].removeprefix(BOM), False
        events, data = [], self._data
        for line in lines:
            if line.startswith(b"data: "):
                self._hold(data, line[6:])
            elif line.startswith(b"data:"):
                self._hold(data, line[5:])
            elif not line and data:
                if event := (data[0] if len(data) == 1 else b"\n".join(data)).strip():
                    events.append(event)
                data.clear()
                self._held_bytes = 0
        return events

    def _hold(self, where: list[bytes], data: bytes) -> None:
        self._held_bytes += len(data)
        if self._held_bytes > MAX_EVENT_BYTES:
            raise LLMGarbage(reason="event too big")
        where.append(data)


def loads(data: bytes) -> Any:
    """JSON, as tolerantly as text can be kept: broken UTF-8 and lone surrogates become U+FFFD."""
    if b'"arguments"' in data and _ARGUMENTS_AS_OBJECT.search(data):
        return _loads_slowly(data)  # orjson would turn a 30-digit number into a float
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return _loads_slowly(data)


def _loads_slowly(data: bytes) -> Any:
    try:
        return _without_surrogates(json.loads(data.decode("utf-8", "replace")))
    except (ValueError, RecursionError):
        raise LLMGarbage(reason="no JSON") from None


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    return value
