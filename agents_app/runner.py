"""A turn: asks the model step by step, streams what it says, has its calls carried out, until it ends or waits.

A Turn is a task of its own, owned by the supervisor; readers only listen. Two transactions for a plain turn, and none
of them, nor a lock or a connection, is held while the model speaks.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, ParamSpec, TypeVar

from agents_app import agents, breaker, definitions, genai, live, llm, planning, policy, routing, tools, tracing
from agents_app.llm_types import Answer
from agents_app.planning import Counters, Planner
from sessions_app import clock, database, events, failpoints, history, speech, steps, toolcalls
from sessions_app.conf import settings
from sessions_app.errors import (
    ContextTooLong,
    LeaseLost,
    LLMFault,
    RunCancelled,
    RuntimeFault,
    StepLimit,
    StorageUnavailable,
    TurnTooLong,
)
from sessions_app.models import ORCHESTRATOR, LLMRequest, Message, Run, RunState, Session
from sessions_app.steps import Work
from sessions_app.toolcalls import Plan

P = ParamSpec("P")
T = TypeVar("T")
logger = logging.getLogger(__name__)
ROUTING_TEMPERATURE = 0.3
CHARACTERS_PER_TOKEN = 2.5
MAX_TRIMS = 8
STORING_SECONDS = 600
AGAIN_SECONDS = 0.5


@dataclass(slots=True)
class Request:
    """One request to the model, as it is recorded."""

    purpose: str
    agent: str
    model: str
    started_at: Any
    began: float
    first_token_ms: int | None = None
    agent_version: int | None = None

    @classmethod
    def start(cls, purpose: str, agent: agents.Agent) -> Request:
        now = datetime.now(UTC), time.monotonic()
        return cls(purpose, agent.type, model_of(agent), *now, agent_version=agent.version)

    def elapsed_ms(self) -> int:
        return round((time.monotonic() - self.began) * 1000)

    def record(self, answer: Answer | None = None, fault: RuntimeFault | None = None) -> dict[str, Any]:
        usage = answer.usage if answer else None
        return {
            "purpose": self.purpose,
            "agent": self.agent,
            "agent_version": self.agent_version,
            "model": (answer.model if answer else "")[:255] or self.model,
            "started_at": self.started_at,
            "duration_ms": self.elapsed_ms(),
            "first_token_ms": self.first_token_ms,
            "prompt_tokens": usage.prompt_tokens if usage else 0,
            "completion_tokens": usage.completion_tokens if usage else 0,
            "total_tokens": usage.total_tokens if usage else 0,
            "has_tool_calls": bool(answer and answer.calls),
            "success": fault is None,
            "error": fault.code if fault else "",
        }


class Turn:
    """One run at work in this process."""

    __slots__ = (
        "_growing", "_held", "_leased_until", "_saved", "_spoken", "_stopped", "_task", "agent", "answering",
        "began", "counters", "ended_with", "fault_code", "first_token_ms", "queue_behind", "request", "run",
        "sample", "session", "stopped_by", "traceparent", "work",
    )  # fmt: skip

    def __init__(self, work: Work) -> None:
        self.work: Work | None = work
        self.run: Run = work.run
        self.session = work.session
        self.counters = Counters(work.run.steps, work.run.switches, work.run.mistakes)
        self.sample = next((row.content for row in reversed(work.history) if row.role == Message.USER), "")
        self.request: Request | None = None
        self.began = time.monotonic()
        self.queue_behind = False
        self.agent = self.traceparent = ""
        self.answering: agents.Agent = agents.get(ORCHESTRATOR)
        self.ended_with = self.fault_code = ""
        self.first_token_ms: int | None = None
        self.stopped_by: RuntimeFault | None = None
        self._leased_until = time.monotonic() + lease_left(work.run)
        self._held: list[str] = []
        self._growing: live.Growing | None = None  # the open message's text
        self._spoken = False  # the model, in the request that runs
        self._saved = (0, 0)
        self._task: asyncio.Task[None] | None = None
        self._stopped = False

    @property
    def text(self) -> str:
        """What there is of the open message: what has been shown, and what a doubt about the lease holds back."""
        message = self.work.message if self.work else None
        shown = (live.text_of(self.session.id, message.id) or "") if message else ""
        return shown + "".join(self._held)

    def unsaved_text(self) -> str:
        """The text so far when it has grown since it was stored."""
        text, message = self.text, self.work.message if self.work else None
        return text if (message.id if message else 0, len(text)) != self._saved else ""

    def saved(self, message_id: int, text: str) -> None:
        self._saved = (message_id, len(text))

    def renewed(self, leased_until: float) -> None:
        """The lease is known to be ours until then: what was held back may be shown."""
        self._leased_until = leased_until
        held, self._held = self._held, []
        if held and self._growing is not None:
            self._growing.grow("".join(held))

    async def _write(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Stores a step, as soon as the storage is there: what the model has said is not lost because it is away."""
        until = time.monotonic() + STORING_SECONDS
        while True:
            try:
                with tracing.span("database", {genai.DB_OPERATION: call.__name__}):
                    return await database.write(self.session.session_id, call, *args, **kwargs)
            except StorageUnavailable:
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(AGAIN_SECONDS)

    def stop(self, fault: RuntimeFault | None) -> None:
        """Ends the turn with a fault; without one it is somebody else's already, and nothing is written."""
        if not self._stopped:
            self._stopped, self.stopped_by = True, fault
            if self._task is not None:  # a task cancelled before its first step would not run at all
                self._task.cancel()

    async def go(self) -> None:
        """Runs the turn to its end. Whatever happens, the run ends or waits, unless somebody else owns it."""
        self._task = asyncio.current_task()
        try:
            if self._stopped:
                raise asyncio.CancelledError
            while self.work is not None:
                self.work = await self._step(self.work)
        except LeaseLost:
            logger.info("run %s: not ours any more", self.run.id)
        except asyncio.CancelledError:
            if self.stopped_by is not None:
                await self._end(self.stopped_by)
        except RuntimeFault as fault:
            await self._end(fault)
        except Exception:
            logger.exception("run %s of session %s failed", self.run.id, self.session.id)
            await self._end(RuntimeFault())
        finally:
            self._close_text()

    async def _step(self, work: Work) -> Work | None:
        if self.counters.steps >= settings.MAX_STEPS_PER_RUN:
            raise StepLimit(limit=settings.MAX_STEPS_PER_RUN)
        message = work.message
        if message is None:
            return await self._route(work)
        self.counters.steps += 1
        self.agent = work.agent
        await definitions.loaded()
        self.answering = agents.get(work.agent)  # the step is judged by what its request was made with
        self._growing = live.open_text(self.session.id, message.id)
        answer = await self._answer(work)
        record = self._recorded(answer)
        failpoints.hit("answered")
        if answer.calls:
            outcome, self.counters = await self._write(carry_out, self, message, answer, record)
        else:
            counters = planning.vars_of(self.counters)
            said = (answer.text, answer.reasoning, record, counters)
            outcome = await self._write(steps.complete, self.run, message, *said)
        self._ended(outcome)
        self._close_text()
        return outcome.work

    def _ended(self, outcome: steps.Outcome) -> None:
        self.queue_behind = bool(outcome.session.has_queue)  # type: ignore[attr-defined]
        if outcome.work is None:
            self.ended_with = outcome.events[-1].type

    def _recorded(self, answer: Answer) -> dict[str, Any]:
        """The request as it is kept; from here on it cannot fail any more."""
        request, self.request = self.request or Request.start(LLMRequest.ANSWER, self.answering), None
        return request.record(answer)

    def _close_text(self) -> None:
        message, self._held = self.work.message if self.work else None, []
        if message is not None:
            live.close_text(self.session.id, message.id)

    # --- the model ---

    async def _answer(self, work: Work) -> Answer:
        """The model's answer, streamed; the oldest exchanges are left out when it does not fit."""
        entries = history.build(work.history)
        if settings.LLM_CONTEXT_TOKENS:
            entries = await self._trim(entries, room_for_history(self.answering))
        for _ in range(MAX_TRIMS):
            try:
                return await self._stream(self.answering, entries)
            except ContextTooLong:
                if self._spoken:
                    raise
                before = history.size(entries)
                entries = await self._trim(entries, before // 2)
                if history.size(entries) >= before:
                    raise
        raise ContextTooLong()

    async def _trim(self, entries: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
        kept = history.trimmed(entries, most)
        if kept != entries:
            told = {"left_out": len(entries) - len(kept), "kept": len(kept)}
            await self._write(steps.note, self.run, events.HISTORY_TRIMMED, told)
        return kept

    async def _stream(self, agent: agents.Agent, entries: list[dict[str, Any]]) -> Answer:
        self.request, self._spoken = Request.start(LLMRequest.ANSWER, agent), False
        remaining = settings.MAX_TURN_SECONDS - self.run.active_seconds - (time.monotonic() - self.began)
        if remaining <= 0:  # the model is not asked: it might be quicker than any timer
            raise _too_long()
        try:
            async with asyncio.timeout(remaining) as bound:
                body = request_body(agent, entries)
                failpoints.hit("before-request")
                spent = time.monotonic() - self.began
                chat = genai.chat(model_of(agent), agent.type, streamed=True)
                async with breaker.passing(model_of(agent)) as passage:
                    with tracing.span(*chat, client=True) as span:
                        answer = await llm.stream(
                            body,
                            passage.listening(self._hear),
                            correlation_id=self.run.correlation_id,
                            spent_seconds=spent,
                            may_retry=passage.may_retry,
                        )
                        span.tell(genai.answered(answer, self.request.first_token_ms))
                        return answer
        except TimeoutError:
            if not bound.expired():
                raise
            raise _too_long() from None

    def _hear(self, text: str) -> None:
        """Called with each piece of the answer as it arrives."""
        if not self._spoken:
            self._spoke_first()
        # A process that was frozen, or has lost the database, may have lost the run: nobody sees what is not stored.
        if time.monotonic() > self._leased_until:
            self._held.append(text)
        elif self._growing is not None:
            self._growing.grow(text)
        if failpoints.ARMED:  # here an empty call would be something
            failpoints.hit("token")

    def _spoke_first(self) -> None:
        self._spoken = True
        if self.request is not None:
            self.request.first_token_ms = self.request.elapsed_ms()
        self.first_token_ms = self.first_token_ms or round((time.monotonic() - self.began) * 1000)

    # --- routing ---

    async def _route(self, work: Work) -> Work:
        """Lets the model choose who answers; keywords when it cannot."""
        with tracing.span("route") as span:
            verdict, record = await self._verdict(work)
            span.tell({genai.AGENT: verdict.agent, genai.OUTCOME: verdict.by})
        chosen = {"agent": verdict.agent, "confidence": verdict.confidence, "reasoning": verdict.reasoning}
        return await self._write(steps.routed, self.run, work.history, chosen, record, verdict.by, agents.types())

    async def _verdict(self, work: Work) -> tuple[routing.Verdict, dict[str, Any] | None]:
        if not settings.MULTI_AGENT_MODE:
            return routing.Verdict("universal", "high", "One agent does everything here", "model"), None
        recent = [row.agent for row in work.history if row.role == Message.ASSISTANT and row.agent]
        await definitions.loaded()
        router = agents.get(ORCHESTRATOR)
        temperature = ROUTING_TEMPERATURE if router.temperature is None else router.temperature
        body: dict[str, Any] = {"model": model_of(router), "temperature": temperature}
        body["messages"] = routing.request(self.sample, recent_agents=recent)
        request = Request.start(LLMRequest.ROUTING, router)
        try:
            async with breaker.passing(body["model"], counts=False):
                with tracing.span(*genai.chat(body["model"], router.type, streamed=False), client=True) as span:
                    answer = await llm.ask(body, correlation_id=self.run.correlation_id)
                    span.tell(genai.answered(answer, None))
        except LLMFault as fault:
            return routing.keywords(self.sample, recent_agents=recent), request.record(fault=fault)
        verdict = routing.parse(answer.text)
        return verdict or routing.keywords(self.sample, recent_agents=recent), request.record(answer)

    # --- the end ---

    async def _end(self, fault: RuntimeFault) -> None:
        """Stores the text so far and the error that ends the turn."""
        self._stopped = True  # nothing stops it any more
        message = self.work.message if self.work else None
        state, event = _ending(fault)
        self.fault_code = fault.code
        record = self.request.record(fault=fault) if self.request else None
        said = speech.say(fault, self.sample)
        try:
            outcome = await asyncio.shield(
                self._write(
                    steps.fail, self.run, message.id if message else None, self.text, fault, said,
                    record=record, state=state, event=event, counters=planning.vars_of(self.counters),
                )
            )  # fmt: skip
            self._ended(outcome)
        except RuntimeFault as problem:
            logger.warning("run %s: its end was not stored: %s", self.run.id, problem.code)


def _too_long() -> TurnTooLong:
    return TurnTooLong(limit=round(settings.MAX_TURN_SECONDS))


def _ending(fault: RuntimeFault) -> tuple[RunState, str]:
    if isinstance(fault, RunCancelled):
        return RunState.CANCELLED, events.TASK_CANCELLED
    if fault.code == "INTERRUPTED":
        return RunState.INTERRUPTED, events.TASK_INTERRUPTED
    return RunState.FAILED, events.TASK_FAILED


def lease_left(run: Run) -> float:
    """Seconds for which a run is ours whatever others do."""
    return (run.lease_until - clock.now()).total_seconds() if run.lease_until else 0.0


def model_of(agent: agents.Agent) -> str:
    return agent.model or str(settings.LLM_MODEL)


def request_body(agent: agents.Agent, entries: list[dict[str, Any]]) -> dict[str, Any]:
    """What goes up: one system message, the agent's own, then the history, and the agent's tools."""
    body: dict[str, Any] = {
        "model": model_of(agent),
        "messages": [{"role": "system", "content": agent.prompt}, *entries],
    }
    if schemas := tools.schemas(agent):
        body["tools"] = schemas
    if agent.temperature is not None:
        body["temperature"] = agent.temperature
    return body


def room_for_history(agent: agents.Agent) -> int:
    """Characters of the configured window that the prompt and the tools leave; a quarter of it in any case."""
    window = int(settings.LLM_CONTEXT_TOKENS * CHARACTERS_PER_TOKEN)
    return max(window - len(json.dumps(request_body(agent, []))), window // 4)


def carry_out(turn: Turn, message: Message, answer: Answer, record: dict[str, Any]) -> tuple[steps.Outcome, Counters]:
    """Plans the answer's calls and stores what becomes of them: one transaction, that may be run twice."""
    counters = Counters(**planning.vars_of(turn.counters))

    def plan(session: Session) -> Plan:
        planner = Planner(turn.answering, counters, policy.for_session(session))
        planned = planner.plan(answer.calls, lambda fault: speech.say(fault, turn.sample))
        if not turn.traceparent:
            return planned
        # What follows when the client has answered belongs to this trace.
        return replace(planned, counters={**planned.counters, "traceparent": turn.traceparent})

    args = (answer.text, answer.reasoning, record, plan, agents.types())
    return toolcalls.carry_out(turn.run, message, *args), counters
