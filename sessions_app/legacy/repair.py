"""A history as the replaced service kept it, made one that a strict provider takes. Pure; every repair is counted.

Afterwards each call has an id of its own in the session and arguments that are a JSON object, and its one answer, which
comes after it; nothing is empty, and no role is one that no provider knows.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sessions_app import strict_json
from sessions_app.models import Message

ROLES = {
    "user": Message.USER, "human": Message.USER,
    "assistant": Message.ASSISTANT, "ai": Message.ASSISTANT, "model": Message.ASSISTANT, "agent": Message.ASSISTANT,
    "tool": Message.TOOL, "function": Message.TOOL,
}  # fmt: skip
SYSTEM_ROLES = ("system", "developer")
ID_CHARACTERS = NAME_CHARACTERS = 255
MILLISECONDS_FROM = 1e11  # a number above it is no time in seconds of our millennium

# What repairs are called in the report.
SYSTEM_LEFT_OUT = "system messages left out: each agent has its own"
EMPTY_LEFT_OUT = "empty messages left out"
ORPHANS_LEFT_OUT = "tool messages without a call left out"
SECOND_ANSWERS = "second answers to a call left out"
MOVED = "answers put behind their call"
UNANSWERED = "calls without an answer closed"
NEW_IDS = "call ids that were missing, too long or used twice made new"
BROKEN_CALLS = "tool calls that could not be read left out"
BROKEN_ARGUMENTS = "arguments that were no JSON object made empty"
NO_TIME = "times that could not be read taken from the row before"


@dataclass(frozen=True, slots=True)
class Call:
    call_id: str
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Light:
    """A message without its text: enough to put a history in order."""

    key: Any
    row_id: str
    role: str
    at: datetime
    answers: str = ""
    call_ids: tuple[str, ...] = ()
    says: bool = True


@dataclass(slots=True)
class Placed:
    """A message of a person or an agent in its place, with its calls' ids and the rows that answer them."""

    row: Light
    call_ids: list[str] = field(default_factory=list)
    answers: list[Light | None] = field(default_factory=list)


@dataclass(slots=True)
class Arranged:
    placed: list[Placed]
    orphans: list[Light]  # answers to no call among the rows


# --- rows --------------------------------------------------------------------------------------------------------


def moment(value: Any) -> datetime | None:
    """A time as databases and programs write them; without a zone it is UTC."""
    try:
        if isinstance(value, bool) or value is None:
            return None
        if isinstance(value, int | float):
            return datetime.fromtimestamp(value / 1000 if value > MILLISECONDS_FROM else value, tz=UTC)
        found = value if isinstance(value, datetime) else datetime.fromisoformat(str(value).strip())
        return (found.replace(tzinfo=UTC) if found.tzinfo is None else found).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        return None


def text(value: Any) -> str:
    """What every database takes."""
    if value is None:
        return ""
    raw = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return str(strict_json.clean(raw.encode("utf-8", "replace").decode()))


def calls_of(raw: Any, repairs: Counter[str]) -> list[Call]:
    """The calls of a `tool_calls` column: OpenAI's shape, or a flat one with `name` or `tool_name`."""
    if raw in (None, "", [], "[]", "null"):
        return []
    try:
        found = strict_json.loads(raw) if isinstance(raw, str | bytes) else raw
    except ValueError:
        found = None
    if isinstance(found, dict):
        found = [found]
    if not isinstance(found, list):
        repairs[BROKEN_CALLS] += 1
        return []
    calls = [_call(one, repairs) for one in found]
    repairs[BROKEN_CALLS] += calls.count(None)
    return [call for call in calls if call is not None]


def _call(one: Any, repairs: Counter[str]) -> Call | None:
    if not isinstance(one, dict):
        return None
    inner = one.get("function")
    function = inner if isinstance(inner, dict) else one
    name = next((value for key in ("name", "tool_name") if isinstance(value := function.get(key), str) and value), "")
    if not name:
        return None
    call_id = next((one[key] for key in ("id", "call_id") if isinstance(one.get(key), str | int)), "")
    return Call(text(call_id), text(name)[:NAME_CHARACTERS], _arguments(function.get("arguments"), repairs))


def _arguments(raw: Any, repairs: Counter[str]) -> dict[str, Any]:
    try:
        found = strict_json.loads(raw) if isinstance(raw, str) else raw
        strict_json.dumps(found)
    except (ValueError, TypeError):
        found = None
    if isinstance(found, dict):
        return dict(strict_json.clean(found))
    if raw not in (None, ""):
        repairs[BROKEN_ARGUMENTS] += 1
    return {}


# --- the history -------------------------------------------------------------------------------------------------


def arrange(rows: Iterable[Light], used: set[str], repairs: Counter[str]) -> Arranged:
    """Puts every answer behind its call and leaves out what no provider takes. `used` are call ids that the session
    has already; it learns the new ones."""
    placed: list[Placed] = []
    waiting: dict[str, tuple[Placed, int]] = {}  # the newest call of each id, until it is answered
    early: dict[str, list[Light]] = {}
    answered: set[str] = set()
    for row in rows:
        if row.role == Message.TOOL:
            _take_answer(row, waiting, early, answered, repairs)
        elif row.says or row.call_ids:
            place = Placed(row)
            placed.append(place)
            for index, wanted in enumerate(row.call_ids):
                place.call_ids.append(_own_id(wanted, row, index, used, repairs))
                came = early[wanted].pop(0) if early.get(wanted) else None
                place.answers.append(came)
                if came is None:
                    waiting[wanted] = place, index
                else:
                    repairs[MOVED] += 1
        else:
            repairs[EMPTY_LEFT_OUT] += 1
    return Arranged(placed, [row for rows_ in early.values() for row in rows_])


def _take_answer(
    row: Light,
    waiting: dict[str, tuple[Placed, int]],
    early: dict[str, list[Light]],
    answered: set[str],
    repairs: Counter[str],
) -> None:
    if found := waiting.pop(row.answers, None):
        place, index = found
        place.answers[index] = row
        answered.add(row.answers)
    elif row.answers in answered:
        repairs[SECOND_ANSWERS] += 1
    else:
        early.setdefault(row.answers, []).append(row)


def _own_id(wanted: str, row: Light, index: int, used: set[str], repairs: Counter[str]) -> str:
    call_id = wanted
    if not wanted or len(wanted) > ID_CHARACTERS or wanted in used:
        repairs[NEW_IDS] += 1
        call_id = f"call_{hashlib.sha256(f'{row.row_id}:{index}:{wanted}'.encode()).hexdigest()[:24]}"
    used.add(call_id)
    return call_id


def in_time(rows: Sequence[Light]) -> list[Light]:
    """By time; rows of one moment as they were written."""
    return sorted(rows, key=lambda row: row.at)


def truthy(value: Any, *, default: bool) -> bool:
    """A flag as databases and programs write it."""
    if value is None or value == "":
        return default
    return str(value).strip().lower() not in ("0", "false", "f", "no", "n")


def whole(value: Any) -> int:
    """A count; none where it cannot be read."""
    try:
        return min(max(int(value or 0), 0), 2**31 - 1)
    except (ValueError, TypeError, OverflowError):
        return 0
