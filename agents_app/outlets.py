"""Sends what is ready at once, from wherever it was made, without waking the task that is there to send.

A task's wake-up costs more than all else that is done for a token. An ASGI `send` rarely waits: it hands bytes to the
transport. So it is begun on the spot; where it does have to wait, for a slow client, the task is woken and goes on with
it, and what comes meanwhile queues up before that task as ever.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Awaitable, Callable, Generator
from typing import Any

Sending = Generator[Any, Any, None]  # what awaiting a `send` runs
SENT = object()


class Outlet:
    """The way out of one reader's text; `send` sends a piece of it with the cursor after it, when awaited. It begins in
    no task of its own: it may wait for futures, and use nothing that asks which task it is in, such as timeouts."""

    __slots__ = ("_begun", "_error", "_send")

    def __init__(self, send: Callable[[str, str], Awaitable[None]]) -> None:
        self._send = send
        self._begun: tuple[Sending, Any] | None = None
        self._error: Exception | None = None

    def now(self, text: str, cursor: str) -> bool:
        """Sends a piece; False where that has not ended, or failed: then `settled` must be awaited before the next."""
        try:
            send = self._send  # Python 3.11 is slow to call what an attribute holds
            sending = send(text, cursor).__await__()
            waits_for = next(sending, SENT)  # as `send(None)`, without an exception made to say that it is over
            if waits_for is SENT:
                return True
            self._begun = sending, waits_for
        except Exception as error:  # whoever speaks is not to blame: the reader's own task hears of it
            self._error = error
        except asyncio.CancelledError:  # of what the sending waited for: it is nobody's task that was cancelled
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
        """The reader goes: what was begun is not ended any more."""
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
