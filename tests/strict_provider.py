"""The rules of a provider that refuses a history for the smallest fault."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

JSON = dict[str, Any]


def strict(messages: list[JSON]) -> list[str]:
    """Complaints about a history; none: every provider takes it."""
    complaints = [f"message {i}: {why}" for i, message in enumerate(messages) for why in _shape(message)]
    if [i for i, message in enumerate(messages) if message.get("role") == "system"] != [0]:
        complaints.append("exactly one system message must come first")
    return complaints + _unanswered(messages)


def _shape(message: JSON) -> Iterator[str]:
    role, content, calls = message.get("role"), message.get("content"), message.get("tool_calls")
    if role not in ("system", "user", "assistant", "tool"):
        yield f"unknown role {role!r}"
    if not isinstance(content, str) and not (content is None and role == "assistant" and calls):
        yield f"content of {role} is {content!r}"
    if content == "" and not calls and role != "tool":
        yield f"empty {role} message"
    if "tool_calls" in message and (role != "assistant" or not calls):
        yield "tool_calls empty or not the assistant's"
    for call in calls or []:
        yield from _call_shape(call)


def _call_shape(call: JSON) -> Iterator[str]:
    function = call.get("function") or {}
    if call.get("type") != "function" or not call.get("id") or not function.get("name"):
        yield f"call without id, type or name: {call!r}"
    try:
        if not isinstance(json.loads(function["arguments"]), dict):
            yield f"arguments of {call.get('id')!r} are no object"
    except (KeyError, TypeError, ValueError):
        yield f"arguments of {call.get('id')!r} are no JSON"


def _unanswered(messages: list[JSON]) -> list[str]:
    complaints: list[str] = []
    waiting: list[str] = []
    seen: set[str] = set()
    for i, message in enumerate([*messages, {"role": "end"}]):
        if message.get("role") == "tool":
            call_id = message.get("tool_call_id")
            complaints += [] if call_id in waiting else [f"message {i}: answers no open call: {call_id!r}"]
            waiting = [other for other in waiting if other != call_id]
            continue
        complaints += [f"message {i}: call {call_id!r} was not answered before it" for call_id in waiting]
        waiting = [str(call.get("id")) for call in message.get("tool_calls") or []]
        for call_id in waiting:
            complaints += [f"message {i}: call id {call_id!r} used twice"] if call_id in seen else []
            seen.add(call_id)
    return complaints
