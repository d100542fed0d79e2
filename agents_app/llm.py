"""The seam to the language model: `stream` an answer, or `ask` for one whole. Knows nothing of sessions or runs.

A broken model ends in an `LLMFault`, after the text that came before it was handed on; what it says of itself, keys and
addresses are in no error. `error.params["reason"]` is for logs.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from agents_app import demo_model, llm_failures, llm_upstream
from agents_app.llm_assembly import Assembly
from agents_app.llm_failures import MAX_ATTEMPTS, Again
from agents_app.llm_reading import Bound, Reading
from agents_app.llm_types import Answer as Answer
from agents_app.llm_types import RequestedCall as RequestedCall
from agents_app.llm_types import Usage as Usage
from agents_app.llm_upstream import Upstream
from agents_app.llm_wire import Connection, WireBroken
from sessions_app.conf import settings
from sessions_app.errors import AnswerTooLong, LLMCut, LLMFault, LLMGarbage, LLMTimeout, LLMUnavailable

DEMO_MODEL = "fake-llm"
ERROR_BYTES = 65_536
MayRetry = Callable[[], Awaitable[bool]]
OnDelta = Callable[[str], None]

close = llm_upstream.close
logger = logging.getLogger(__name__)


async def _always() -> bool:
    return True


def _nobody_hears(text: str) -> None:
    """The answer is wanted whole."""


async def stream(
    body: dict[str, Any],
    on_delta: OnDelta,
    *,
    correlation_id: str = "",
    spent_seconds: float = 0,
    may_retry: MayRetry = _always,
) -> Answer:
    """Asks the model, calls `on_delta` with each piece of text as it comes, and returns the whole.

    `body` is {"model", "messages", "tools"?, "temperature"?}. `on_delta` is called once for all that one read brought;
    what it raises ends the request and is raised here. Tried again only while nothing was shown. Cancelling the task
    closes the connection. `spent_seconds` of the retry budget are gone already, on routing and earlier steps, and
    `may_retry` is asked before every further attempt. A model that fails is followed by those of LLM_FALLBACK_MODELS;
    the answer says which. Raises the LLMFault family, and AnswerTooLong beyond MAX_ANSWER_BYTES.
    """
    if is_demo(body["model"]):
        return await _demo(body, on_delta)
    upstream = llm_upstream.here()
    request = _Request(upstream, body, on_delta, correlation_id, streams=await upstream.streams())
    return await request.answered(spent_seconds, may_retry)


async def ask(body: dict[str, Any], *, correlation_id: str = "") -> Answer:
    """One attempt, without streaming, within LLM_ROUTING_TIMEOUT_SECONDS. Raises the LLMFault family only."""
    try:
        if is_demo(body["model"]):
            return await _demo(body, _nobody_hears)
        request = _Request(llm_upstream.here(), body, _nobody_hears, correlation_id, streams=False)
        return await request.attempt(settings.LLM_ROUTING_TIMEOUT_SECONDS)
    except Again as again:
        raise again.fault from None
    except AnswerTooLong:
        raise LLMGarbage(reason="answer too long") from None


class _Request:
    def __init__(
        self, upstream: Upstream, body: dict[str, Any], on_delta: OnDelta, correlation_id: str, *, streams: bool
    ) -> None:
        self.upstream = upstream
        self.body = body
        self.on_delta = on_delta
        self.spoken = False  # some text was handed on
        self.correlation_id = correlation_id
        self.streams = streams

    async def answered(self, spent_seconds: float = 0, may_retry: MayRetry = _always) -> Answer:
        """The answer of the first model that gives one; the next is asked while nothing was shown and time is left."""
        now = time.monotonic
        began = now()
        first, *others = dict.fromkeys([str(self.body["model"]), *settings.LLM_FALLBACK_MODELS])
        try:
            return await self._answered_by(first, began, spent_seconds, may_retry)
        except LLMFault as error:
            fault = error
        for model in others:
            late = spent_seconds + now() - began > settings.LLM_RETRY_BUDGET_SECONDS
            if late or self.spoken or not llm_failures.is_the_models(fault) or not await may_retry():
                break
            logger.info("model: %s, %r is asked instead [%r]", fault.params.get("reason"), model, self.correlation_id)
            try:
                answer = await self._answered_by(model, began, spent_seconds, may_retry)
            except LLMFault as error:
                fault = error
            else:
                answer.model = model
                return answer
        raise fault from None

    async def _answered_by(self, model: str, began: float, spent_seconds: float, may_retry: MayRetry) -> Answer:
        """Attempts until one is answered, has shown something, or none can end within the retry budget any more."""
        self.body = {**self.body, "model": model}
        now = time.monotonic
        total = settings.LLM_STREAM_TOTAL_TIMEOUT_SECONDS if self.streams else settings.LLM_TOTAL_TIMEOUT_SECONDS
        for attempt in range(1, MAX_ATTEMPTS + 1):
            asked_at = now()
            try:
                return await self.attempt(began + total - asked_at)
            except Again as again:
                delay, took = again.delay_seconds(attempt), now() - asked_at
                late = spent_seconds + now() + delay + took - began > settings.LLM_RETRY_BUDGET_SECONDS
                if late or attempt == MAX_ATTEMPTS or self.spoken or not await may_retry():
                    raise again.fault from None
                logger.info(
                    "model: %s, tried again in %.1f s [%r]", again.fault.params["reason"], delay, self.correlation_id
                )
            await asyncio.sleep(delay)
        raise LLMUnavailable  # pragma: no cover  the last attempt returns or raises

    async def attempt(self, total_seconds: float) -> Answer:
        bound = Bound(total_seconds, streams=self.streams)
        reading = Reading(self.on_delta if self.streams else _nobody_hears, bound)
        try:
            async with bound.timer:
                await self._exchange(reading)
        except TimeoutError:
            if not reading.finished:
                raise LLMTimeout(reason="silence") from None
        except WireBroken as error:
            self._broken(reading, error)
        finally:
            bound.close()
            self.spoken = self.spoken or (self.streams and reading.spoken)
        return reading.assembly.answer()

    async def _exchange(self, reading: Reading) -> None:
        payload = self._payload()
        async with self.upstream.asked(payload, self.correlation_id) as answer:
            if 200 <= answer.status < 300:
                reading.began = True
                return await self._read(answer, reading)
            error = await _start_of(answer, ERROR_BYTES)
        if "stream_options" in payload and llm_failures.is_about_stream_options(answer.status, error):
            self.upstream.takes_stream_options = False
            return await self._exchange(reading)
        raise llm_failures.failure_of(answer.status, error, answer.headers.get("retry-after"))

    async def _read(self, answer: Connection, reading: Reading) -> None:
        if answer.headers.get("content-encoding", "identity") != "identity":
            raise LLMGarbage(reason="compressed, though asked not to be")
        await answer.read(reading.feed)
        reading.end()
        if not self.streams:
            self._say_whole(reading.assembly.text())

    def _say_whole(self, text: str) -> None:
        if failure := llm_failures.proxy_failure(text):
            raise failure
        if text:
            self.spoken = True
            self.on_delta(text)

    def _payload(self) -> dict[str, Any]:
        payload = {**self.body, "stream": self.streams}
        if self.streams and self.upstream.takes_stream_options:
            payload["stream_options"] = {"include_usage": True}
        return payload

    def _broken(self, reading: Reading, error: WireBroken) -> None:
        """A connection that broke after the model had finished is no fault."""
        reason = str(error)
        if not reading.began:
            raise Again(LLMUnavailable(reason=reason)) from None
        if not reading.finished:
            raise LLMCut(reason=reason) from None


class _Enough(Exception):
    """The rest need not be read."""


async def _start_of(answer: Connection, most_bytes: int) -> bytes:
    start = bytearray()

    def hear(data: bytes) -> None:
        start.extend(data)
        if len(start) > most_bytes:
            raise _Enough

    with suppress(_Enough):
        await answer.read(hear)
    return bytes(start[:most_bytes])


def is_demo(model: str) -> bool:
    """Whether the built-in model answers, and there is no upstream at all."""
    return model == DEMO_MODEL and not settings.LLM_PROXY_URL


async def _demo(body: dict[str, Any], on_delta: OnDelta) -> Answer:
    assembly = Assembly()
    async for chunk in demo_model.chunks(body):
        if text := assembly.add(chunk):
            on_delta(text)
    return assembly.answer()
