"""One message to a draft of an agent, as the model would be asked by it: nothing is stored, nothing is carried out.

It passes the circuit breaker like every request to the model, and is bounded in time, size and number.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from django.utils.translation import gettext as _

from agents_app import breaker, llm, tools
from agents_app.agents import Agent
from agents_app.llm_types import RequestedCall, Usage
from agents_app.runner import model_of, request_body
from agents_app.tools import ToolRefused
from sessions_app import strict_json
from sessions_app.conf import settings
from sessions_app.errors import AnswerTooLong, LLMTimeout, RuntimeFault

logger = logging.getLogger(__name__)
SECONDS = 60.0
MAX_MESSAGE_CHARACTERS = 20_000
AT_ONCE = 4  # in this process
_places = threading.BoundedSemaphore(AT_ONCE)


@dataclass(frozen=True, slots=True)
class Asked:
    """A call that the model asked for: `arguments` as it wrote them where they are no JSON object, and why the call
    would be refused, if it would."""

    name: str
    arguments: Any
    refused: str = ""


@dataclass(slots=True)
class Outcome:
    """What came back, also of a request that failed half-way; `fault` is for people."""

    model: str
    text: str = ""
    reasoning: str = ""
    calls: list[Asked] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    first_token_ms: int | None = None
    took_ms: int = 0
    fault: str = ""


def unheard(text: str) -> None:
    """Nobody listens while it comes."""


async def run(
    agent: Agent, message: str, *, who: str, correlation_id: str = "", hear: Callable[[str], None] = unheard
) -> Outcome:
    """Asks the model once, in a session of nobody's. Raises nothing that the model or the way to it can cause. `hear`
    is called with each piece of the answer."""
    outcome, began = Outcome(model_of(agent)), time.monotonic()
    if not _places.acquire(blocking=False):
        outcome.fault = _("{count} drafts are being tried already. Try again in a moment.").format(count=AT_ONCE)
        return outcome
    try:
        async with asyncio.timeout(SECONDS):
            await _ask(agent, message, outcome, correlation_id, hear)
    except TimeoutError:
        outcome.fault = _told(LLMTimeout(reason=f"no end after {SECONDS:.0f} s"))
    except RuntimeFault as fault:
        outcome.fault = _told(fault)
    finally:
        _places.release()
        outcome.took_ms = round((time.monotonic() - began) * 1000)
    logger.info(
        "playground: %s tried %s: %s tokens in %s ms [%r]",
        who, agent.type, outcome.usage.total_tokens, outcome.took_ms, correlation_id,
    )  # fmt: skip
    return outcome


async def heard(agent: Agent, message: str, *, who: str, correlation_id: str = "") -> AsyncIterator[str | Outcome]:
    """The pieces of the answer as they come, then the outcome. Whoever stops listening stops the request."""
    pieces: asyncio.Queue[str | None] = asyncio.Queue()
    asking = asyncio.create_task(run(agent, message, who=who, correlation_id=correlation_id, hear=pieces.put_nowait))
    asking.add_done_callback(lambda _: pieces.put_nowait(None))
    try:
        while (piece := await pieces.get()) is not None:
            yield piece
        yield await asking
    finally:
        asking.cancel()


def _told(fault: RuntimeFault) -> str:
    """Why, also in the words that the log has: they are the runtime's own."""
    reason = fault.params.get("reason")
    return f"{fault.text()} ({fault.code}: {reason})" if reason else f"{fault.text()} ({fault.code})"


async def _ask(agent: Agent, message: str, outcome: Outcome, correlation_id: str, tell: Callable[[str], None]) -> None:
    pieces: list[str] = []
    size, began = 0, time.monotonic()

    def hear(text: str) -> None:
        nonlocal size
        if outcome.first_token_ms is None:
            outcome.first_token_ms = round((time.monotonic() - began) * 1000)
        pieces.append(text)
        size += len(text.encode())
        if size > settings.MAX_ANSWER_BYTES:
            raise AnswerTooLong(limit=settings.MAX_ANSWER_BYTES)
        tell(text)

    body = request_body(agent, [{"role": "user", "content": message}])
    async with breaker.passing(body["model"], counts=False) as passage:
        try:
            answer = await llm.stream(
                body, passage.listening(hear), correlation_id=correlation_id, may_retry=passage.may_retry
            )
        finally:
            outcome.text = "".join(pieces)
    outcome.text, outcome.reasoning, outcome.usage = answer.text, answer.reasoning, answer.usage
    outcome.model = answer.model or outcome.model
    outcome.calls = [_asked(agent, call) for call in answer.calls]


def _asked(agent: Agent, call: RequestedCall) -> Asked:
    """Judged as a turn would, short of the policy."""
    try:
        arguments = strict_json.loads(call.arguments) if call.arguments.strip() else {}
    except ValueError as error:
        return Asked(call.name, call.arguments, str(error))
    try:
        return Asked(call.name, tools.check(agent, call.name, arguments))
    except ToolRefused as refusal:
        return Asked(call.name, arguments, str(refusal))
