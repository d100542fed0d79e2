"""What a client's message makes the runtime do: the one door for SSE and WebSocket alike.

Each action is stored and started as one piece of work that goes on when its caller is gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from agents_app import agents, frames, jobs, messages, observing, policy, tools
from agents_app.frames import Frame
from agents_app.messages import HitlDecision, SwitchAgent, ToolResult, UserMessage
from agents_app.reader import Reader
from agents_app.supervisor import supervisor
from agents_app.tools import ToolRefused
from sessions_app import answers, database, failpoints, owners, runs, services, speech
from sessions_app.answers import Decision, Result
from sessions_app.conf import settings
from sessions_app.errors import (
    AgentSwitchRefused,
    ArgumentsRefused,
    CallForbidden,
    Draining,
    RuntimeFault,
    SessionNotFound,
    StorageUnavailable,
)
from sessions_app.models import Session, ToolCall
from sessions_app.queries import run as get_run
from sessions_app.queries import session as get_session
from sessions_app.steps import Outcome

MAX_REASON_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class Caller:
    """Who speaks, and under which correlation id."""

    name: str
    correlation_id: str = ""
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class Told:
    """What an action has to say: frames at once, or the reader of what follows; both begin after `after_seq`."""

    session: Session | None
    frames: Sequence[Frame] = ()
    reader: Reader | None = None
    run_id: int | None = None
    fault: RuntimeFault | None = None
    logged: bool = True
    after_seq: int = 0


async def take(session_id: str, message: messages.Message, raw: dict[str, Any], caller: Caller) -> Told:
    """Carries out a checked message. A refusal that people should read is an error frame, never an exception."""
    sample = message.content if isinstance(message, UserMessage) else ""
    try:
        if supervisor.draining and not isinstance(message, ToolResult | HitlDecision):
            raise Draining()  # a result or decision would be lost with its client: it is stored for who takes it on
        return await supervisor.finish(_act(session_id, message, raw, caller))
    except RuntimeFault as fault:
        return Told(None, [await _said(fault, sample, session_id)], fault=fault)


def refused(fault: RuntimeFault, message: messages.Message) -> Told:
    """A refusal before anything was looked at."""
    sample = message.content if isinstance(message, UserMessage) else ""
    return Told(None, [frames.error(fault, speech.say(fault, sample))], fault=fault)


async def _said(fault: RuntimeFault, sample: str, session_id: str) -> Frame:
    if not sample and not isinstance(fault, SessionNotFound | StorageUnavailable):
        sample = await database.read(_title, session_id)
    return frames.error(fault, speech.say(fault, sample))


def _title(session_id: str) -> str:
    named = owners.visible(Session.objects.filter(session_id=session_id))
    return named.values_list("title", flat=True).first() or ""


async def _act(session_id: str, message: messages.Message, raw: dict[str, Any], caller: Caller) -> Told:
    if isinstance(message, SwitchAgent):
        return await database.write(session_id, _switch, session_id, message, caller)
    began = datetime.now(UTC)
    outcome = await _outcome(session_id, message, raw, caller)
    failpoints.hit(f"{message.type}-stored")
    if outcome.work is not None:
        observing.stored(outcome.work.run, message.type, began)
        supervisor.start(outcome.work)
    if outcome.fault is not None:
        raise outcome.fault
    if outcome.run is not None and outcome.follow and outcome.work is None:
        supervisor.drop_later(outcome.run)
    return _told(outcome)


async def _outcome(
    session_id: str, message: UserMessage | ToolResult | HitlDecision, raw: dict[str, Any], caller: Caller
) -> Outcome:
    owner, known = supervisor.starter, agents.types()
    if isinstance(message, UserMessage):
        request = _request(message, raw, caller)
        return await jobs.write(session_id, runs.submit, session_id, request, owner, known)
    if isinstance(message, ToolResult):
        result = Result(message.call_id, message.text, message.failed, _mode(message))
        return await jobs.write(session_id, answers.answer, session_id, result, caller.name, owner, known)
    decision = Decision(
        message.call_id, message.decision, message.feedback or "", _mode(message), message.arguments_hash or ""
    )
    check = LastLook(message.modified_arguments if message.decision == "edit" else None)
    return await jobs.write(session_id, answers.decide, session_id, decision, caller.name, owner, known, check)


def _request(message: UserMessage, raw: dict[str, Any], caller: Caller) -> runs.Request:
    return runs.Request(
        content=message.content,
        agent=message.agent_type or "",
        on_busy=message.on_busy or settings.ON_BUSY,
        stream_mode=_mode(message),
        from_ide=settings.STREAM_MODE == "auto" and messages.from_ide(raw),
        key=message.message_id or "",
        correlation_id=caller.correlation_id,
        who=caller.name,
        traceparent=caller.traceparent,
    )


def _mode(message: messages.Message) -> str:
    return message.stream_mode if message.stream_mode in ("tokens", "messages") else ""


@dataclass(frozen=True, slots=True)
class LastLook:
    """What is about to be carried out: a call's own arguments, or new ones, which pass the checks that the model's
    had to pass. The rules are those of now: what was asked about yesterday may be forbidden today."""

    edited: dict[str, Any] | None = None

    def __call__(self, call: ToolCall, session: Session) -> dict[str, Any]:
        arguments = self._checked(call)
        verdict = policy.for_session(session).judge(tools.get(call.name), call.agent, arguments)
        if verdict.forbidden:
            raise CallForbidden(call_id=call.call_id, reason=verdict.reason)
        return arguments

    def _checked(self, call: ToolCall) -> dict[str, Any]:
        if self.edited is None:
            return dict(call.arguments)
        try:
            return tools.check(agents.get(call.agent), call.name, self.edited)
        except ToolRefused as refusal:
            raise ArgumentsRefused(why=str(refusal)) from None


def _switch(session_id: str, message: SwitchAgent, caller: Caller) -> Told:
    """The agent_switched frame; nothing is recorded when the agent is the current one."""
    reason = (message.reason or "User requested")[:MAX_REASON_CHARACTERS]
    before = get_session(session_id)
    told = {"to_agent": message.agent_type, "reason": reason, "confidence": "high", "is_final": True}
    try:
        session = services.switch_agent(
            session_id,
            message.agent_type,
            reason=reason,
            confidence="high",
            correlation_id=caller.correlation_id,
            who=caller.name,
        )
        recorded = True
    except AgentSwitchRefused:
        session, recorded = before, False
    chunk = frames.switched({"from_agent": before.current_agent, **told})
    frame = frames.chunk_frame(chunk, frames.cursor_at(session, session.last_seq))
    return Told(session, [frame], after_seq=before.last_seq, logged=recorded)


def _told(outcome: Outcome) -> Told:
    session, run = outcome.session, outcome.run
    run_id = run.id if run else None
    if run is None or not outcome.follow:  # the frames of what happened are all there is
        told = [frames.event_frame(event, frames.cursor_at(session, event.seq)) for event in outcome.events]
        before = outcome.events[0].seq - 1 if outcome.events else session.last_seq
        return Told(session, [frame for frame in told if frame is not None], run_id=run_id, after_seq=before)
    known = outcome.events if outcome.work is not None else None
    reader = Reader(session, outcome.after_seq, run_id, whole(session, run.stream_mode), known)
    return Told(session, reader=reader, run_id=run_id)


async def retry(session_id: str, caller: Caller, run_id: int | None = None) -> Told:
    """Runs the last turn again. Raises RuntimeFault."""
    if supervisor.draining:
        raise Draining()
    return await supervisor.finish(_retry(session_id, run_id, caller))


async def retry_run(run_id: int, caller: Caller) -> Told:
    run = await database.read(get_run, run_id)
    return await retry(run.session.session_id, caller, run.id)


async def _retry(session_id: str, run_id: int | None, caller: Caller) -> Told:
    args = (session_id, supervisor.starter, agents.types())
    outcome = await jobs.write(session_id, runs.retry, *args, run_id=run_id, who=caller.name)
    if outcome.work is not None:
        supervisor.start(outcome.work)
    return _told(outcome)


def whole(session: Session, mode: str = "") -> bool:
    """Whether a reader gets whole messages instead of tokens."""
    if not mode:
        mode = settings.STREAM_MODE if settings.STREAM_MODE != "auto" else session.stream_mode
    return mode == "messages"
