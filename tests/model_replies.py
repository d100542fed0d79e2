"""What the scripted model of `model_server` may say, and the ways in which it may fail."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

JSON = dict[str, Any]
USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
FIVE_WORDS = "one two three four five"


class Gate:
    """A point in a reply where the server waits until the test calls `open()`; `reached` tells that it got there."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self._opened = threading.Event()
        self._wakers: list[Callable[[], object]] = []

    def open(self) -> None:
        self._opened.set()
        for wake in self._wakers:
            wake()

    async def arrived(self, timeout_seconds: float = 30) -> None:
        """For the test: returns once the server waits here."""
        if not await asyncio.to_thread(self.reached.wait, timeout_seconds):
            raise AssertionError("the model server never got to this gate")

    async def passed(self) -> None:
        """For the server."""
        loop, woken = asyncio.get_running_loop(), asyncio.Event()
        self._wakers.append(lambda: loop.call_soon_threadsafe(woken.set))
        self.reached.set()
        if not self._opened.is_set():
            await woken.wait()


class Cut:
    """A point in a reply where the connection is reset."""


class Pause(float):
    """Seconds of silence; for the tests of time bounds only."""


Part = JSON | bytes | Gate | Cut | Pause  # a JSON object goes out as one event, bytes as they are


@dataclass(frozen=True)
class Reply:
    parts: Sequence[Part]
    status: int = 200
    headers: JSON = field(default_factory=dict)
    content_type: str = "text/event-stream"
    before_head: Gate | None = None

    def held(self, gate: Gate) -> Reply:
        """The same, but not even its head is sent before the gate opens."""
        return replace(self, before_head=gate)


# What a model may say


def chunk(delta: JSON, finish: str | None = None, **extra: Any) -> JSON:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "scripted", "choices": [choice], **extra}


def chunks(
    deltas: Iterable[Part], *, finish: str | None = "stop", usage: JSON | None = USAGE, done: bool = True
) -> Reply:
    """Deltas (other parts stay where they are), the finish reason, usage in a chunk without choices, [DONE]."""
    parts: list[Part] = [chunk(part) if isinstance(part, dict) else part for part in deltas]
    parts += [chunk({}, finish)] if finish else []
    parts += [chunk({}, choices=[], usage=usage)] if usage else []
    return Reply(parts + ([b"data: [DONE]\n\n"] if done else []))


def text(*pieces: str | Gate, reasoning: str = "", **ending: Any) -> Reply:
    return chunks([*_words(reasoning, key="reasoning_content"), *_say(pieces)], **ending)


def tool_calls(calls: Iterable[tuple[str, str, str]], text: str = "", **ending: Any) -> Reply:
    """Parallel calls (id, name, arguments as text), each in three fragments."""
    deltas = [delta for index, call in enumerate(calls) for delta in _call_fragments(index, *call)]
    return chunks([*_words(text), *deltas], **{"finish": "tool_calls", **ending})


def function_call(name: str, arguments: str) -> Reply:
    """The shape that OpenAI had before tools."""
    head, tail = {"name": name, "arguments": ""}, {"arguments": arguments}
    return chunks([{"function_call": head}, {"function_call": tail}], finish="function_call")


def verdict(agent: str, confidence: str = "high", reasoning: str = "because") -> Reply:
    return text(json.dumps({"agent": agent, "confidence": confidence, "reasoning": reasoning}))


# How a model may fail


def status(code: int, headers: JSON | None = None, body: Any = None) -> Reply:
    content = body if body is not None else {"error": {"message": f"status {code}", "type": "scripted", "code": None}}
    return Reply([json.dumps(content).encode()], code, headers or {}, "application/json")


def hang_before_head() -> Reply:
    return text("never").held(Gate())


def hang_after(words: int, content: str = FIVE_WORDS) -> Reply:
    return _unfinished([*_words(content)[:words], Gate()])


def cut_after(words: int, content: str = FIVE_WORDS) -> Reply:
    return _unfinished([*_words(content)[:words], Cut()])


def cut_mid_event(content: str = FIVE_WORDS) -> Reply:
    return _unfinished([*_words(content), event_bytes(chunk({"content": "lost"}))[:-20], Cut()])


def end_after(words: int, content: str = FIVE_WORDS) -> Reply:
    """A body that ends well-formed, but before the model has finished."""
    return _unfinished(_words(content)[:words])


def garbage() -> Reply:
    return Reply([b"\x00\xff\xfe not an event stream \x80\n\n" * 20])


def html() -> Reply:
    return Reply([b"<html><body><h1>502 Bad Gateway</h1></body></html>"], content_type="text/html")


def huge_event(size_bytes: int = 10_000_000) -> Reply:
    return _unfinished([{"content": "x" * size_bytes}])


def error_in_stream(error: Any, content: str = "") -> Reply:
    return Reply([*_unfinished(_words(content)).parts, {"error": error}])


def _unfinished(deltas: Iterable[Part]) -> Reply:
    return chunks(deltas, finish=None, usage=None, done=False)


# How a reply may be framed


def noisy(reply: Reply) -> Reply:
    """Comments, an empty `data:` line in every event, other fields, CRLF."""
    frame = b": ping\r\n\r\nevent: message\r\nid: 7\r\nretry: 10\r\ndata:\r\n%s\r\n\r\n"
    parts = [frame % event_bytes(part).strip() if isinstance(part, dict) else part for part in reply.parts]
    return replace(reply, parts=[b"\xef\xbb\xbfretry: 1000\r\n\r\n", *parts])


def drip(reply: Reply, *, every_seconds: float = 0) -> Reply:
    """One byte at a time."""
    parts: list[Part] = []
    for part in reply.parts:
        data = event_bytes(part) if isinstance(part, dict) else part
        pieces = [data[i : i + 1] for i in range(len(data))] if isinstance(data, bytes) else [data]
        parts += [bit for piece in pieces for bit in (piece, Pause(every_seconds))]
    return replace(reply, parts=parts)


def event_bytes(data: JSON) -> bytes:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n".encode("utf-8", "backslashreplace")


def _words(content: str, key: str = "content") -> list[Part]:
    return [{key: word} for word in re.findall(r"\S+\s*|\s+", content)]


def _say(pieces: Iterable[str | Gate]) -> list[Part]:
    return [part for piece in pieces for part in (_words(piece) if isinstance(piece, str) else [piece])]


def _call_fragments(index: int, call_id: str, name: str, arguments: str) -> list[JSON]:
    middle = len(arguments) // 2
    opening = {"index": index, "id": call_id, "type": "function", "function": {"name": name, "arguments": ""}}
    rest = [{"index": index, "function": {"arguments": part}} for part in (arguments[:middle], arguments[middle:])]
    return [{"tool_calls": [fragment]} for fragment in (opening, *rest)]


def completion(events: Iterable[JSON]) -> JSON:
    """What the events say, as the one object of an answer that does not stream."""
    message: JSON = {"role": "assistant", "content": ""}
    whole: JSON = {"id": "chatcmpl-1", "object": "chat.completion", "model": "scripted", "usage": None}
    finish = None
    for event in events:
        if "error" in event:
            return event
        whole["usage"] = event.get("usage") or whole["usage"]
        for choice in event["choices"]:
            finish = choice["finish_reason"] or finish
            _merge(message, choice["delta"])
    return {**whole, "choices": [{"index": 0, "message": message, "finish_reason": finish}]}


def _merge(message: JSON, delta: JSON) -> None:
    for fragment in delta.get("tool_calls") or []:
        calls = message.setdefault("tool_calls", [])
        while len(calls) <= fragment.get("index", 0):
            calls.append({"function": {"name": "", "arguments": ""}})
        call = calls[fragment.get("index", 0)]
        call.update({key: fragment[key] for key in ("id", "type") if key in fragment})
        _append(call["function"], fragment.get("function") or {})
    if "function_call" in delta:
        _append(message.setdefault("function_call", {"name": "", "arguments": ""}), delta["function_call"])
    _append(message, {key: delta[key] for key in ("content", "reasoning_content") if key in delta})


def _append(target: JSON, texts: JSON) -> None:
    for key, value in texts.items():
        target[key] = (target.get(key) or "") + value if isinstance(value, str) else value
