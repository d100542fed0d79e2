"""Sessions with a story in them, for tests that read."""

from __future__ import annotations

from typing import Any

from sessions_app import events, services, writing
from sessions_app.models import (
    AgentSwitch,
    Approval,
    LLMRequest,
    Message,
    MessageState,
    Run,
    RunState,
    Session,
    ToolCall,
    ToolCallState,
)

READ = {"id": "call_0", "type": "function", "function": {"name": "read_file", "arguments": '{"path":"a.txt"}'}}
WRITE = {"id": "call_1", "type": "function", "function": {"name": "write_file", "arguments": '{"path":"a.txt"}'}}
CALLS = [READ, WRITE]


def session(session_id: str = "told") -> Session:
    """A person asks the coder, who read a file and waits to write one; an answer was cut."""
    services.create_session(session_id)
    services.switch_agent(session_id, "coder", reason="code", confidence="high", correlation_id="corr-1")
    with writing.locked(session_id) as change:
        run = Run.objects.create(session=change.session, state=RunState.WAITING, agent="coder")
        change.message(Message.USER, "Write a.txt", run=run)
        asking = change.message(Message.ASSISTANT, "", tool_calls=CALLS, run=run, agent="coder")
        change.message(Message.TOOL, "done", tool_call_id="call_0", name="read_file", run=run)
        change.message(Message.ASSISTANT, "It is writ", state=MessageState.INTERRUPTED, run=run, agent="coder")
        change.message(Message.ASSISTANT, "", state=MessageState.OPEN, run=run, agent="coder")
        call = change.add(_call(change.session, run, asking))
        change.add(Approval(session=change.session, call=call, reason="writes", arguments=call.arguments))
        _tell(change, run)
        for success in (True, False):
            change.add(_request(change.session, run, success=success))
        change.add(LLMRequest(session=change.session, run=run, purpose=LLMRequest.ROUTING, duration_ms=9))
        change.session.title = "Write a.txt"
        change.touch()
    return change.session


def _call(session: Session, run: Run, message: Message) -> ToolCall:
    return ToolCall(
        session=session,
        run=run,
        message=message,
        call_id="call_1",
        name="write_file",
        agent="coder",
        arguments={"path": "a.txt", "big": 123456789012345678901234567890},
        state=ToolCallState.PENDING,
        requires_approval=True,
    )


def _request(session: Session, run: Run, *, success: bool) -> LLMRequest:
    return LLMRequest(
        session=session,
        run=run,
        agent="coder",
        model="scripted",
        duration_ms=100 if success else 50,
        prompt_tokens=10,
        completion_tokens=5,
        total_tokens=15,
        has_tool_calls=success,
        success=success,
        error="" if success else "LLM_CUT",
    )


def _tell(change: writing.Change, run: Run) -> None:
    called: dict[str, Any] = {"call_id": "call_1", "tool_name": "write_file", "agent": "coder"}
    change.event(events.TOOL_CALL_REQUESTED, {**called, "arguments": {}, "requires_approval": True}, run=run)
    change.event(events.TOOL_APPROVAL_REQUIRED, {**called, "arguments": {"path": "a.txt"}, "reason": "writes"}, run=run)
    for decision in ("approve", "edit", "reject", "approve"):
        decided = {"call_id": "call_1", "tool_name": "write_file", "decision": decision, "who": "gateway"}
        change.event(events.TOOL_APPROVAL_DECIDED, {**decided, "feedback": ""}, run=run)
    change.event(events.TOOL_CALL_COMPLETED, called, run=run)
    change.event(events.TOOL_CALL_FAILED, {**called, "error": "disk full"}, run=run)
    change.event(events.TASK_COMPLETED, {"agent": "coder", "duration_ms": 300}, run=run)
    failed = {"agent": "coder", "duration_ms": 100, "code": "LLM_CUT", "text": "The answer broke off."}
    change.event(events.TASK_FAILED, failed, run=run)


def waiting_run(session: Session) -> Run:
    return Run.objects.get(session=session)


def switches(session: Session) -> list[str]:
    return list(AgentSwitch.objects.filter(session=session).values_list("to_agent", flat=True))
