"""What an approval is about, until when, and how it ends: used inside a locked change, never by itself.

An approval is bound to the hash of the arguments that were shown: nothing else is ever released by it.
"""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any

from django.db.models import QuerySet
from django.utils import timezone

from sessions_app import audit, closing, correlation, events, speech, strict_json
from sessions_app.conf import settings
from sessions_app.errors import ApprovalDecided, ApprovalExpired, ArgumentsChanged, DecidedBy, RuntimeFault
from sessions_app.models import (
    OPEN_CALL_STATES,
    Approval,
    ApprovalState,
    Event,
    Message,
    Run,
    RunState,
    ToolCall,
    ToolCallState,
)
from sessions_app.writing import Change

EXPIRED = "The approval of this call expired: nobody decided in time, and it was never released to be carried out."
STATE_OF = {
    "approve": ApprovalState.APPROVED,
    "edit": ApprovalState.EDITED,
    "reject": ApprovalState.REJECTED,
}


def hash_of(arguments: dict[str, Any]) -> str:
    """SHA-256 over the arguments as canonical JSON: the same for whatever either database gives back."""
    return hashlib.sha256(strict_json.canonical(arguments)).hexdigest()


def ask(change: Change, call: ToolCall, *, reason: str, expires_seconds: float | None = None) -> Approval:
    """Asks people about a call. It is theirs for the setting's time or the given one; 0 is for ever."""
    seconds = settings.APPROVAL_EXPIRY_SECONDS if expires_seconds is None else expires_seconds
    return change.add(
        Approval(
            session=change.session, call=call, reason=reason, arguments=call.arguments,
            arguments_hash=hash_of(call.arguments), policy_version=call.policy_version, created_at=change.now,
            expires_at=change.now + timedelta(seconds=seconds) if seconds > 0 else None,
        )
    )  # fmt: skip


def told(approval: Approval) -> dict[str, Any]:
    """What the event that asks says of the approval, beside the call."""
    return {
        "reason": approval.reason,
        "arguments_hash": approval.arguments_hash,
        "policy_version": approval.policy_version,
        "expires_at": approval.expires_at.isoformat() if approval.expires_at else None,
    }


def decide(change: Change, call: ToolCall, decision: str, *, who: str, feedback: str = "") -> None:
    """Writes down who decided what; the event names the hash of the arguments that may now be carried out. It bears the
    id of the request that decided, and its cause is the event that asked."""
    Approval.objects.filter(call=call).update(
        state=STATE_OF[decision], decided_at=change.now, decided_by=who[:150], feedback=feedback
    )
    told = {"call_id": call.call_id, "tool_name": call.name, "decision": decision, "who": who, "feedback": feedback}
    bound_to = hash_of(call.arguments)
    told["arguments_hash"] = bound_to
    change.event(
        events.TOOL_APPROVAL_DECIDED,
        told,
        run=call.run,
        correlation_id=followed_as(call),
        causation_id=_asked_by(call),
    )
    shown = {"state": call.approval.state, "tool": call.name, "arguments": f"sha256:{hash_of(call.approval.arguments)}"}
    after = {"state": STATE_OF[decision], "arguments": f"sha256:{bound_to}"}
    if feedback:
        after["feedback"] = audit.digest(feedback)
    audit.record(
        change, audit.APPROVAL_DECIDE, who, subject=call.call_id, before=shown, after=after,
        correlation_id=followed_as(call),
    )  # fmt: skip


def followed_as(call: ToolCall) -> str:
    """The id of the request that decides; the run's where nobody's request is at work."""
    return correlation.current() or call.run.correlation_id


def _asked_by(call: ToolCall) -> str:
    """The event that asked about the call, which bears its run's id; empty once retention has taken it."""
    asked = Event.objects.filter(run=call.run, type=events.TOOL_APPROVAL_REQUIRED, data__call_id=call.call_id)
    found = asked.order_by("-pk").values_list("event_id", flat=True).first()
    return str(found) if found else ""


def require_shown(call: ToolCall, seen_hash: str) -> None:
    """Raises ArgumentsChanged unless the call still is what was shown, and what the decider says to have seen."""
    approval = call.approval
    shown = approval.arguments_hash or hash_of(approval.arguments)
    if hash_of(call.arguments) != shown or seen_hash.lower() not in ("", shown):
        raise ArgumentsChanged(call_id=call.call_id, metadata={"arguments_hash": shown})


# --- who won -----------------------------------------------------------------------------------------------------


def outcome(call: ToolCall) -> dict[str, str]:
    """What became of the call's approval, who decided and when: told to whoever came too late."""
    approval = getattr(call, "approval", None)
    if approval is None:
        return {"outcome": str(call.state)}
    told = {"outcome": str(approval.state), "decided_by": approval.decided_by}
    told["decided_at"] = approval.decided_at.isoformat() if approval.decided_at else ""
    return {name: value for name, value in told.items() if value}


def too_late(call: ToolCall) -> RuntimeFault:
    """What somebody hears who decides about a call that waits no more."""
    if has_expired(call):
        return ApprovalExpired(call_id=call.call_id, metadata=outcome(call))
    told, state = outcome(call), ToolCallState(call.state).label
    if who := told.get("decided_by"):
        return DecidedBy(call_id=call.call_id, state=state, who=who, metadata=told)
    return ApprovalDecided(call_id=call.call_id, state=state, metadata=told)


def has_expired(call: ToolCall) -> bool:
    approval = getattr(call, "approval", None)
    return approval is not None and approval.state == ApprovalState.EXPIRED


# --- expiry ------------------------------------------------------------------------------------------------------


def late() -> QuerySet[Approval]:
    """Approvals past their time that nobody has ended yet."""
    return Approval.objects.filter(state=ApprovalState.PENDING, expires_at__lte=timezone.now())


def is_late(call: ToolCall, change: Change) -> bool:
    approval = getattr(call, "approval", None)
    if call.state != ToolCallState.PENDING or approval is None or approval.expires_at is None:
        return False
    return bool(approval.expires_at <= change.now)


def expire(change: Change, call: ToolCall) -> None:
    """Ends a call that nobody decided about: the model reads so with what it reads next, and nobody is called.

    When nothing else of its run is open, the run ends, and the session is free.
    """
    change.message(Message.TOOL, EXPIRED, tool_call_id=call.call_id, name=call.name, run=call.run)
    ToolCall.objects.filter(pk=call.pk).update(state=ToolCallState.CLOSED, ended_at=change.now)
    Approval.objects.filter(call=call).update(state=ApprovalState.EXPIRED, decided_at=change.now)
    call.state, call.approval.state, call.approval.decided_at = (
        ToolCallState.CLOSED, ApprovalState.EXPIRED, change.now,
    )  # fmt: skip
    told = {"call_id": call.call_id, "tool_name": call.name, "agent": call.agent}
    change.event(events.TOOL_APPROVAL_EXPIRED, told, run=call.run)
    change.event(events.TOOL_CALL_CLOSED, {**told, "reason": "its approval expired"}, run=call.run)
    states = {"state": ApprovalState.PENDING, "tool": call.name}, {"state": ApprovalState.EXPIRED}
    audit.record(change, audit.APPROVAL_EXPIRE, audit.SYSTEM, subject=call.call_id, before=states[0], after=states[1])
    _end_if_last(change, call)


def _end_if_last(change: Change, call: ToolCall) -> None:
    run = call.run
    open_calls = ToolCall.objects.filter(run=run, state__in=OPEN_CALL_STATES)
    if open_calls.exists() or Run.objects.filter(pk=run.pk).exclude(state=RunState.WAITING).exists():
        return
    fault = ApprovalExpired(call_id=call.call_id)
    told = {"code": fault.code, "text": speech.say(fault, change.session.title)}
    closing.end_run(change, run, RunState.CANCELLED, events.TASK_CANCELLED, told)
