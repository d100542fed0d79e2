"""Sends what is ready at once, from wherever it was made, without waking the task that is there to send.

A task's wake-up costs more than all else that is done for a token. An ASGI `send` rarely waits: it hands bytes to the
transport. So it is begun on the spot; where it does have to wait, for a slow client, the task is woken and goes on with
it, and what comes meanwhile queues up before that task as ever.
"""

from __future__ import annotations

import time
import types
from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")
C = TypeVar("C", contravariant=True)
Sending = Generator[Any, Any, None]  # what awaiting a `send` runs
SENT = object()


class Writable(Protocol[C]):
    """What may be written on without waiting."""

    def write(self, piece: C) -> bool:
        """False where nothing was written, since that would be to wait, or nobody is there any more."""


def _nobody() -> None:
    """No reader waits yet."""


class Outlet(Generic[T]):
    """The way out of one reader's text: `send` sends, when awaited, what `made` makes of a piece and of the cursor
    after it. It begins in no task of its own: it may wait for futures, and use nothing that asks which task it is in,
    such as timeouts. Where there is a `body` it is written on, and `send` does what it cannot.

    While its reader waits, it takes text for it (`live.Taker`), and knows of it what that needs.
    """

    __slots__ = (
        "_after", "_before", "_begun", "_body", "_error", "_made", "_message_id", "_send", "_silent_until", "_wake",
        "offset", "spoke_at",
    )  # fmt: skip

    def __init__(
        self, send: Callable[[T], Awaitable[None]], made: Callable[[str, str], T], body: Writable[T] | None = None
    ) -> None:
        self._send, self._made, self._body = send, made, body
        self._begun: tuple[Sending, Any] | None = None
        self._error: Exception | None = None
        self._wake: Callable[[], None] = _nobody
        self._message_id: int | None = None
        self._before = self._after = ""
        self._silent_until: float | None = None
        self.offset = 0
        self.spoke_at = 0.0

    def expect(
        self, message_id: int | None, offset: int, around: tuple[str, str], wake: Callable[[], None],
        silent_until: float | None = None,
    ) -> None:  # fmt: skip
        """What is taken from here on: text of this message from this character on, whose number stands between those
        parts in the cursor. With `silent_until` it is only passed over: then, at the latest, the reader wakes."""
        self._message_id, self.offset, self._wake, self._silent_until = message_id, offset, wake, silent_until
        self._before, self._after = around

    def take(self, message_id: int, start: int, end: int, text: str) -> bool:
        """Text that follows on what was told; False for any other."""
        if message_id != self._message_id or start != self.offset:
            return False
        self.offset = end
        if self._silent_until is None:
            self.spoke_at = time.monotonic()
            if not self.now(text, f"{self._before}{end}{self._after}"):
                self._wake()
        elif time.monotonic() >= self._silent_until:
            self._wake()
        return True

    def now(self, text: str, cursor: str) -> bool:
        """Sends a piece; False where that has not ended, or failed: then `settled` must be awaited before the next."""
        try:
            made, body = self._made, self._body  # Python 3.11 is slow to call what an attribute holds
            piece = made(text, cursor)
            if body is not None and body.write(piece):
                return True
            sending = self._send(piece).__await__()
            waits_for = next(sending, SENT)  # as `send(None)`, without an exception made to say that it is over
            if waits_for is SENT:
                return True
            self._begun = sending, waits_for
        except Exception as error:  # whoever speaks is not to blame: the reader's own task hears of it
            self._error = error
        except CancelledError:  # of what the sending waited for: it is nobody's task that was cancelled
            self._error = ConnectionAbortedError()
        return False

    async def settled(self) -> None:
        """Returns when what was begun is sent; raises what sending it raised."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        if self._begun is not None:
            begun, self._begun = self._begun, None
            await _to_its_end(*begun)

    def close(self) -> None:
        """The reader goes: what was begun is not ended any more, and no answer is written on after its end."""
        self._body = None
        if self._begun is not None:
            begun, self._begun = self._begun, None
            begun[0].close()


@types.coroutine
def _to_its_end(sending: Sending, waits_for: Any) -> Generator[Any, Any, None]:
    """Awaits what has run up to its first wait already."""
    try:
        while True:
            try:
                given = yield waits_for
            except BaseException as error:
                waits_for = sending.throw(error)
            else:
                waits_for = sending.send(given)
    except StopIteration:
        return
