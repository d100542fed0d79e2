"""HTTP/1.1 as a model's answer needs it: pooled connections, one request at a time on each, the body pushed on as read.

By hand, because the client is the largest part of what a token costs (`python -m bench`). Each read from the socket is
one call of the listener: no task is woken and nothing is queued for it. Knows nothing of models.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any

import httptools

MAX_HEAD_BYTES = 65_536
MAX_IDLE = 500
IDLE_SECONDS = 30


class WireBroken(Exception):
    """The connection could not be made, or ended before the answer did."""


class Connection(asyncio.Protocol):
    """One connection, and the answer to its request: the head is there once `ask` returns, the body comes by `read`."""

    __slots__ = (
        "_body", "_error", "_head_bytes", "_hear", "_keeps_alive", "_more", "_open", "_over", "_parser", "_transport",
        "_waiter", "headers", "status",
    )  # fmt: skip

    def __init__(self) -> None:
        self._transport: Any = None
        self._open = False
        self._waiter: asyncio.Future[None] | None = None
        self._parser: Any = None
        self._begin()

    def _begin(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self._head_bytes = 0
        self._body = b""  # what nobody has heard yet, and more of it
        self._more: list[bytes] = []
        self._hear: Callable[[bytes], None] | None = None
        self._over = False
        self._keeps_alive = False
        self._error: Exception | None = None

    @property
    def reusable(self) -> bool:
        return self._open and self._over and self._keeps_alive and self._error is None

    async def ask(self, request: bytes) -> None:
        """Sends a whole request and returns when the head of its answer is there. Raises WireBroken."""
        self._begin()
        self._parser = httptools.HttpResponseParser(self)
        if not self._open:
            raise WireBroken("closed")
        self._transport.write(request)
        if not self.status:
            await self._woken()

    async def read(self, hear: Callable[[bytes], None]) -> None:
        """Calls `hear` with all the body that each read brings, and returns at its end. What `hear` raises ends the
        answer and is raised here, and so is WireBroken."""
        self._hear = hear
        self._hand_on(hear)
        if not self._over:
            await self._woken()
        elif self._error is not None:
            raise self._error

    def close(self) -> None:
        self._transport.abort()

    async def _woken(self) -> None:
        """Returns when what is waited for has come; raises what has come in its stead."""
        if self._error is None:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self._error is not None:
            raise self._error

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, error: Exception) -> None:
        self._error = self._error or error
        self._transport.abort()
        self._wake()

    def _hand_on(self, hear: Callable[[bytes], None]) -> None:
        """Lets the listener hear what there is of the body; the end is told after the last of it."""
        if data := self._body:
            self._body = b""
            if self._more:
                data = b"".join((data, *self._more))
                self._more.clear()
            try:
                hear(data)
            except Exception as error:
                self._fail(error)
        if self._over:
            self._wake()

    # --- what asyncio calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self._open = transport, True

    def data_received(self, data: bytes) -> None:
        if self._parser is None or self._over:  # nobody has asked for anything
            self._transport.abort()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._fail(WireBroken("no HTTP"))
            return
        if not self.status:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._fail(WireBroken("head too big"))
        if self._hear is not None:
            self._hand_on(self._hear)

    def connection_lost(self, error: Exception | None) -> None:
        self._open = False
        if self.status and not self._over and error is None and self._ends_with_connection():
            self._over = True
            if self._hear is not None:
                self._hand_on(self._hear)
        elif not self._over:
            self._fail(WireBroken(type(error).__name__ if error else "closed"))

    def _ends_with_connection(self) -> bool:
        return "content-length" not in self.headers and "transfer-encoding" not in self.headers

    # --- what the parser calls ---

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:  # 100 Continue and its like: the answer is still to come
            self.headers.clear()
        elif not self._over:
            self.status = status
            self._wake()

    def on_body(self, data: bytes) -> None:
        if self._over:
            return
        if self._body:  # one that is all there is to hear needs no list
            self._more.append(data)
        else:
            self._body = data

    def on_message_complete(self) -> None:
        if self.status and not self._over:
            self._over = True
            self._keeps_alive = self._parser.should_keep_alive()

    def on_message_begin(self) -> None:
        if self._over:  # more than one answer to one request: whose is it?
            self._keeps_alive = False


class Pool:
    """The connections to one address."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None) -> None:
        self._host, self._port, self._tls = host, port, tls
        self._idle: deque[tuple[float, Connection]] = deque()

    def asked(self, request: bytes, connect_seconds: float) -> Asked:
        """A connection with the head of the answer. Leaving before the end of the body closes it. No limit of
        connections: each stream holds one. Raises WireBroken."""
        return Asked(self, request, connect_seconds)

    async def lend(self, connect_seconds: float) -> Connection:
        """An idle one, or a new one. Raises WireBroken."""
        return self._taken() or await self._connected(connect_seconds)

    def give_back(self, connection: Connection) -> None:
        """Keeps it for the next request, if it is good for one."""
        if connection.reusable and len(self._idle) < MAX_IDLE:
            self._idle.append((time.monotonic(), connection))
        else:
            connection.close()

    def _taken(self) -> Connection | None:
        """The connection used last, since the others may then grow old; providers close those without a word."""
        oldest = time.monotonic() - IDLE_SECONDS
        while self._idle and (self._idle[0][0] < oldest or not self._idle[0][1].reusable):
            self._idle.popleft()[1].close()
        while self._idle:
            connection = self._idle.pop()[1]
            if connection.reusable:
                return connection
        return None

    async def _connected(self, seconds: float) -> Connection:
        try:
            async with asyncio.timeout(seconds):
                _, connection = await asyncio.get_running_loop().create_connection(
                    Connection, self._host, self._port, ssl=self._tls
                )
        except (OSError, TimeoutError) as error:  # a certificate that is none is an OSError too
            raise WireBroken(type(error).__name__) from None
        return connection

    def close(self) -> None:
        """Closes what is idle; a connection at work is its reader's."""
        while self._idle:
            self._idle.pop()[1].close()


class Asked:
    """`async with` it for the answer to one request."""

    __slots__ = ("_connect_seconds", "_connection", "_pool", "_request")

    def __init__(self, pool: Pool, request: bytes, connect_seconds: float) -> None:
        self._pool, self._request, self._connect_seconds = pool, request, connect_seconds

    async def __aenter__(self) -> Connection:
        self._connection = connection = await self._pool.lend(self._connect_seconds)
        try:
            await connection.ask(self._request)
        except BaseException:
            self._pool.give_back(connection)
            raise
        return connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._pool.give_back(self._connection)
