"""Read functions: rows for the serializers, a fixed number of statements each. Nothing here writes.

Each that names a session raises SessionNotFound, also for a name that no session can have (a NUL, say) and for a
session that the caller may not see.
"""

from __future__ import annotations

from typing import Any

from django.db.models import Exists, OuterRef, QuerySet

from sessions_app import owners
from sessions_app.errors import RunNotFound, SessionNotFound
from sessions_app.models import AgentSwitch, ApprovalState, LLMRequest, Message, Run, Session
from sessions_app.session_ids import is_session_id

SPOKEN = ("role", "content", "name", "tool_call_id", "tool_calls", "state")
STORED = ("id", *SPOKEN, "created_at")


def session(session_id: str) -> Session:
    found = Session.objects.filter(session_id=session_id).first() if is_session_id(session_id) else None
    if found is None or not owners.sees(found):
        raise SessionNotFound(session_id=session_id)
    return found


def sessions(*, active_only: bool = True) -> QuerySet[Session]:
    """Newest activity first."""
    rows = owners.visible(Session.objects.order_by("-last_activity", "-id"))
    return rows.filter(is_active=True) if active_only else rows


def messages(session: Session, columns: tuple[str, ...]) -> list[dict[str, Any]]:
    """The conversation as people see it, in order, as plain rows: a thousand of them are read at once."""
    return list(Message.objects.filter(session=session).listed().order_by("number").values(*columns))


def details(session_id: str, *, include_messages: bool) -> dict[str, Any]:
    """The session, how many messages it lists, and these themselves when asked."""
    found = session(session_id)
    if not include_messages:
        return {"session": found, "messages": None, "count": found.messages.listed().count()}
    rows = messages(found, STORED)
    return {"session": found, "messages": rows, "count": len(rows)}


def history(session_id: str) -> dict[str, Any]:
    found = session(session_id)
    rows = messages(found, SPOKEN)
    return {"session": found, "messages": rows, "count": len(rows), "switches": switches(found)}


def switches(session: Session) -> list[AgentSwitch]:
    return list(session.agent_switches.order_by("id"))


def agent_context(session_id: str, *, include_history: bool) -> dict[str, Any]:
    found = session(session_id)
    return {"session": found, "switches": switches(found) if include_history else None}


def pending_approvals(session_id: str) -> dict[str, Any]:
    waiting = session(session_id).approvals.filter(state=ApprovalState.PENDING)
    rows = list(waiting.select_related("call").order_by("id"))
    return {"session_id": session_id, "pending_approvals": rows, "count": len(rows)}


def run(run_id: int) -> Run:
    found = owners.visible(Run.objects.select_related("session"), "session").filter(pk=run_id).first()
    if found is None:
        raise RunNotFound(run_id=run_id)
    return found


def measured_sessions() -> list[str]:
    """The ids of the sessions whose agents have asked the model, oldest first."""
    asked = LLMRequest.objects.filter(session=OuterRef("pk"), purpose=LLMRequest.ANSWER)
    rows = owners.visible(Session.objects.filter(Exists(asked)))
    return list(rows.order_by("id").values_list("session_id", flat=True))
