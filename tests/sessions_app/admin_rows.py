"""Stored rows for the admin's tests, of any number, and of any text."""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from sessions_app import events
from sessions_app.models import (
    AgentSwitch,
    APIKey,
    Approval,
    Batch,
    BatchRefusal,
    Event,
    EventDelivery,
    LLMRequest,
    Message,
    PolicyRule,
    Run,
    RunState,
    Session,
    ToolCall,
    ToolCallState,
)

TABLES = (
    "session", "run", "message", "toolcall", "approval", "agentswitch", "llmrequest", "event", "eventdelivery",
    "policyrule", "apikey", "batch",
)  # fmt: skip


def conversation(session_id: str, *, text: str = "hello", calls: int = 1, days_old: float = 0) -> Session:
    """A question and `calls` answers that each call a tool and read its result; every field that may hold a client's
    or a model's text holds `text`."""
    moment = timezone.now() - timedelta(days=days_old)
    session = Session.objects.create(
        session_id=session_id, title=text[:255], description=text, current_agent=text[:32], last_activity=moment,
        created_at=moment,
    )  # fmt: skip
    run = Run.objects.create(session=session, state=RunState.COMPLETED, agent=text[:32], error_code=text[:64])
    Message.objects.create(session=session, run=run, number=1, role=Message.USER, content=text)
    for number in range(calls):
        _call(session, run, 2 + 2 * number, text)
    AgentSwitch.objects.create(session=session, run=run, from_agent=text[:32], to_agent=text[:32], reason=text)
    LLMRequest.objects.create(session=session, run=run, agent=text[:32], model=text, error=text[:64], success=False)
    PolicyRule.objects.create(pattern=text, reason=text)
    APIKey.objects.create(key_id=f"{session.pk}{text}"[:32], name=text[:100], created_by=text, revoked_by=text)
    batch = Batch.objects.create(action=text[:64], who=text[:150], arguments={"check": text})
    BatchRefusal.objects.create(batch=batch, subject=text[:255], reason=text[:300])
    session.last_seq = session.last_number = 2 * calls + 1
    session.save()
    return session


def _call(session: Session, run: Run, number: int, text: str) -> None:
    call_id = f"{number} {text}"
    asked = [{"id": call_id, "type": "function", "function": {"name": text, "arguments": "{}"}}]
    message = Message.objects.create(
        session=session, run=run, number=number, role=Message.ASSISTANT, content=text, reasoning=text, agent=text[:32],
        tool_calls=asked,
    )  # fmt: skip
    call = ToolCall.objects.create(
        session=session, run=run, message=message, call_id=call_id, name=text, agent=text[:32],
        arguments={text: text, "lines": f"{text}\n{text}"}, state=ToolCallState.COMPLETED,
    )  # fmt: skip
    Approval.objects.create(
        session=session, call=call, reason=text, feedback=text, decided_by=text, arguments={text: 1}
    )
    Message.objects.create(
        session=session, run=run, number=number + 1, role=Message.TOOL, content=text, name=text, tool_call_id=call_id
    )
    for offset, type_ in enumerate((events.TOOL_CALL_REQUESTED, text[:48])):
        event = Event.objects.create(
            session=session, seq=number + offset, type=type_, run=run, message=message, correlation_id=text,
            data={"tool_name": text, text: [text]},
        )  # fmt: skip
        EventDelivery.objects.create(event=event, handler=text[:100], last_error=text[:200])


def long_conversation(messages: int) -> Session:
    """Only messages and an event for each, made with few statements."""
    session = Session.objects.create(session_id="long", message_count=messages, last_number=messages)
    rows = [
        Message(session=session, number=n, role=Message.USER, content=f"message {n} " + "x" * 500)
        for n in range(1, messages + 1)
    ]
    Message.objects.bulk_create(rows, 1000)
    log = [Event(session=session, seq=m.number, type=events.MESSAGE_RECEIVED, message=m) for m in rows]
    Event.objects.bulk_create(log, 1000)
    return session
