"""What an operator does to one session from its page: the same messages that a client sends, and notes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from asgiref.sync import async_to_sync
from django.contrib.admin.models import CHANGE, LogEntry
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, override

from agents_app import actions, messages
from agents_app.actions import Caller
from sessions_app import runs, services, strict_json
from sessions_app.admin.actions import operator
from sessions_app.errors import MessageInvalid, NothingToDo
from sessions_app.models import Session

SESSION, APPROVAL = "sessions_app.change_session", "sessions_app.change_approval"
MAX_NOTE_CHARACTERS = 4_000


@dataclass(frozen=True, slots=True)
class Deed:
    """`label` says what was done; `do(session, fields, caller)` raises RuntimeFault where it is refused."""

    label: Any
    do: Callable[[Session, Mapping[str, str], Caller], None]
    permissions: tuple[str, ...] = (SESSION,)


def _take(session: Session, message: dict[str, Any], caller: Caller) -> None:
    """Has the runtime take a message. Raises RuntimeFault for every refusal."""
    try:
        checked = messages.parse(message)
    except messages.Refused as refused:
        raise MessageInvalid(why=messages.in_one_line(refused.detail)) from None
    told = async_to_sync(actions.take)(session.session_id, checked, message, caller)
    if told.fault is not None:
        raise told.fault


def _say(session: Session, fields: Mapping[str, str], caller: Caller) -> None:
    message = {"type": "user_message", "content": fields.get("content", ""), "stream_mode": "tokens"}
    if agent := fields.get("agent"):
        message["agent_type"] = agent
    _take(session, message, caller)


def _decide(session: Session, fields: Mapping[str, str], caller: Caller) -> None:
    decision = fields.get("decision", "")
    message: dict[str, Any] = {
        "type": "hitl_decision", "call_id": fields.get("call_id", ""), "decision": decision,
    }  # fmt: skip
    if feedback := fields.get("feedback", "").strip():
        message["feedback"] = feedback
    if seen := fields.get("arguments_hash"):  # what is decided about is what the page has shown
        message["arguments_hash"] = seen
    if decision == "edit":
        message["modified_arguments"] = _arguments(fields.get("arguments", ""))
    _take(session, message, caller)


def _arguments(text: str) -> Any:
    try:
        return strict_json.loads(text)
    except ValueError as error:
        raise MessageInvalid(why=_("the arguments are {error}").format(error=error)) from None


def _settle(session: Session, fields: Mapping[str, str], caller: Caller) -> None:
    """An operator who knows what became of a call says so in its client's place."""
    outcome, text = fields.get("outcome"), fields.get("text", "")
    told = {"result": text} if outcome == "result" else {"error": text or "it did not run"}
    _take(session, {"type": "tool_result", "call_id": fields.get("call_id", ""), **told}, caller)


def _switch(session: Session, fields: Mapping[str, str], caller: Caller) -> None:
    reason = fields.get("reason", "").strip() or f"Switched by {caller.name}"
    _take(session, {"type": "switch_agent", "agent_type": fields.get("agent", ""), "reason": reason}, caller)


def _cancel(session: Session, fields: Mapping[str, str], caller: Caller) -> None:
    if runs.request_cancel(session.session_id, who=caller.name) is None:
        raise NothingToDo(why=_("no run is under way"))


def _note(session: Session, fields: Mapping[str, str], caller: Caller) -> None:
    text = fields.get("text", "").strip()
    if not text or len(text) > MAX_NOTE_CHARACTERS:
        why = _("a note has 1 to {limit} characters").format(limit=MAX_NOTE_CHARACTERS)
        raise MessageInvalid(why=why)
    services.add_note(session.session_id, text, who=caller.name)


DEEDS = {
    "say": Deed(gettext_lazy("Message sent"), _say),
    "decide": Deed(gettext_lazy("Decided"), _decide, (APPROVAL,)),
    "settle": Deed(gettext_lazy("Tool call settled"), _settle, (SESSION, APPROVAL)),  # a result approves its call
    "switch": Deed(gettext_lazy("Agent switched"), _switch),
    "cancel": Deed(gettext_lazy("Cancelled"), _cancel),
    "note": Deed(gettext_lazy("Note added"), _note),
}


def do(request: HttpRequest, session: Session, deed: Deed, fields: Mapping[str, str]) -> None:
    """Does it in the operator's name, and writes down that it was done. Raises RuntimeFault."""
    caller = Caller(operator(request), getattr(request, "scope", {}).get("correlation_id", ""))
    deed.do(session, fields, caller)
    named = [fields[name] for name in ("call_id", "decision", "agent") if fields.get(name)]
    with override("en"):
        said = " · ".join([str(deed.label), *named])
    LogEntry.objects.log_actions(request.user.pk, [session], CHANGE, said)  # type: ignore[arg-type]
