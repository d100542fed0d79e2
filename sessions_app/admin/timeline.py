"""A session's log as a timeline: what happened, in words, and how long after the last thing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext_lazy as _

from sessions_app import events
from sessions_app.admin import shown
from sessions_app.models import Event, Session

SHOWN_EVENTS = 200
LONG_GAP_SECONDS = 60

WORDS: dict[str, tuple[Any, str]] = {
    events.SESSION_CREATED: (_("Session created"), "session"),
    events.SESSION_UPDATED: (_("Title or description changed"), "session"),
    events.SESSION_ACTIVATED: (_("Session activated"), "session"),
    events.SESSION_DEACTIVATED: (_("Session deactivated"), "session"),
    events.SESSION_EXPIRED: (_("Session expired"), "session"),
    events.MESSAGES_CLEARED: (_("Messages cleared"), "session"),
    events.NOTE_ADDED: (_("Note of an operator"), "waits"),
    events.MESSAGE_RECEIVED: (_("Message received"), "message"),
    events.MESSAGE_OPENED: (_("Answer began"), "message"),
    events.MESSAGE_COMPLETED: (_("Answer written"), "message"),
    events.CONVERSATION_COMPLETED: (_("Conversation completed"), "message"),
    events.AGENT_ASSIGNED: (_("Agent assigned"), "agent"),
    events.AGENT_SWITCH_REQUESTED: (_("Agent switch requested"), "agent"),
    events.AGENT_SWITCHED: (_("Agent switched"), "agent"),
    events.ROUTING_FELL_BACK: (_("Routed by keywords"), "waits"),
    events.HISTORY_TRIMMED: (_("Oldest messages left out"), "waits"),
    events.TASK_QUEUED: (_("Run queued"), "run"),
    events.TASK_STARTED: (_("Run started"), "run"),
    events.TASK_PAUSED: (_("Run waits for the client"), "waits"),
    events.TASK_RESUMED: (_("Run resumed"), "run"),
    events.TASK_COMPLETED: (_("Run completed"), "good"),
    events.TASK_FAILED: (_("Run failed"), "bad"),
    events.TASK_CANCELLED: (_("Run cancelled"), "bad"),
    events.TASK_INTERRUPTED: (_("Run interrupted"), "bad"),
    events.TASK_SUPERSEDED: (_("Run superseded by a new message"), "waits"),
    events.CANCEL_REQUESTED: (_("Cancel requested"), "waits"),
    events.LLM_REQUEST_STARTED: (_("Model asked"), "model"),
    events.LLM_REQUEST_COMPLETED: (_("Model answered"), "model"),
    events.LLM_REQUEST_FAILED: (_("Model failed"), "bad"),
    events.TOOL_CALL_REQUESTED: (_("Tool call requested"), "tool"),
    events.TOOL_CALL_RELEASED: (_("Tool call released to be executed"), "tool"),
    events.TOOL_APPROVAL_REQUIRED: (_("Approval required"), "waits"),
    events.TOOL_APPROVAL_DECIDED: (_("Approval decided"), "tool"),
    events.TOOL_APPROVAL_EXPIRED: (_("Approval expired"), "bad"),
    events.TOOL_CALL_COMPLETED: (_("Tool call completed"), "tool"),
    events.TOOL_CALL_FAILED: (_("Tool call failed"), "bad"),
    events.TOOL_CALL_REFUSED: (_("Tool call refused"), "bad"),
    events.TOOL_CALL_CLOSED: (_("Tool call closed without a result"), "waits"),
}
TOLD = ("tool_name", "decision", "who", "agent", "purpose", "model", "code", "error", "reason", "note")


@dataclass(frozen=True, slots=True)
class Moment:
    """One event of the log; `gap` is the time since the one before."""

    event: Event
    words: object
    tone: str
    detail: str
    data: str
    gap: str
    long_gap: bool


def words(type_: str) -> tuple[Any, str]:
    """What an event's type means, and its colour; a type of a newer version stands for itself."""
    return WORDS.get(type_, (shown.visible(type_), "quiet"))


def moments(session: Session, *, last_seq: int | None = None) -> list[Moment]:
    """The newest events, or the newest up to a number, oldest first."""
    rows = session.events.select_related("message").defer(
        "message__content", "message__reasoning", "message__tool_calls"
    )
    if last_seq is not None:
        rows = rows.filter(seq__lte=last_seq)
    newest = list(rows.order_by("-seq")[: SHOWN_EVENTS + 1])[::-1]
    times = [None, *(event.at for event in newest)]
    told = [_moment(event, before) for before, event in zip(times, newest, strict=False)]
    return told[-SHOWN_EVENTS:]


def _moment(event: Event, before: Any) -> Moment:
    label, tone = words(event.type)
    seconds = max((event.at - before).total_seconds(), 0) if before else 0
    return Moment(
        event=event,
        words=label,
        tone=tone,
        detail=detail(event.data),
        data=shown.pretty(event.data, 4_000) if event.data else "",
        gap=f"+{shown.duration(seconds)}" if before else "",
        long_gap=seconds >= LONG_GAP_SECONDS,
    )


def detail(data: Any) -> str:
    """The event in a few words: who went where, which tool, which error."""
    if not isinstance(data, dict):
        return ""
    parts = [f"{data['from_agent']} → {data.get('to_agent')}"] if "from_agent" in data else []
    parts += [str(data[key]) for key in TOLD if data.get(key)]
    if isinstance(took := data.get("duration_ms"), int):
        parts.append(shown.duration(took / 1000))
    return shown.visible(shown.cut(" · ".join(parts).replace("\n", " "), 160))
