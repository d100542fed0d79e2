"""The body of an HTTP answer that has begun, written on without a message: what uvicorn's `send` does for a piece of a
body, without the coroutine, the message and the state of the request that it takes, at a fraction of a token's cost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

Send = Callable[[dict[str, Any]], Awaitable[None]]


class Right(Protocol):
    """Of a caller, which may end while the answer is told."""

    ended: bool


class Body:
    """A chunked body on a connection of uvicorn's, until its answer ends: what is written after that would stand in the
    connection's next one."""

    __slots__ = ("_right", "_transport")

    def __init__(self, transport: asyncio.Transport, right: Right | None) -> None:
        self._transport, self._right = transport, right

    def write(self, piece: bytes) -> bool:
        """Writes a piece, never an empty one, since that is how a body ends. False where nothing was written, since the
        client has not taken all that was before it, or is gone, or has lost its right: `send` knows what to do then."""
        transport, right = self._transport, self._right
        if transport.is_closing() or transport.get_write_buffer_size() or (right is not None and right.ended):
            return False
        transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        return True


def begun_by(send: Send, right: Right | None = None) -> Body | None:
    """The chunked body that this `send` of uvicorn's has begun; None where it is somebody else's, or has begun another.
    Whoever stands before that `send` is passed by, but for the `right` that is looked at."""
    cycle = getattr(send, "__self__", None)
    if isinstance(cycle, RequestResponseCycle) and cycle.chunked_encoding and not cycle.response_complete:
        return Body(cycle.transport, right)
    return None
