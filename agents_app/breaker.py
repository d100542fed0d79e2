"""The circuit breaker around every request to the model: who may ask, and what the asking says of the upstream.

There is one for the upstream, not one a model: what it guards against is a proxy that is down. Its state is stored
(`sessions_app.breakers`), so that all processes share it and a restart keeps it; `_seen` is this process's copy, looked
at before each request and brought up to date every second and after every failure. A request that passes a closed
breaker and is answered costs no statement.

A turn is counted once, by its answer: routing has keywords to fall back on, and says nothing of a closed breaker.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from types import TracebackType

from agents_app import llm
from sessions_app import breakers, database
from sessions_app.breakers import Circuit, Verdict
from sessions_app.conf import settings
from sessions_app.errors import (
    AnswerTooLong,
    ContextTooLong,
    LLMCircuitOpen,
    LLMCut,
    LLMFault,
    LLMOutputLimit,
    LLMRateLimited,
    LLMRefused,
    LLMTimeout,
    LLMUnavailable,
    RuntimeFault,
)
from sessions_app.models import BreakerState

logger = logging.getLogger(__name__)
PROVEN_SECONDS = 10.0  # a probe that has spoken for so long need not come to its end first

_seen: Circuit | None = None
_probing: set[Passage] = set()
_settling: set[asyncio.Task[None]] = set()


class Passage:
    """The leave to make one request, with what belongs to it; `token` names the one probe."""

    def __init__(self, token: str = "", *, counts: bool = True) -> None:
        self.token = token
        self.counts = counts
        self.spoke_at: float | None = None

    async def may_retry(self) -> bool:
        """Whether a request that failed may be made again: never a probe, and not when the breaker is open by now."""
        if self.token:
            return False
        await refresh()
        return _seen is None or _seen.state == BreakerState.CLOSED

    def listening(self, hear: Callable[[str], None]) -> Callable[[str], None]:
        """The listener, with a note of a probe's first word."""
        if not self.token:
            return hear

        def heard(text: str) -> None:
            self.spoke_at = self.spoke_at or time.monotonic()
            hear(text)

        return heard


class passing:  # noqa: N801  what it is called as
    """Around one request to a model, its retries included. Raises LLMCircuitOpen, at once, where none may be made."""

    __slots__ = ("_counts", "_guarded", "_passage")

    def __init__(self, model: str, *, counts: bool = True) -> None:
        self._guarded, self._counts = not llm.is_demo(model) and settings.BREAKER_FAILURES > 0, counts

    async def __aenter__(self) -> Passage:
        self._passage = await _admitted(self._counts) if self._guarded else Passage(counts=False)
        return self._passage

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if not self._guarded:
            return
        if error is None:
            await _settle(self._passage, Verdict.ANSWERED)
        elif isinstance(error, Exception):
            await _settle(self._passage, verdict_of(error), getattr(error, "code", ""))
        else:  # cancelled: whoever stops a turn waits for nothing
            _settle_later(self._passage)


async def _admitted(counts: bool) -> Passage:
    if _seen is None:
        await refresh()
    if _seen is None or _seen.state == BreakerState.CLOSED:
        return Passage(counts=counts)
    passage = Passage(secrets.token_hex(8), counts=counts)
    try:
        circuit = await _change(partial(breakers.admitted, now=datetime.now(UTC), token=passage.token))
    except RuntimeFault:  # without storage nobody knows who probes
        circuit = _seen
    except asyncio.CancelledError:
        _settle_later(passage)
        raise
    if circuit.probe == passage.token:
        logger.info("circuit breaker: one request tries the upstream")
        _probing.add(passage)
        return passage
    if circuit.state == BreakerState.CLOSED:
        return Passage(counts=counts)
    raise LLMCircuitOpen(seconds=max(math.ceil(breakers.seconds_left(circuit)), 1), reason="circuit open")


def verdict_of(error: Exception) -> Verdict:
    if isinstance(error, LLMUnavailable | LLMTimeout | LLMCut):
        return Verdict.FAILED
    if isinstance(error, LLMRefused | LLMRateLimited | LLMOutputLimit | ContextTooLong | AnswerTooLong):
        return Verdict.REFUSED
    return Verdict.ODD if isinstance(error, LLMFault) else Verdict.NOTHING


async def _settle(passage: Passage, verdict: Verdict, error: str = "") -> None:
    """Writes down what a request has shown, where it changes anything."""
    _probing.discard(passage)
    token, passage.token = passage.token, ""
    if not token and not passage.counts:
        return
    transition = partial(breakers.settled, now=datetime.now(UTC), token=token, verdict=verdict, error=error)
    before = _seen or Circuit()
    if not token and transition(before) == before:
        return
    try:
        after = await _change(transition)
    except RuntimeFault as fault:
        logger.warning("circuit breaker: its state was not stored: %s", fault.code)
        _see(transition(before))
        return
    if after.state != before.state:
        logger.warning("circuit breaker: %s after %s failed turns", after.state, after.failures or before.failures)


def _settle_later(passage: Passage) -> None:
    if passage.token:
        task = asyncio.get_running_loop().create_task(_settle(passage, Verdict.NOTHING))
        _settling.add(task)
        task.add_done_callback(_settling.discard)


# --- this process's copy -----------------------------------------------------------------------------------------


def _see(circuit: Circuit) -> None:
    global _seen
    _seen = circuit


async def _change(transition: Callable[[Circuit], Circuit]) -> Circuit:
    circuit = await database.write("", breakers.change, transition)
    _see(circuit)
    return circuit


async def refresh() -> None:
    """Looks at what is stored. An answer that was overtaken by a change from here is not taken."""
    try:
        stored = await database.read(breakers.state)
    except RuntimeFault:
        return
    if _seen is None or not 0 < stored.version < _seen.version:
        _see(stored)


async def tick() -> None:
    """Once a second: hears of the other processes, and tells them that the probe of this one lives."""
    if not settings.LLM_PROXY_URL:
        return
    for passage in list(_probing):
        if passage.spoke_at is not None and time.monotonic() - passage.spoke_at > PROVEN_SECONDS:
            await _settle(passage, Verdict.ANSWERED)
        else:
            await _change(partial(breakers.prolonged, now=datetime.now(UTC), token=passage.token))
    await refresh()


def forget() -> None:
    """Drops the copy: the next request asks the database."""
    global _seen
    _seen = None
    _probing.clear()
