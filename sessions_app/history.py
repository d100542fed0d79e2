"""The history as the model sees it: built here alone, from stored rows, always valid for a strict provider.

Every assistant message with tool calls is followed by exactly one tool message for each, in the order of the calls.
A call without an answer gets one that says so; an answer without its call is left out, and so is an empty assistant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

from sessions_app import strict_json
from sessions_app.models import Message, Session
from sessions_app.prepared import Select, Slot

NO_RESULT = "no result; it is not known whether it ran"
CUT_CHARACTERS = 2_000
LEAST_CHARACTERS = 200
MARK_CHARACTERS = 64  # what says how much was left out, as JSON: to leave out less would make a text longer

Entry = dict[str, Any]


class Row(NamedTuple):
    """What the model sees of a stored message; a Message has it all too."""

    number: int
    role: str
    content: str
    tool_call_id: str | None
    tool_calls: list[dict[str, Any]] | None
    agent: str


_row: Callable[[tuple[Any, ...]], Row] = partial(tuple.__new__, Row)  # as `Row._make`, which is a call in Python
_ROWS = Select[tuple[Any, ...]](
    lambda: (
        Message.objects.filter(session=Slot("session"), in_context=True).order_by("number").values_list(*Row._fields)
    )
)


def load(session: Session) -> list[Row]:
    """The messages that go up, oldest first: one statement."""
    return list(map(_row, _ROWS.all(session=session.id)))


def build(rows: Iterable[Row | Message]) -> list[Entry]:
    """OpenAI's messages, without the system message."""
    rows = list(rows)
    user, assistant, tool = Message.USER, Message.ASSISTANT, Message.TOOL  # asked of the model, each is a long way
    answers = {row.tool_call_id: row for row in rows if row.role == tool}
    entries: list[Entry] = []
    for row in rows:
        role, content = row.role, row.content
        if role == user:
            entries.append({"role": "user", "content": content})
        elif role == assistant and (calls := row.tool_calls):
            entries.append({"role": "assistant", "content": content or None, "tool_calls": calls})
            entries.extend(_answer(call["id"], answers.get(call["id"])) for call in calls)
        elif role == assistant and content:
            entries.append({"role": "assistant", "content": content})
    return entries


def _answer(call_id: str, row: Row | Message | None) -> Entry:
    return {"role": "tool", "tool_call_id": call_id, "content": row.content if row else NO_RESULT}


def exchanges(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Each user message with all that followed it. What stands before the first user message is one of its own."""
    parts: list[list[Entry]] = []
    for entry in entries:
        if entry["role"] == "user" or not parts:
            parts.append([])
        parts[-1].append(entry)
    return parts


def size(entries: Iterable[Entry]) -> int:
    """Characters, roughly: what counts is that the same history gives the same number."""
    return sum(
        len(entry.get("content") or "")
        + sum(len(call["function"]["arguments"]) + 50 for call in entry.get("tool_calls") or ())
        + 20
        for entry in entries
    )


def trimmed(entries: Sequence[Entry], most: int) -> list[Entry]:
    """The newest whole exchanges of at most `most` characters; the newest always, made smaller if need be."""
    *older, newest = exchanges(entries) or [[]]
    room = most - size(newest)
    if room < 0:
        return _squeezed(newest, most)
    first = len(older)
    while first and (room := room - size(older[first - 1])) >= 0:
        first -= 1
    return [entry for part in (*older[first:], newest) for entry in part]


def _squeezed(exchange: Sequence[Entry], most: int) -> list[Entry]:
    """One exchange made smaller: its long texts are cut, then its oldest calls are left out with their results, and
    then what is left is cut to equal shares. The question and the newest calls stay."""
    parts = _steps([_shortened(entry, CUT_CHARACTERS) for entry in exchange])
    first = parts.pop(0) if parts[0][0]["role"] == "user" else []
    while len(parts) > 1 and size(first) + sum(map(size, parts)) > most:
        parts.pop(0)
    left = [*first, *(entry for part in parts for entry in part)]
    if size(left) <= most:
        return left
    return [_shortened(entry, max(most // len(left), LEAST_CHARACTERS)) for entry in left]


def _steps(entries: Sequence[Entry]) -> list[list[Entry]]:
    """What cannot be parted: a question alone, an assistant's message with the results of its calls."""
    parts: list[list[Entry]] = []
    for entry in entries:
        if entry["role"] != "tool" or not parts:
            parts.append([])
        parts[-1].append(entry)
    return parts


def _shortened(entry: Entry, most: int) -> Entry:
    """The same entry, its text and the texts in its calls' arguments cut to about `most` characters each."""
    short = {**entry, "content": _cut(entry["content"], most)} if entry.get("content") else entry
    if not entry.get("tool_calls"):
        return short
    return {**short, "tool_calls": [_shortened_call(call, most) for call in entry["tool_calls"]]}


def _shortened_call(call: Entry, most: int) -> Entry:
    function = call["function"]
    if len(function["arguments"]) <= most:
        return call
    arguments = {
        key: _cut(value, most) if isinstance(value, str) else value
        for key, value in strict_json.loads(function["arguments"]).items()
    }
    return {**call, "function": {**function, "arguments": strict_json.dumps(arguments)}}


def _cut(text: str, most: int) -> str:
    half = most // 2
    if len(text) - 2 * half <= MARK_CHARACTERS:
        return text
    return f"{text[:half]}\n[… {len(text) - 2 * half} characters left out …]\n{text[-half:]}"
