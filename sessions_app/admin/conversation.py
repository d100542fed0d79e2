"""A page of a session's conversation as people read it: each tool call with its approval and its result."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from django.db.models import Min, QuerySet
from django.db.models.functions import Left, Length

from sessions_app.admin import columns, shown
from sessions_app.models import Approval, Event, Message, MessageState, Session, ToolCall

PAGE_SIZE = 50
TEXT_LIMIT = 20_000


@dataclass(frozen=True, slots=True)
class ShownCall:
    call_id: str
    name: str
    arguments: list[tuple[str, str]]
    row: ToolCall | None = None
    approval: Approval | None = None
    result: str | None = None

    @property
    def tone(self) -> str:
        return columns.tone(self.row.state) if self.row else "quiet"


@dataclass(slots=True)
class Entry:
    """One message; a tool's result has an entry of its own only where its call is on another page."""

    message: Message
    text: str
    reasoning: str
    calls: list[ShownCall] = field(default_factory=list)

    @property
    def interrupted(self) -> bool:
        return self.message.state == MessageState.INTERRUPTED

    @property
    def is_open(self) -> bool:
        return self.message.state == MessageState.OPEN


@dataclass(frozen=True, slots=True)
class ConversationPage:
    entries: list[Entry]
    older: int | None = None
    newer: int | None = None
    last_seq: int | None = None


def page(session: Session, *, before: int | None = None, after: int | None = None) -> ConversationPage:
    """The newest messages, or those right before or after a message's number, oldest first."""
    rows = _window(session, before, after)
    if not rows:
        return ConversationPage([])
    first, last = rows[0].number, rows[-1].number
    following = session.messages.filter(number__gt=last).order_by("number").values_list("pk", flat=True).first()
    return ConversationPage(
        entries=_entries(session, rows),
        older=first if session.messages.filter(number__lt=first).exists() else None,
        newer=last if following else None,
        last_seq=_seq_before(following) if following else None,
    )


def _window(session: Session, before: int | None, after: int | None) -> list[Message]:
    messages = _readable(session.messages.all())
    if after is not None:
        return list(messages.filter(number__gt=after).order_by("number")[:PAGE_SIZE])
    if before is not None:
        messages = messages.filter(number__lt=before)
    return list(messages.order_by("-number")[:PAGE_SIZE])[::-1]


def _readable(messages: QuerySet[Message]) -> Any:
    """Long texts are cut by the database: a page stays small whatever a tool returned."""
    return messages.defer("content", "reasoning").annotate(
        text=Left("content", TEXT_LIMIT),
        text_length=Length("content"),
        thought=Left("reasoning", TEXT_LIMIT),
        thought_length=Length("reasoning"),
    )


def _seq_before(message_id: int) -> int | None:
    """Where the log stood just before the message that follows the page."""
    first = Event.objects.filter(message_id=message_id).aggregate(first=Min("seq"))["first"]
    return first - 1 if first else None


def _entries(session: Session, rows: list[Message]) -> list[Entry]:
    calls = _calls(session, rows)
    answered = {call.call_id for of_message in calls.values() for call in of_message}
    return [
        Entry(row, _cut(row, "text"), _cut(row, "thought"), calls.get(row.pk, []))
        for row in rows
        if not (row.role == Message.TOOL and row.tool_call_id in answered)
    ]


def _cut(row: Message, name: str) -> str:
    text, length = getattr(row, name), getattr(row, f"{name}_length")
    show = shown.pretty_if_json if row.role == Message.TOOL else shown.visible
    return show(shown.cut(text, TEXT_LIMIT, length=length))


def _calls(session: Session, rows: list[Message]) -> dict[int, list[ShownCall]]:
    found = ToolCall.objects.filter(message__in=[row.pk for row in rows]).select_related("approval")
    stored = {call.call_id: call for call in found}
    names = {call_id for row in rows for call_id, _, _ in _asked(row)} | stored.keys()
    results = _readable(session.messages.filter(role=Message.TOOL, tool_call_id__in=names))
    texts = {row.tool_call_id: _cut(row, "text") for row in results}
    return {row.pk: _calls_of(row, stored, texts) for row in rows if row.tool_calls}


def _calls_of(row: Message, stored: dict[str, ToolCall], texts: dict[str, str]) -> list[ShownCall]:
    calls = []
    for call_id, name, arguments in _asked(row):
        call = stored.get(call_id)
        approval = getattr(call, "approval", None) if call else None
        asked = shown.arguments(call.arguments if call else arguments)
        calls.append(ShownCall(shown.visible(call_id), name, asked, call, approval, texts.get(call_id)))
    return calls


def _asked(row: Message) -> Iterable[tuple[str, str, Any]]:
    """What the message's OpenAI-shaped calls ask for, whatever shape they are in."""
    for call in row.tool_calls or []:
        if isinstance(call, dict):
            function = call.get("function")
            function = function if isinstance(function, dict) else {}
            yield str(call.get("id", "")), str(function.get("name", "")), function.get("arguments", "")
