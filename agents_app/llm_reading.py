"""Reading one answer off the wire: what its bytes say, how long silence may last, who is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from agents_app.llm_assembly import Assembly
from agents_app.llm_events import BOM, MAX_EVENT_BYTES, EventReader, loads
from sessions_app.conf import settings
from sessions_app.errors import LLMCut, LLMGarbage

USAGE_GRACE_SECONDS = 5  # for what may follow the finish reason
DONE_GRACE_SECONDS = 0.25  # for the end of the body: a connection that was read to its end is used again
LATENESS = 1 / 16  # of the idle bound, between two looks
# JSON may spend six bytes on one of text, and something on the frame around it.
WIRE_FACTOR = 6


class Reading:
    """The bytes of one answer, an event stream or one JSON object, whichever it turns out to be. `tell` is called once
    a read, with all the text that it brought; `bound` hears of all reads but those that are like the ones before."""

    __slots__ = (
        "_between", "_bound", "_reader", "_sniffed", "_tell", "_whole", "assembly", "began", "done", "events", "spoken",
    )  # fmt: skip

    def __init__(self, tell: Callable[[str], None], bound: Bound) -> None:
        self.assembly = Assembly()
        self.began = False  # the head of a success has come
        self.done = False
        self.spoken = False  # some text was told
        self.events = 0
        self._tell, self._bound = tell, bound
        self._reader = EventReader()
        self._between = False  # the next read begins an event
        self._whole: bytearray | None = None
        self._sniffed = False

    @property
    def under_way(self) -> bool:
        return self.events > 0 or self._reader.begun

    @property
    def finished(self) -> bool:
        """The model has said all it had to say; whatever becomes of the connection."""
        return self.done or bool(self.assembly.finish_reason)

    def feed(self, data: bytes) -> None:
        if self._between:
            count, text = 1, self.assembly.add_framed(data)
            if text is None:
                count, text = self.assembly.add_all_framed(data)
            if count:  # as nearly all reads: more events like those before them, of a slow answer one
                self.events += count
                if text:
                    tell = self._tell  # Python 3.11 is slow to call what an attribute holds
                    tell(text)
                return
        self._feed(data)
        self._between = self._whole is None and not self.finished and self._reader.is_between
        self._bound.heard(self)

    def _feed(self, data: bytes) -> None:
        if not self._sniffed and (start := data.removeprefix(BOM).lstrip()):
            self._sniffed = True
            self._whole = bytearray() if start.startswith(b"{") else None
        if self._whole is None:
            return self._take(self._reader.feed(data))
        self._whole += data
        if len(self._whole) > settings.MAX_ANSWER_BYTES * WIRE_FACTOR + MAX_EVENT_BYTES:
            raise LLMGarbage(reason="answer too big")
        return None

    def end(self) -> None:
        """The body has ended; raises where the model cannot have finished."""
        if self._whole is not None:
            return self._say(self.assembly.add_whole(loads(bytes(self._whole).removeprefix(BOM))))
        if not self.finished:
            self._take_rest()
        if not self.finished:
            raise LLMCut(reason="ended early") if self.assembly.seen else LLMGarbage(reason="no answer")
        return None

    def _take(self, events: list[bytes]) -> None:
        said: list[str] = []
        add, keep, at, looked = self.assembly.add_event, said.append, 0, False
        try:
            while at < len(events):
                if not looked and not self.done and self.assembly.knows_what_is_alike:
                    looked = True  # once a read: what is left then is taken one by one
                    count, text = self.assembly.add_alike(events[at:])
                    keep(text)
                    at, self.events = at + count, self.events + count
                    continue
                event = events[at]
                at, self.events = at + 1, self.events + 1
                if event == b"[DONE]":
                    self.done = True
                elif not self.done:
                    keep(add(event))
        finally:  # what was said before something broke is shown
            self._say("".join(said))

    def _say(self, text: str) -> None:
        if text:
            self.spoken = True
            self._tell(text)

    def _take_rest(self) -> None:
        """The last event, where only its blank line is missing; half an event is no garbage, it was cut."""
        with suppress(LLMGarbage):
            self._take(self._reader.end())


class Bound:
    """How long an attempt may take: for its first bytes, between two complete events, and in all. Whether any came is
    looked at once in a while, since a good part of a token's cost was to note when it came."""

    __slots__ = ("_closing", "_ends_at", "_events", "_idle_seconds", "_loop", "_next_look", "_silent_since", "timer")

    def __init__(self, total_seconds: float, *, streams: bool) -> None:
        self._loop = asyncio.get_running_loop()
        now = self._loop.time()
        self._ends_at = now + total_seconds
        self._idle_seconds = settings.LLM_IDLE_TIMEOUT_SECONDS if streams else total_seconds
        first_seconds = settings.LLM_FIRST_BYTE_TIMEOUT_SECONDS if streams else total_seconds
        self.timer = asyncio.timeout_at(min(now + first_seconds, self._ends_at))
        self._events = -1  # complete ones at the last look; -1: not even a part of one
        self._silent_since = now
        self._next_look: asyncio.TimerHandle | None = None
        self._closing = 0.0

    def heard(self, reading: Reading) -> None:
        """After a read that may have been the first, or the last, to bring something."""
        if reading.finished:
            self._close_in(DONE_GRACE_SECONDS if reading.done else USAGE_GRACE_SECONDS)
        elif self._next_look is None and reading.under_way:
            self._look(reading)

    def close(self) -> None:
        if self._next_look is not None:
            self._next_look.cancel()

    def _look(self, reading: Reading) -> None:
        """Only complete events count as life, not comments, not bytes that drip."""
        if self._closing:
            return
        now = self._loop.time()
        if self._events < 0:  # the first bytes are there
            self._arm(self._ends_at)
        if reading.events > self._events:
            self._events, self._silent_since = reading.events, now
        elif now - self._silent_since >= self._idle_seconds:
            self._arm(now)
            return
        self._next_look = self._loop.call_later(self._idle_seconds * LATENESS, self._look, reading)

    def _close_in(self, grace_seconds: float) -> None:
        if self._closing != grace_seconds:
            self._closing = grace_seconds
            self._arm(self._loop.time() + min(grace_seconds, self._idle_seconds))

    def _arm(self, when: float) -> None:
        if not self.timer.expired():
            self.timer.reschedule(min(when, self._ends_at))
