"""The WebSocket, in an event loop in a thread of its own: connects, reads, reconnects, resumes after the last cursor.

What arrives is put into one inbox, in order: frames of the server and `Notice`s of the link. The inbox is read by the
terminal's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from dataclasses import dataclass
from enum import Enum
from queue import SimpleQueue
from typing import Any
from urllib.parse import quote

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, WebSocketException

Frame = dict[str, Any]
# A tool call may carry a file; the server's own cap is 16 MiB a message.
MAX_FRAME_BYTES = 64 * 1024 * 1024
FIRST_DELAY_SECONDS, LAST_DELAY_SECONDS = 0.25, 10.0
NOT_AUTHENTICATED, NO_SUCH_SESSION, TOO_BIG = 4401, 4404, 1009


class Kind(Enum):
    CONNECTED = "connected"
    LOST = "lost"
    RESUMED = "resumed"
    REFUSED = "refused"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class Notice:
    kind: Kind
    text: str = ""
    code: int = 0
    connection: int = 0


Inbox = SimpleQueue[Frame | Notice]


class Link:
    """Connections are numbered, and a message is meant for one of them: the ledger says it again on the next."""

    def __init__(self, url: str, key: str, session_id: str, inbox: Inbox, *, first_delay: float = FIRST_DELAY_SECONDS):
        self.address = f"{url.rstrip('/')}/ws/{quote(session_id, safe='')}"
        self.cursor: str | None = None
        self._key, self._inbox, self._first_delay = key, inbox, first_delay
        self._loop = asyncio.new_event_loop()
        self._outbox: asyncio.Queue[tuple[Frame, int]] = asyncio.Queue()
        self._connections = 0
        self._work: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, daemon=True, name="chat-link")
        self._thread.start()

    def send(self, message: Frame, connection: int) -> None:
        """From any thread; dropped where that connection is no more."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: the inbox already says why
            self._loop.call_soon_threadsafe(self._outbox.put_nowait, (message, connection))

    def close(self) -> None:
        """Leaves, from any thread; nothing arrives in the inbox after it."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stop)
        self._thread.join(timeout=5)

    def _run(self) -> None:
        runner = asyncio.Runner(loop_factory=lambda: self._loop)
        with runner, contextlib.suppress(asyncio.CancelledError):
            runner.run(self._keep())

    def _stop(self) -> None:
        if self._work is None:
            self._loop.call_soon(self._stop)  # asked to leave before the first step
        else:
            self._work.cancel()

    async def _keep(self) -> None:
        """Connected until refused or closed."""
        self._work = asyncio.current_task()
        delay, before = self._first_delay, False
        while True:
            try:
                async with self._connection() as socket:
                    await self._greet(socket, before)
                    before, delay = True, self._first_delay
                    self._inbox.put(Notice(Kind.LOST, code=await self._serve(socket)))
            except InvalidStatus as refusal:
                if not before or refusal.response.status_code in (401, 404):
                    return self._refused(_status_text(refusal.response.status_code))
            except (OSError, TimeoutError, WebSocketException) as fault:
                if not before:
                    return self._refused(f"{self.address} cannot be reached: {_reason(fault)}")
            except _Refused as refusal:
                return self._refused(str(refusal))
            await asyncio.sleep(delay)
            delay = min(delay * 2, LAST_DELAY_SECONDS)

    def _connection(self) -> connect:
        return connect(
            self.address,
            additional_headers={"X-Internal-Auth": self._key},
            max_size=MAX_FRAME_BYTES,
            proxy=None,
            compression=None,
            close_timeout=2,
        )

    async def _greet(self, socket: ClientConnection, before: bool) -> None:
        """The first word on a connection. Messages left over from the last one are the ledger's to repeat."""
        self._connections += 1
        if before and self.cursor is not None:
            await socket.send(json.dumps({"type": "resume", "after": self.cursor}))
        self._inbox.put(Notice(Kind.RESUMED if before else Kind.CONNECTED, connection=self._connections))

    async def _serve(self, socket: ClientConnection) -> int:
        """Reads and writes until the connection ends; its close code."""
        writing = asyncio.create_task(self._write(socket))
        try:
            async for raw in socket:
                self._take(raw)
        except ConnectionClosed:
            pass
        finally:
            writing.cancel()
        return self._judged(socket.close_code or 0)

    async def _write(self, socket: ClientConnection) -> None:
        while True:
            message, connection = await self._outbox.get()
            if connection == self._connections:
                with contextlib.suppress(ConnectionClosed):
                    await socket.send(json.dumps(message))

    def _take(self, raw: str | bytes) -> None:
        try:
            frame = json.loads(raw)
        except (ValueError, RecursionError):
            return
        if isinstance(frame, dict):
            self._remember(frame)
            self._inbox.put(frame)

    def _remember(self, frame: Frame) -> None:
        """An acknowledgement's cursor may be ahead of frames still to come: it counts where there is no other."""
        cursor = frame.get("cursor")
        if isinstance(cursor, str) and cursor and (self.cursor is None or frame.get("type") != "ack"):
            self.cursor = cursor

    def _judged(self, code: int) -> int:
        if code == NOT_AUTHENTICATED:
            raise _Refused(_status_text(401))
        if code == NO_SUCH_SESSION:
            raise _Refused("the session no longer exists")
        return code

    def _refused(self, text: str) -> None:
        self._inbox.put(Notice(Kind.REFUSED, text))


class _Refused(Exception):
    pass


def _status_text(status: int) -> str:
    if status == 401:
        return "the key was not accepted: set AGENT_RUNTIME__INTERNAL_API_KEY to the server's"
    if status == 403:
        return "the server let nobody in: the key is another one, or it is about to stop"
    return f"the server answered {status} instead of opening a WebSocket"


def _reason(fault: Exception) -> str:
    if isinstance(fault, InvalidHandshake):
        return "no WebSocket server answers there"
    return getattr(fault, "strerror", None) or str(fault) or type(fault).__name__
