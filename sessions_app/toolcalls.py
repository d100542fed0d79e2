"""Tool calls as the model asks for them: what becomes of an answer with calls, in one transaction."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sessions_app import approvals, closing, events, services, steps, strict_json
from sessions_app.errors import RuntimeFault
from sessions_app.models import Approval, Message, Run, RunState, Session, ToolCall, ToolCallState
from sessions_app.steps import Outcome, Work
from sessions_app.writing import Change


@dataclass(frozen=True, slots=True)
class Planned:
    """One call of an answer as the checks left it: to be sent to the client, or settled with what the model reads."""

    call_id: str
    name: str
    arguments: dict[str, Any]
    answer: str | None = None
    refused: bool = False
    needs_approval: bool = False
    reason: str = ""
    switch_to: str = ""
    policy_version: int | None = None
    expires_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of an answer with calls. `final_text` ends the turn when nothing goes out; a `fault` ends it too.

    `counters`: the run's steps, switches and mistakes so far, kept while it waits; its trace, if there is one.
    """

    calls: Sequence[Planned]
    final_text: str | None = None
    fault: RuntimeFault | None = None
    said: str = ""
    counters: dict[str, Any] = field(default_factory=dict)


# --- the model asks ----------------------------------------------------------------------------------------------


def carry_out(
    run: Run,
    message: Message,
    text: str,
    reasoning: str,
    record: dict[str, Any],
    plan_for: Callable[[Session], Plan],
    agents: Sequence[str],
) -> Outcome:
    """Closes an answer with calls: those for the client go out and the run waits; else its next step is opened.
    `plan_for` judges them, in view of the locked session."""
    with steps.owned(run) as change:
        plan = plan_for(change.session)
        steps.record_request(change, run, record)
        change.touch()
        calls = _with_ids(change.session, plan.calls)
        wanted = [_openai(call_id, call) for call_id, call in calls]
        closing.close_message(change, run, message.pk, text, is_final=False, reasoning=reasoning, tool_calls=wanted)
        for call_id, call in calls:
            _keep(change, run, message, call_id, call)
        for _, call in calls:
            if call.switch_to and call.switch_to != change.session.current_agent:
                services.record_switch(change, call.switch_to, reason=call.reason, confidence="high", run=run)
        out = [pair for pair in calls if pair[1].answer is None]
        for call_id, call in out:
            _send(change, run, message, call_id, call)
        work = _go_on(change, run, plan, bool(out), agents)
        return Outcome(change.session, change.events, run, work)


def _with_ids(session: Session, calls: Sequence[Planned]) -> list[tuple[str, Planned]]:
    """Each call with an id that is new in the session: the model's own where it is, else one it cannot foresee."""
    wanted = [call.call_id for call in calls if call.call_id]
    used = set(ToolCall.objects.filter(session=session, call_id__in=wanted).values_list("call_id", flat=True))
    pairs = []
    for call in calls:
        call_id = call.call_id
        if not call_id or len(call_id) > 255 or call_id in used:
            call_id = f"call_{secrets.token_hex(12)}"
        used.add(call_id)
        pairs.append((call_id, call))
    return pairs


def _openai(call_id: str, call: Planned) -> dict[str, Any]:
    arguments = strict_json.dumps(call.arguments)
    return {"id": call_id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _keep(change: Change, run: Run, message: Message, call_id: str, call: Planned) -> None:
    """Stores the call under the agent that asked, and its answer when it was settled here."""
    row = ToolCall(
        session=change.session, run=run, message=message, call_id=call_id, name=call.name[:255],
        agent=message.agent, arguments=call.arguments, requires_approval=call.needs_approval,
        policy_version=call.policy_version, state=_first_state(call),
        ended_at=None if call.answer is None else change.now,
    )  # fmt: skip
    change.add(row)
    if call.answer is not None:
        _answered_here(change, run, message, call_id, call)
    elif call.needs_approval:
        approvals.ask(change, row, reason=call.reason, expires_seconds=call.expires_seconds)


def _first_state(call: Planned) -> ToolCallState:
    if call.answer is not None:
        return ToolCallState.REFUSED if call.refused else ToolCallState.COMPLETED
    return ToolCallState.PENDING if call.needs_approval else ToolCallState.OUT


def _answered_here(change: Change, run: Run, asked: Message, call_id: str, call: Planned) -> None:
    change.message(Message.TOOL, call.answer or "", tool_call_id=call_id, name=call.name[:255], run=run)
    type_ = events.TOOL_CALL_REFUSED if call.refused else events.TOOL_CALL_COMPLETED
    told: dict[str, Any] = {"call_id": call_id, "tool_name": call.name, "agent": asked.agent}
    if call.refused and call.policy_version is not None:
        told |= {"forbidden": True, "reason": call.reason, "policy_version": call.policy_version}
    change.event(type_, told, run=run)


def _send(change: Change, run: Run, asked: Message, call_id: str, call: Planned) -> None:
    told = {"call_id": call_id, "tool_name": call.name, "arguments": call.arguments, "agent": asked.agent}
    if call.needs_approval:
        [approval] = [one for one in change.added(Approval) if one.call.call_id == call_id]
        change.event(events.TOOL_APPROVAL_REQUIRED, told | approvals.told(approval), run=run)
    change.event(events.TOOL_CALL_REQUESTED, {**told, "requires_approval": call.needs_approval}, run=run)


def _go_on(change: Change, run: Run, plan: Plan, waiting: bool, agents: Sequence[str]) -> Work | None:
    if waiting:
        pause(change, run, plan.counters)
        return None
    if plan.fault is not None:
        told = {"code": plan.fault.code, "text": plan.said}
        closing.end_run(change, run, RunState.FAILED, events.TASK_FAILED, told, plan.counters)
        return None
    if plan.final_text is not None:
        _conclude(change, run, plan.final_text, plan.counters)
        return None
    return steps.next_step(change, run, agents)


def pause(change: Change, run: Run, counters: dict[str, Any]) -> None:
    """The run waits for its client: it has no lease, and its clock stands."""
    worked = closing.active_seconds(run, change)
    Run.objects.filter(pk=run.pk).update(
        state=RunState.WAITING, lease_until=None, active_since=None, active_seconds=worked, **counters
    )
    change.event(events.TASK_PAUSED, run=run)


def _conclude(change: Change, run: Run, text: str, counters: dict[str, Any]) -> None:
    """The text of attempt_completion or ask_followup_question is the turn's last message."""
    agent = change.session.current_agent
    message = change.message(Message.ASSISTANT, text, run=run, agent=agent)
    change.event(events.MESSAGE_OPENED, {"agent": agent}, run=run, message=message)
    change.event(events.MESSAGE_COMPLETED, {"is_final": True, "shown": True}, run=run, message=message)
    change.event(events.CONVERSATION_COMPLETED, {"agent": agent}, run=run, message=message)
    closing.end_run(change, run, RunState.COMPLETED, events.TASK_COMPLETED, counters=counters)
