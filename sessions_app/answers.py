"""What comes back for a call: its client's result, a person's decision, or nobody's in time. Each is one transaction,
and of those that come for one call at the same moment the first under the session's lock wins."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sessions_app import approvals, events, owners, services, steps, strict_json, writing
from sessions_app.errors import CallAnswered, CallClosed, CallNotFound, RuntimeFault
from sessions_app.models import OPEN_CALL_STATES, Message, Run, RunState, Session, ToolCall, ToolCallState
from sessions_app.steps import Outcome, Work
from sessions_app.writing import Change

REJECTED = "The user rejected this call"
MAX_TOLD_CHARACTERS = 500
EXPIRED_AT_ONCE = 100

# Looks a last time at what is to be carried out; gives the arguments, or raises and nothing has changed.
Check = Callable[[ToolCall, Session], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Result:
    """What the client says of a call: a result, or an error."""

    call_id: str
    text: str
    failed: bool
    stream_mode: str = ""

    @property
    def hash(self) -> str:
        return hashlib.sha256(f"{self.failed}\0{self.text}".encode()).hexdigest()


def answer(session_id: str, result: Result, who: str, owner: str, agents: Sequence[str]) -> Outcome:
    """Takes a call's one result; the last one that was missing takes the run on.

    The same result again changes nothing. Raises SessionNotFound, CallNotFound, CallAnswered. A result for a call
    that was closed or whose approval expired meanwhile is noted there for operators, and the outcome carries the fault.
    """
    with writing.locked(session_id) as change:
        session, call = change.session, _call(change.session, result.call_id)
        if approvals.is_late(call, change):
            approvals.expire(change, call)
        if call.state == ToolCallState.CLOSED:
            return Outcome(session, change.events, call.run, fault=_note_late(call, result, change))
        if call.state not in OPEN_CALL_STATES:
            if call.result_hash != result.hash:
                raise CallAnswered(call_id=result.call_id, metadata=approvals.outcome(call))
            return Outcome(session, run=call.run)
        services.require_active(session)
        after = session.last_seq
        if call.state == ToolCallState.PENDING:
            approvals.decide(change, call, "reject" if result.failed else "approve", who=who)
        state = ToolCallState.FAILED if result.failed else ToolCallState.COMPLETED
        _settle(change, call, state, result.text, result.hash, result.stream_mode)
        work = _continue_if_last(change, call, owner, agents)
        return Outcome(session, change.events, call.run, work, after, follow=work is not None)


def _call(session: Session, call_id: str) -> ToolCall:
    rows = ToolCall.objects.select_related("run", "approval", "message")
    call = rows.filter(session=session, call_id=call_id).first()
    if call is None or call.state == ToolCallState.REFUSED:
        raise CallNotFound(call_id=call_id[:64])
    return call


def _note_late(call: ToolCall, result: Result, change: Change) -> RuntimeFault:
    late = [*call.late_results, {"at": change.now.isoformat(), "failed": result.failed, "text": result.text[:2000]}]
    ToolCall.objects.filter(pk=call.pk).update(late_results=late[-20:])
    return approvals.too_late(call) if approvals.has_expired(call) else CallClosed(call_id=call.call_id)


def _settle(
    change: Change, call: ToolCall, state: ToolCallState, text: str, result_hash: str = "", stream_mode: str = ""
) -> None:
    """Ends the call with its one tool message."""
    change.touch()
    change.message(Message.TOOL, text, tool_call_id=call.call_id, name=call.name, run=call.run)
    ToolCall.objects.filter(pk=call.pk).update(state=state, result_hash=result_hash, ended_at=change.now)
    told = {"call_id": call.call_id, "tool_name": call.name, "agent": call.agent}
    if state == ToolCallState.COMPLETED:
        change.event(events.TOOL_CALL_COMPLETED, told, run=call.run)
    else:
        change.event(events.TOOL_CALL_FAILED, {**told, "error": text[:MAX_TOLD_CHARACTERS]}, run=call.run)
    if stream_mode:
        Run.objects.filter(pk=call.run_id).update(stream_mode=stream_mode)
        call.run.stream_mode = stream_mode


def _continue_if_last(change: Change, call: ToolCall, owner: str, agents: Sequence[str]) -> Work | None:
    missing = ToolCall.objects.filter(run=call.run, state__in=OPEN_CALL_STATES).exclude(pk=call.pk).exists()
    if missing or call.run.state != RunState.WAITING:
        return None
    return steps.resumed(change, call.run, owner, agents)


# --- a person decides --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Decision:
    call_id: str
    decision: str
    feedback: str = ""
    stream_mode: str = ""
    arguments_hash: str = ""


def decide(
    session_id: str,
    decision: Decision,
    who: str,
    owner: str,
    agents: Sequence[str],
    check: Check,
) -> Outcome:
    """Approves, edits or rejects a waiting call, once; `check` sees what is to be carried out.

    Approve and edit send the call again, to be executed; reject is the call's answer. Raises SessionNotFound,
    CallNotFound, ApprovalDecided, ApprovalExpired, ArgumentsChanged and what `check` raises; then nothing has changed.
    A call whose time is over expires here, and the outcome carries the fault.
    """
    with writing.locked(session_id) as change:
        session, call = change.session, _call(change.session, decision.call_id)
        if approvals.is_late(call, change):
            approvals.expire(change, call)
            return Outcome(session, change.events, call.run, fault=approvals.too_late(call))
        if call.state != ToolCallState.PENDING:
            raise approvals.too_late(call)
        services.require_active(session)
        after = session.last_seq
        approvals.require_shown(call, decision.arguments_hash)
        if decision.decision != "reject":
            _rewrite(call, check(call, session))
        approvals.decide(change, call, decision.decision, who=who, feedback=decision.feedback)
        if decision.decision != "reject":
            _send_again(change, call)
            return Outcome(session, change.events, call.run, after_seq=after)
        text = f"{REJECTED}: {decision.feedback}" if decision.feedback else f"{REJECTED}."
        _settle(change, call, ToolCallState.REJECTED, text, stream_mode=decision.stream_mode)
        work = _continue_if_last(change, call, owner, agents)
        return Outcome(session, change.events, call.run, work, after, follow=work is not None)


def _rewrite(call: ToolCall, arguments: dict[str, Any]) -> None:
    """Edited arguments become the call's own, in the history too."""
    if arguments == call.arguments:
        return
    call.arguments = arguments
    ToolCall.objects.filter(pk=call.pk).update(arguments=arguments)
    wanted = [
        {**one, "function": {**one["function"], "arguments": strict_json.dumps(arguments)}}
        if one["id"] == call.call_id
        else one
        for one in call.message.tool_calls or ()
    ]
    Message.objects.filter(pk=call.message_id).update(tool_calls=wanted)


def _send_again(change: Change, call: ToolCall) -> None:
    change.touch()
    ToolCall.objects.filter(pk=call.pk).update(state=ToolCallState.OUT)
    told = {"call_id": call.call_id, "tool_name": call.name, "arguments": call.arguments}
    told |= {"requires_approval": False, "agent": call.agent}
    change.event(events.TOOL_CALL_RELEASED, told, run=call.run, correlation_id=approvals.followed_as(call))


def is_open(session_id: str, call_id: str) -> bool:
    """Whether a result or a decision for this call would be taken: such a message is never refused for rate."""
    calls = owners.visible(ToolCall.objects.filter(session__session_id=session_id, call_id=call_id), "session")
    return calls.filter(state__in=OPEN_CALL_STATES).exists()


# --- nobody decides ----------------------------------------------------------------------------------------------


def due() -> list[int]:
    """Sessions with an approval past its time, the oldest first; a bounded number."""
    waiting = approvals.late().order_by("expires_at").values_list("session_id", flat=True)
    return list(dict.fromkeys(waiting[:EXPIRED_AT_ONCE]))


def expire(session_pk: int) -> Outcome | None:
    """Ends the session's approvals that are past their time; None when somebody was faster. Its last activity stays."""
    with writing.locked(session_pk) as change:
        calls = ToolCall.objects.select_related("run", "approval").filter(session=change.session)
        for call in calls.filter(state=ToolCallState.PENDING, approval__in=approvals.late()).order_by("pk"):
            approvals.expire(change, call)
        return Outcome(change.session, change.events) if change.events else None
