"""One session of the replaced service made one of ours: messages, calls, approvals, switches, and the log of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db.models import Max
from django.utils import timezone

from sessions_app import approvals, closing, events, services, strict_json
from sessions_app.answers import Result
from sessions_app.history import NO_RESULT
from sessions_app.legacy import repair
from sessions_app.legacy.repair import Call, Light, Placed
from sessions_app.legacy.source import Row
from sessions_app.models import (
    ORCHESTRATOR,
    AgentSwitch,
    Approval,
    ApprovalState,
    Event,
    Message,
    Run,
    RunState,
    Session,
    ToolCall,
    ToolCallState,
)
from sessions_app.writing import Change

DECIDED = {
    "approved": ApprovalState.APPROVED, "approve": ApprovalState.APPROVED, "edited": ApprovalState.EDITED,
    "edit": ApprovalState.EDITED, "rejected": ApprovalState.REJECTED, "reject": ApprovalState.REJECTED,
    "expired": ApprovalState.EXPIRED,
}  # fmt: skip
PENDING = ("", "pending", "waiting")
IMPORTED = {"type": "import"}
REASON_CHARACTERS = 500
FAILED = "Error: "


@dataclass(frozen=True, slots=True)
class Switch:
    row_id: str
    at: datetime
    source: str
    target: str
    reason: str
    confidence: str


@dataclass(slots=True)
class Found:
    """What the source holds of one session and was not read before."""

    row: Row
    repairs: Counter[str]
    placed: list[Placed] = field(default_factory=list)
    orphans: list[Light] = field(default_factory=list)
    approvals: dict[str, Row] = field(default_factory=dict)  # by the call's id there
    switches: list[Switch] = field(default_factory=list)
    agent: str = ORCHESTRATOR
    switch_count: int = 0
    born: datetime = field(default_factory=timezone.now)
    last_activity: datetime | None = None

    @property
    def waiting(self) -> set[str]:
        """The ids of the last message's calls that a person still has to decide about."""
        if not self.placed or repair.truthy(self.row["is_active"], default=True) is False:
            return set()
        last = self.placed[-1]
        open_ = {wanted for wanted, answer in zip(last.row.call_ids, last.answers, strict=True) if answer is None}
        return {wanted for wanted in open_ if wanted in self.approvals and is_pending(self.approvals[wanted])}


def is_pending(approval: Row) -> bool:
    return str(approval["status"] or "").lower() in PENDING


class Taking:
    """Writes what was found into one session; `whole` reads rows of messages with their texts."""

    def __init__(self, session: Session, found: Found, whole: Callable[[Sequence[Any]], dict[Any, Row]]) -> None:
        self.session, self.found, self.whole = session, found, whole
        self.taken: Counter[str] = Counter()
        self.repairs: Counter[str] = Counter()
        self._clock = Event.objects.filter(session=session).aggregate(at=Max("at"))["at"] or found.born
        self._switches = list(found.switches)
        self._agent = self._switches[0].source if self._switches else found.agent
        self._waiting = found.waiting
        self._runs: dict[RunState, Run] = {}

    # --- the log ---

    def _tell(self, change: Change, at: datetime, type_: str, data: dict[str, Any], **links: Any) -> None:
        """An event of the time when it happened; the log's times never go back."""
        event = change.event(type_, {**data, "imported": True}, **links)
        change.cause = ""
        self._clock = event.at = max(self._clock, at)

    # --- messages ---

    def store(self, change: Change, some: Sequence[Placed]) -> None:
        """Adds these messages, each with the answers to its calls."""
        change.owed = False
        keys = [row.key for place in some for row in (place.row, *place.answers) if row is not None]
        rows = self.whole(keys)
        for place in some:
            self._switch_until(change, place.row.at)
            row = rows[place.row.key]
            if place.row.role == Message.USER:
                self._say(change, place.row, row)
            else:
                self._answer(change, place, row, rows)

    def _say(self, change: Change, light: Light, row: Row) -> None:
        content = repair.text(row["content"])
        message = change.message(Message.USER, content, name=_name(row), created_at=light.at)
        services.give_title(change.session, message)
        self._tell(change, light.at, events.MESSAGE_RECEIVED, {"role": Message.USER}, message=message)
        self.taken["messages"] += 1

    def _answer(self, change: Change, place: Placed, row: Row, rows: dict[Any, Row]) -> None:
        light, content = place.row, repair.text(row["content"])
        calls = repair.calls_of(row["tool_calls"], Counter())  # counted when they were arranged
        waits = bool(self._waiting) and place is self.found.placed[-1]
        run = self._run(change, light.at, RunState.WAITING if waits else RunState.COMPLETED) if calls else None
        message = change.message(
            Message.ASSISTANT, content, name=_name(row), created_at=light.at, run=run, agent=self._agent,
            tool_calls=[_openai(call_id, call) for call_id, call in zip(place.call_ids, calls, strict=True)] or None,
        )  # fmt: skip
        self._tell(change, light.at, events.MESSAGE_OPENED, {"agent": self._agent}, message=message, run=run)
        told = {"is_final": not calls, "shown": bool(content)}
        self._tell(change, light.at, events.MESSAGE_COMPLETED, told, message=message, run=run)
        self.taken["messages"] += 1
        for call_id, call, answer in zip(place.call_ids, calls, place.answers, strict=True):
            assert run is not None  # noqa: S101  for the type checker
            waiting = waits and call.call_id in self._waiting
            kept = self._keep(
                change, run, message, call_id, call, rows[answer.key] if answer else None, waiting=waiting
            )
            if waiting or call.call_id not in self._waiting:  # else its id was used twice, and a later one waits
                self._approve(change, kept, self.found.approvals.pop(call.call_id, None), waiting=waiting)
        if waits and run is not None:
            self._tell(change, light.at, events.TASK_PAUSED, {}, run=run)

    def _run(self, change: Change, at: datetime, state: RunState) -> Run:
        """Calls belong to runs: all that have ended to one, those that wait to another."""
        if state not in self._runs:
            over = {"ended_at": at, "counted": True} if state == RunState.COMPLETED else {"attempt": 1, "steps": 1}
            run = Run(session=change.session, state=state, request=IMPORTED, agent=self._agent, **over)
            run.created_at = run.started_at = at
            run.save(force_insert=True)
            self._runs[state] = run
            if state == RunState.WAITING:
                self._tell(change, at, events.TASK_STARTED, {"agent": self._agent}, run=run)
        return self._runs[state]

    def _keep(
        self, change: Change, run: Run, message: Message, call_id: str, call: Call, row: Row | None, *, waiting: bool
    ) -> ToolCall:
        content = repair.text(row["content"]) if row else NO_RESULT
        failed = content.startswith(FAILED)
        state = ToolCallState.FAILED if failed else ToolCallState.COMPLETED
        kept = ToolCall(
            session=change.session, run=run, message=message, call_id=call_id, name=call.name, agent=message.agent,
            arguments=call.arguments, requested_at=message.created_at,
            state=ToolCallState.PENDING if waiting else state if row else ToolCallState.CLOSED,
            ended_at=None if waiting else message.created_at, counted=not waiting,
            result_hash=Result(call_id, content, failed).hash if row else "",
        )  # fmt: skip
        change.add(kept)
        if not waiting:
            at = repair.moment(row["timestamp"]) if row else None
            answered = {"tool_call_id": call_id, "name": call.name, "created_at": at or message.created_at}
            change.message(Message.TOOL, content, **answered)
            self.taken["messages"] += row is not None
            self.repairs[repair.UNANSWERED] += row is None
        return kept

    def _approve(self, change: Change, call: ToolCall, row: Row | None, *, waiting: bool) -> None:
        if row is None:
            return
        at = repair.moment(row["created_at"]) or call.requested_at
        call.requires_approval = True
        reason = repair.text(row["reason"])[:REASON_CHARACTERS]
        if not waiting:
            state = DECIDED.get(str(row["status"]).lower(), ApprovalState.CLOSED)
            ended = {"state": state, "created_at": at, "decided_at": at, "counted": True}
            told = {"arguments": call.arguments, "arguments_hash": approvals.hash_of(call.arguments)}
            change.add(Approval(session=change.session, call=call, reason=reason, **told, **ended))
            self.taken["approvals that have ended"] += 1
            return
        approval = approvals.ask(change, call, reason=reason)  # its time begins now: nobody here saw it before
        approval.created_at = at
        shown = {"call_id": call.call_id, "tool_name": call.name, "arguments": call.arguments, "agent": call.agent}
        self._tell(change, at, events.TOOL_APPROVAL_REQUIRED, {**shown, **approvals.told(approval)}, run=call.run)
        self._tell(change, at, events.TOOL_CALL_REQUESTED, {**shown, "requires_approval": True}, run=call.run)
        self.taken["approvals that wait"] += 1

    # --- switches ---

    def _switch_until(self, change: Change, at: datetime | None) -> None:
        while self._switches and (at is None or self._switches[0].at <= at):
            one = self._switches.pop(0)
            told = {
                "from_agent": one.source, "to_agent": one.target, "reason": one.reason, "confidence": one.confidence,
            }  # fmt: skip
            self._tell(change, one.at, events.AGENT_SWITCHED, {**told, "is_final": True})
            change.add(AgentSwitch(session=change.session, **told, switched_at=one.at))
            self._agent = change.session.current_agent = one.target
            change.session.switch_count += 1
            change.session.last_switch_at = one.at
            self.taken["agent switches"] += 1

    # --- the rest ---

    def finish(self, change: Change, *, is_new: bool) -> None:
        """The switches after the last message, and what the session itself says."""
        change.owed = False
        self._switch_until(change, None)
        session, row = change.session, self.found.row
        moments = [one for one in (self.found.last_activity, session.last_activity) if one is not None]
        session.last_activity = (self.found.last_activity or self._clock) if is_new else max(moments)
        if is_new:
            session.current_agent = self.found.agent
            session.switch_count = max(session.switch_count, self.found.switch_count)
            session.is_active = repair.truthy(row["is_active"], default=True)
        kept = session.agent_switches.order_by("-switched_at", "-id").values_list("pk", flat=True)[
            : services.KEPT_SWITCHES
        ]
        session.agent_switches.exclude(pk__in=list(kept)).delete()

    def take_late_answers(self, change: Change) -> None:
        """Answers to calls that were taken over without one; then a run that was taken over waits no longer."""
        change.owed = False
        rows = self.whole([one.key for one in self.found.orphans])
        for light in self.found.orphans:
            call = ToolCall.objects.filter(session=change.session, call_id=light.answers).select_related("run").first()
            if call is None or not self._take_late(change, call, repair.text(rows[light.key]["content"])):
                self.repairs[repair.ORPHANS_LEFT_OUT] += 1
        for run in Run.objects.filter(session=change.session, state=RunState.WAITING, request=IMPORTED):
            closing.close_calls(change, run, reason="it went on where it was taken over from")
            closing.end_run(change, run, RunState.SUPERSEDED, events.TASK_SUPERSEDED)

    def _take_late(self, change: Change, call: ToolCall, content: str) -> bool:
        failed = content.startswith(FAILED)
        ended = {
            "state": ToolCallState.FAILED if failed else ToolCallState.COMPLETED,
            "result_hash": Result(call.call_id, content, failed).hash,
            "ended_at": change.now,
        }
        if call.state == ToolCallState.PENDING:
            change.message(Message.TOOL, content, tool_call_id=call.call_id, name=call.name)
            Approval.objects.filter(call=call, state=ApprovalState.PENDING).update(
                state=ApprovalState.APPROVED, decided_at=change.now, counted=True
            )
            ended["counted"] = True
        else:
            answer = Message.objects.filter(session=change.session, role=Message.TOOL, tool_call_id=call.call_id)
            if not answer.filter(content=NO_RESULT).update(content=content):
                return False
        ToolCall.objects.filter(pk=call.pk).update(**ended)
        self.taken["messages"] += 1
        return True


def _openai(call_id: str, call: Call) -> dict[str, Any]:
    arguments = strict_json.dumps(call.arguments)
    return {"id": call_id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _name(row: Row) -> str:
    return repair.text(row["name"])[: repair.NAME_CHARACTERS]
