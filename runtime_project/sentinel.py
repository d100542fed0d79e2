"""Ends open connections whose caller has lost the right to them: a socket with 4401, a stream by its end.

Looked at once a second, each caller once, while any is open. The turn that a stream tells goes on: it is the session's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

from runtime_project.callers import Principal

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

logger = logging.getLogger(__name__)
LOOK_EVERY_SECONDS = 1.0
NOT_AUTHENTICATED = 4401


class Connection:
    """One request or socket. When its caller's right ends, what lies behind sees the client leave."""

    def __init__(self, principal: Principal, is_socket: bool, receive: Receive, send: Send) -> None:
        self.principal = principal
        self.ended = False
        self._is_socket, self._receive, self._send = is_socket, receive, send
        self._end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._coming: asyncio.Future[Message] | None = None
        self._started = self._over = False

    async def receive(self) -> Message:
        if self._coming is None:
            self._coming = asyncio.ensure_future(self._receive())
        await asyncio.wait((self._coming, self._end), return_when=asyncio.FIRST_COMPLETED)
        if self.ended:
            return {"type": "websocket.disconnect", "code": NOT_AUTHENTICATED} if self._is_socket else _GONE
        message, self._coming = self._coming.result(), None
        self._over = self._over or message["type"].endswith(".disconnect")
        return message

    async def send(self, message: Message) -> None:
        if self.ended:
            return
        self._started = self._started or message["type"] == "http.response.start"
        last = message["type"] == "http.response.body" and not message.get("more_body")
        self._over = self._over or last or message["type"] == "websocket.close"
        await self._send(message)

    def end(self) -> None:
        self.ended = True
        if not self._end.done():
            self._end.set_result(None)

    async def finish(self) -> None:
        """Takes leave of the client, when what lies behind has left."""
        if self._coming is not None:
            self._coming.cancel()
        if not self.ended or self._over:
            return
        if self._is_socket:
            await self._send({"type": "websocket.close", "code": NOT_AUTHENTICATED})
        elif self._started:
            await self._send({"type": "http.response.body", "body": b""})


_GONE = {"type": "http.disconnect"}
_open: set[Connection] = set()
_looking: asyncio.Task[None] | None = None


@asynccontextmanager
async def watched(principal: Principal, *, is_socket: bool, receive: Receive, send: Send) -> AsyncIterator[Connection]:
    """The connection, ended as soon as its caller may no longer have it."""
    connection = Connection(principal, is_socket, receive, send)
    _open.add(connection)
    _look()
    try:
        yield connection
    finally:
        _open.discard(connection)
        await connection.finish()


def _look() -> None:
    global _looking
    loop = asyncio.get_running_loop()
    if _looking is None or _looking.done() or _looking.get_loop() is not loop:
        _looking = loop.create_task(_while_any())


async def _while_any() -> None:
    while _open:
        await asyncio.sleep(LOOK_EVERY_SECONDS)
        callers: dict[Principal, list[Connection]] = {}
        for connection in _open:
            callers.setdefault(connection.principal, []).append(connection)
        for principal, connections in callers.items():
            if not await _stays(principal):
                for connection in connections:
                    connection.end()


async def _stays(principal: Principal) -> bool:
    try:
        return await principal.stays()
    except Exception:  # the others are looked at all the same
        logger.exception("a connection could not be looked at")
        return True
