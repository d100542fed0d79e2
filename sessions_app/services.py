"""Commands on sessions. Each is one transaction that changes state and log together; refusals raise RuntimeFault."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from django.db import IntegrityError

from sessions_app import audit, closing, database, events, tallies, writing
from sessions_app.conf import settings
from sessions_app.errors import (
    AgentSwitchRefused,
    MessageInvalid,
    SessionExists,
    SessionExpired,
    SessionFull,
    SessionInactive,
)
from sessions_app.models import ORCHESTRATOR, AgentSwitch, Message, Run, Session
from sessions_app.writing import Change

KEPT_SWITCHES = 50
TITLE_CHARACTERS = 80


def create_session(session_id: str | None = None, *, correlation_id: str = "", who: str = audit.SYSTEM) -> Session:
    """Creates a session, under an id of its own when none is given. Raises SessionExists."""
    name = session_id if session_id is not None else str(uuid.uuid4())
    try:
        with database.atomic():
            change = writing.created(name, correlation_id, who)
            change.store()
    except IntegrityError as taken:
        raise SessionExists(session_id=name) from taken
    return change.session


def update_session(
    session_id: str, *, title: str | None = None, description: str | None = None, who: str = audit.SYSTEM
) -> Session:
    """Sets what is not None. Raises SessionNotFound."""
    with writing.locked(session_id) as change:
        before = _texts(change.session)
        if title is not None:
            change.session.title = title[:255]
        if description is not None:
            change.session.description = description
        change.event(events.SESSION_UPDATED)
        audit.record(change, audit.SESSION_UPDATE, who, before=before, after=_texts(change.session))
    return change.session


def _texts(session: Session) -> dict[str, str]:
    return {"title": audit.digest(session.title), "description": audit.digest(session.description)}


def delete_session(session_id: str, *, who: str = audit.SYSTEM) -> None:
    """Removes the session and everything of it; whoever runs a turn of it finds its lease gone."""
    with database.atomic():
        with writing.locked(session_id) as change:
            closing.close_runs(change, reason="the session was deleted")
        remove([change.session.pk], audit.SESSION_DELETE, who)  # the row still names its readers' topic


def remove(sessions: Sequence[int], action: str, who: str) -> None:
    """Removes sessions (primary keys) that the caller's transaction holds, and everything of them but what they count
    for. Where their audit had come to is told in the installation's."""
    tallies.fold_sessions(sessions)
    going = Session.objects.filter(pk__in=sessions)
    audit.end_chains(going, action, who)
    going.delete()


def add_message(session_id: str, role: str, content: str, *, name: str = "", who: str = audit.SYSTEM) -> Message:
    """Adds a person's or an agent's finished message outside a turn: an import, or an operator's note to the model.

    Raises SessionNotFound, SessionInactive, SessionFull, and MessageInvalid for what no provider would take.
    """
    if role not in (Message.USER, Message.ASSISTANT) or not content.strip():
        raise MessageInvalid(why=f"{role!r} must be 'user' or 'assistant', and the content not blank")
    with writing.locked(session_id) as change:
        require_active(change.session)
        if role == Message.USER:
            require_room(change.session)
        message = change.message(role, content, name=name)
        give_title(change.session, message)
        change.event(events.MESSAGE_RECEIVED, {"role": role}, message=message)
        audit.record(change, audit.MESSAGE_ADD, who, after={"role": role, "content": audit.digest(content)})
        change.touch()
    return message


def add_note(session_id: str, text: str, *, who: str) -> None:
    """Keeps an operator's note in the session's log: for people, never for the model. Raises SessionNotFound."""
    with writing.locked(session_id) as change:
        change.event(events.NOTE_ADDED, {"who": who, "note": text})


def switch_agent(
    session_id: str,
    target: str,
    *,
    reason: str = "",
    confidence: str = "",
    correlation_id: str = "",
    who: str = audit.SYSTEM,
) -> Session:
    """Makes `target` the session's agent. Raises SessionNotFound, and AgentSwitchRefused for the agent it has."""
    with writing.locked(session_id, correlation_id=correlation_id) as change:
        require_active(change.session)
        if target == change.session.current_agent:
            raise AgentSwitchRefused(agent=target, why="it is the current agent")
        audit_switch(change, target, who)
        record_switch(change, target, reason=reason, confidence=confidence, is_final=True)
        change.touch()
    return change.session


def reset_agent(session_id: str, *, who: str = audit.SYSTEM) -> Session:
    """Gives the session back to the orchestrator, which routes its next message anew. Raises as `switch_agent`."""
    return switch_agent(session_id, ORCHESTRATOR, reason=f"Reset by {who}", who=who)


def audit_switch(change: Change, target: str, who: str) -> None:
    """A person's choice of an agent; what routing or a model decides is nobody's act."""
    source = change.session.current_agent
    audit.record(change, audit.AGENT_SWITCH, who, before={"agent": source}, after={"agent": target})


def record_switch(
    change: Change, target: str, *, reason: str, confidence: str = "", run: Run | None = None, is_final: bool = False
) -> None:
    """Writes the switch, its two events and the session's new agent."""
    session, source = change.session, change.session.current_agent
    told = {"from_agent": source, "to_agent": target, "reason": reason, "confidence": confidence}
    change.event(events.AGENT_SWITCH_REQUESTED, told, run=run)
    change.event(events.AGENT_SWITCHED, {**told, "is_final": is_final}, run=run)
    change.add(AgentSwitch(session=session, run=run, **told, switched_at=change.now))
    session.current_agent = target
    session.switch_count += 1
    session.last_switch_at = change.now
    if session.switch_count > KEPT_SWITCHES:
        kept = session.agent_switches.order_by("-id").values_list("pk", flat=True)[: KEPT_SWITCHES - 1]
        session.agent_switches.exclude(pk__in=list(kept)).delete()


def deactivate(session_id: str, *, who: str = audit.SYSTEM) -> Session:
    """Closes the session to new messages; a running turn is cancelled."""
    with writing.locked(session_id) as change:
        _audit_activity(change, audit.SESSION_DEACTIVATE, who, active=False)
        change.session.is_active = False
        closing.close_runs(change, reason="the session was closed")
        change.event(events.SESSION_DEACTIVATED)
    return change.session


def activate(session_id: str, *, who: str = audit.SYSTEM) -> Session:
    """Opens the session to messages again; that somebody wants it counts as its use."""
    with writing.locked(session_id) as change:
        _audit_activity(change, audit.SESSION_ACTIVATE, who, active=True)
        change.session.is_active, change.session.expired_at = True, None
        change.touch()
        change.event(events.SESSION_ACTIVATED)
    return change.session


def _audit_activity(change: Change, action: str, who: str, *, active: bool) -> None:
    audit.record(change, action, who, before={"active": change.session.is_active}, after={"active": active})


def expire(session_id: str | int, *, who: str = audit.SYSTEM) -> Session:
    """Deactivates a session because nobody used it for long."""
    with writing.locked(session_id) as change:
        _audit_activity(change, audit.SESSION_EXPIRE, who, active=False)
        change.session.is_active, change.session.expired_at = False, change.now
        closing.close_runs(change, reason="the session expired")
        change.event(events.SESSION_EXPIRED)
    return change.session


def clear_messages(session_id: str, *, who: str = audit.SYSTEM) -> Session:
    """Removes the conversation; the log keeps that it was there. A running turn is cancelled first."""
    with database.atomic():
        with writing.locked(session_id) as change:
            closing.close_runs(change, reason="the messages were cleared")
        tallies.fold_sessions([change.session.pk])  # calls and approvals go with their messages
        with writing.locked(session_id) as change:  # what ended there is stored, and goes as well
            removed = change.session.message_count
            audit.record(change, audit.SESSION_CLEAR, who, before={"messages": removed}, after={"messages": 0})
            change.session.messages.all().delete()
            change.session.message_count = 0
            change.event(events.MESSAGES_CLEARED, {"count": removed})
    return change.session


def require_active(session: Session) -> None:
    if not session.is_active:
        raise SessionExpired() if session.expired_at else SessionInactive()


def require_room(session: Session) -> None:
    """Asked before a person's message only: what answers it is never refused."""
    if session.message_count >= settings.MAX_MESSAGES_PER_SESSION:
        raise SessionFull(limit=settings.MAX_MESSAGES_PER_SESSION)


def give_title(session: Session, message: Message) -> None:
    """The first user message, on one line and cut, names a session that has no title."""
    if message.role == Message.USER and not session.title:
        line = " ".join(message.content.split())
        session.title = line if len(line) <= TITLE_CHARACTERS else line[: TITLE_CHARACTERS - 1] + "…"
