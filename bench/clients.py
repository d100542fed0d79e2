"""Clients that stamp every token they get: many connections, each one turn after the other."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httptools

from bench.upstream import STAMP_MASK, stamp

TOKEN = re.compile(rb"~([0-9a-f]+)\.([0-9a-f]+);")
LONGEST_TOKEN = 24


@dataclass
class Heard:
    """What all clients of one trial heard since it was last cleared."""

    tokens: int = 0
    turns: int = 0
    first_token_ms: list[float] = field(default_factory=list)
    delay_ms: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def clear(self) -> None:
        self.tokens = self.turns = 0
        self.first_token_ms, self.delay_ms, self.errors = [], [], []


class Client(asyncio.Protocol):
    """One connection; `next_request` gives the bytes of the next turn, or None when there are enough."""

    transport: Any = None

    def __init__(self, heard: Heard, next_request: Callable[[], bytes | None]) -> None:
        self.heard, self.next_request = heard, next_request
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.closing = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._ask()

    def _ask(self) -> None:
        request = self.next_request()
        if request is None:
            self.close()
            return
        self.parser, self.rest, self.count = httptools.HttpResponseParser(self), b"", 0
        self.asked_at = time.monotonic()
        self.transport.write(request)

    def close(self) -> None:
        self.closing = True
        if self.transport is not None:
            self.transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.closing:
            self.heard.errors.append("the server closed the connection")
        if not self.over.done():
            self.over.set_result(None)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        if self.parser.get_status_code() != 200:
            self.heard.errors.append(body[:200].decode("utf-8", "replace"))
            return
        body, now = self.rest + body, stamp()
        for match in TOKEN.finditer(body):
            if int(match[1], 16) > self.count:  # closing frames repeat the text
                self._token(now, int(match[2], 16))
        at = body.rfind(b"~")
        self.rest = body[at:] if at >= 0 and len(body) - at < LONGEST_TOKEN and b";" not in body[at:] else b""

    def _token(self, now: int, emitted: int) -> None:
        self.count += 1
        if self.count == 1:
            self.heard.first_token_ms.append((time.monotonic() - self.asked_at) * 1000)
        self.heard.tokens += 1
        self.heard.delay_ms.append((now - emitted & STAMP_MASK) / 1000)

    def on_message_complete(self) -> None:
        if not self.count:
            self.heard.errors.append("a turn without a token")
        self.heard.turns += 1
        asyncio.get_running_loop().call_soon(self._ask)


async def connect(port: int, heard: Heard, next_request: Callable[[], bytes | None]) -> Client:
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(lambda: Client(heard, next_request), "127.0.0.1", port)
    return client


async def open_websocket(port: int, path: str, key: str) -> asyncio.StreamWriter:
    """A WebSocket that says nothing."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    nonce = base64.b64encode(os.urandom(16)).decode()
    writer.write(
        f"GET {path} HTTP/1.1\r\nHost: bench\r\nX-Internal-Auth: {key}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {nonce}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    head = await reader.readuntil(b"\r\n\r\n")
    if b" 101 " not in head:
        raise SystemExit(f"no WebSocket: {head!r}")
    return writer
