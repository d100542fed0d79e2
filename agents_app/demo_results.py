"""What the demo model makes of tool results: a short summary of what came back. Imports only the demo's own modules."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from agents_app import demo_requests, demo_texts

MAX_COMPARED_LINES = 1_000
MAX_SHOWN_LINES = 5
MAX_SHOWN_CHARACTERS = 120
_REJECTED = "The user rejected this call"
_NO_RESULT = "no result"


@dataclass(frozen=True, slots=True)
class Result:
    """One tool's answer and the call it answers."""

    tool: str
    arguments: dict[str, Any] = field(default_factory=dict)
    text: str = ""

    @property
    def subject(self) -> str:
        named = (self.arguments.get(key) for key in ("path", "query", "command", "source"))
        return next((str(name) for name in named if name), self.tool)

    @property
    def value(self) -> Any:
        """The result as data where it is JSON, else its text."""
        try:
            return json.loads(self.text)
        except (ValueError, RecursionError):
            return self.text

    @property
    def lines(self) -> list[str]:
        return _body(self.value).splitlines()

    @property
    def is_rejected(self) -> bool:
        return self.text.startswith(_REJECTED)

    @property
    def is_failed(self) -> bool:
        return self.text.startswith(("Error", _NO_RESULT))


def text_of(content: object) -> str:
    """The text of a message's content: a string, or a list of parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(str(part.get("text") or "") for part in parts if isinstance(part, dict))


def collect(messages: Iterable[dict[str, Any]]) -> list[Result]:
    """The tool messages among these, in their order, joined with their calls."""
    calls: dict[str, tuple[str, dict[str, Any]]] = {}
    results = []
    for message in messages:
        for call in message.get("tool_calls") or []:
            function = call.get("function") or {}
            calls[str(call.get("id"))] = str(function.get("name")), _arguments(function.get("arguments"))
        if message.get("role") == "tool":
            name, arguments = calls.get(str(message.get("tool_call_id")), (str(message.get("name") or "tool"), {}))
            results.append(Result(name, arguments, text_of(message.get("content"))))
    return results


def _arguments(text: object) -> dict[str, Any]:
    try:
        found = json.loads(text) if isinstance(text, str) else text
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def summary(request: demo_requests.Request, results: list[Result]) -> str:
    """A few sentences on what the tools answered, refusals and failures included."""
    done = [result for result in results if not result.is_rejected and not result.is_failed]
    if request.wish == "compare" and len(done) == 2:
        return _comparison(request, *done)
    parts = [_told(request, result) for result in results]
    if request.wish == "edit" and done:
        parts.append(demo_texts.pick(request, "after_edit"))
    return "\n\n".join(parts)


def _told(request: demo_requests.Request, result: Result) -> str:
    if result.is_rejected:
        feedback = result.text.removeprefix(_REJECTED).strip(" :.\n")
        why = demo_texts.pick(request, "because", reason=_cut(feedback)) if feedback else ""
        return demo_texts.pick(request, "rejected", subject=result.subject, why=why)
    if result.is_failed:
        return demo_texts.pick(request, "failed", subject=result.subject, error=_cut(result.text))
    key = f"done_{result.tool}"
    lines = result.lines
    told = demo_texts.pick(
        request,
        key if demo_texts.knows(key) else "done_tool",
        subject=result.subject,
        count=len(lines),
        written=len(str(result.arguments.get("content", "")).splitlines()),
    )
    return told + (_excerpt(result, lines) if result.tool in _SHOWN else "")


_SHOWN = frozenset({"read_file", "list_files", "search_in_code", "execute_command"})


def _excerpt(result: Result, lines: list[str]) -> str:
    """The first lines, the last ones of a command; the fence is longer than any in a usual file."""
    if not lines:
        return ""
    shown = lines[-MAX_SHOWN_LINES:] if result.tool == "execute_command" else lines[:MAX_SHOWN_LINES]
    return "\n\n````\n" + "\n".join(_cut(line) for line in shown) + "\n````"


def _comparison(request: demo_requests.Request, first: Result, second: Result) -> str:
    a, b = first.lines, second.lines
    differing = differing_lines(a, b)
    return demo_texts.pick(
        request,
        "compared" if differing else "compared_same",
        a=first.subject,
        b=second.subject,
        a_lines=len(a),
        b_lines=len(b),
        differing=differing,
    )


def differing_lines(a: list[str], b: list[str]) -> int:
    """Lines changed, added or removed between two files; only the first thousand of each are aligned."""
    aligned_a, aligned_b = a[:MAX_COMPARED_LINES], b[:MAX_COMPARED_LINES]
    matcher = difflib.SequenceMatcher(None, aligned_a, aligned_b, autojunk=False)
    blocks = (max(i2 - i1, j2 - j1) for tag, i1, i2, j1, j2 in matcher.get_opcodes() if tag != "equal")
    return sum(blocks) + _unaligned(a[MAX_COMPARED_LINES:], b[MAX_COMPARED_LINES:])


def _unaligned(a: list[str], b: list[str]) -> int:
    return sum(one != other for one, other in zip(a, b, strict=False)) + abs(len(a) - len(b))


def _body(value: Any, layers: int = 3) -> str:
    """The text inside a result: a client may wrap it in an object, or send a list."""
    if isinstance(value, dict) and layers:
        for key in ("content", "output", "stdout", "files", "entries", "items", "matches", "results", "result"):
            if key in value:
                return _body(value[key], layers - 1)
    if isinstance(value, list):
        return "\n".join(_item(item) for item in value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _item(item: Any) -> str:
    if isinstance(item, dict):
        named = next((str(item[key]) for key in ("path", "file", "name") if key in item), None)
        if named is not None:
            return named + "".join(f":{item[key]}" for key in ("line", "line_number") if key in item)
    return item if isinstance(item, str) else json.dumps(item, ensure_ascii=False)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_SHOWN_CHARACTERS else text[:MAX_SHOWN_CHARACTERS] + "…"
