"""A scripted OpenAI-compatible model, played by a real HTTP server in a thread of its own.

    with ModelServer() as model:
        settings.LLM_PROXY_URL = model.url
        gate = Gate()
        model.route(verdict("debug"))                     # what the next routing request gets; default: coder
        model.reply(text("Hello ", gate, "world"))        # what the next agent's request gets, first in first out
        model.always(lambda body: text("again"))          # what all others get; default: "Hello world"
        await gate.arrived()                              # "Hello " is on the wire; nobody slept
        gate.open()

The same reply serves a request that does not stream, as a whole. Every request is kept in `model.requests`, and
`strict(request.body["messages"])` says what a strict provider would refuse about its history.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Self

from tests.model_replies import (
    FIVE_WORDS,
    JSON,
    USAGE,
    Cut,
    Gate,
    Pause,
    Reply,
    chunk,
    chunks,
    completion,
    cut_after,
    cut_mid_event,
    drip,
    end_after,
    error_in_stream,
    event_bytes,
    function_call,
    garbage,
    hang_after,
    hang_before_head,
    html,
    huge_event,
    noisy,
    status,
    text,
    tool_calls,
    verdict,
)
from tests.strict_provider import strict

__all__ = [
    "FIVE_WORDS",
    "JSON",
    "USAGE",
    "Cut",
    "Gate",
    "ModelServer",
    "Pause",
    "Reply",
    "Request",
    "chunk",
    "chunks",
    "completion",
    "cut_after",
    "cut_mid_event",
    "drip",
    "end_after",
    "error_in_stream",
    "event_bytes",
    "function_call",
    "garbage",
    "hang_after",
    "hang_before_head",
    "html",
    "huge_event",
    "noisy",
    "status",
    "strict",
    "text",
    "tool_calls",
    "verdict",
]


class Request(NamedTuple):
    headers: dict[str, str]  # names in lower case
    body: JSON
    path: str


class ModelServer:
    def __init__(self) -> None:
        self.requests: list[Request] = []  # POSTs
        self.probes: list[Request] = []  # GETs
        self.health: JSON | Reply = {"status": "ok"}
        self.connections = 0
        self.connections_closed_by_client = 0  # while a reply was under way
        self._replies: deque[Reply] = deque()
        self._routes: deque[Reply] = deque()
        self._always: Callable[[JSON], Reply] = lambda body: text("Hello world")
        self._always_route: Callable[[JSON], Reply] = lambda body: verdict("coder")
        self._changed = threading.Condition()

    def reply(self, *replies: Reply) -> None:
        self._replies.extend(replies)

    def always(self, answer: Callable[[JSON], Reply] | Reply) -> None:
        self._always = answer if callable(answer) else lambda body: answer

    def route(self, *replies: Reply) -> None:
        self._routes.extend(replies)

    def always_route(self, answer: Callable[[JSON], Reply] | Reply) -> None:
        self._always_route = answer if callable(answer) else lambda body: answer

    async def until(self, holds: Callable[[], bool], timeout_seconds: float = 30) -> None:
        """For the test: `await model.until(lambda: model.connections_closed_by_client == 1)`."""

        def wait() -> bool:
            with self._changed:
                return self._changed.wait_for(holds, timeout_seconds)

        if not await asyncio.to_thread(wait):
            raise AssertionError("the model server never saw it")

    def drop_connections(self) -> None:
        """What a restart of the provider looks like: every connection ends, whatever is under way."""
        self._loop.call_soon_threadsafe(lambda: [task.cancel() for task in self._tasks])

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="model-server", daemon=True)
        self._thread.start()
        listening = self._loop.create_server(self._connect, "127.0.0.1", 0, backlog=1000)
        self._server = asyncio.run_coroutine_threadsafe(listening, self._loop).result(30)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    async def _stop(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # lets the transports close

    def _connect(self) -> asyncio.StreamReaderProtocol:
        reader = _Reader(limit=2**26)
        return asyncio.StreamReaderProtocol(reader, lambda _, writer: self._start(reader, writer))

    def _start(self, reader: _Reader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: _Reader, writer: asyncio.StreamWriter) -> None:
        try:
            while request := await _read_request(reader):
                playing = asyncio.create_task(_play(self._choose(request), request.body, writer))
                reader.when_gone = partial(self._hung_up, playing)
                if reader.at_eof():
                    reader.gone()
                try:
                    await playing
                finally:
                    reader.when_gone = None
        except asyncio.CancelledError:
            writer.transport.abort()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def _hung_up(self, playing: asyncio.Task[None]) -> None:
        playing.cancel()
        with self._changed:
            self.connections_closed_by_client += 1
            self._changed.notify_all()

    def _choose(self, request: Request) -> Reply:
        with self._changed:
            (self.probes if request.path.endswith("/health") else self.requests).append(request)
            self._changed.notify_all()
        if request.path.endswith("/health"):
            return self.health if isinstance(self.health, Reply) else status(200, body=self.health)
        if not request.body.get("tools") and not request.body.get("stream"):
            return self._routes.popleft() if self._routes else self._always_route(request.body)
        return self._replies.popleft() if self._replies else self._always(request.body)


class _Reader(asyncio.StreamReader):
    """Tells at once when its client has hung up."""

    when_gone: Callable[[], None] | None = None

    def feed_eof(self) -> None:
        super().feed_eof()
        self.gone()

    def set_exception(self, exc: Exception) -> None:
        super().set_exception(exc)
        self.gone()

    def gone(self) -> None:
        when_gone, self.when_gone = self.when_gone, None
        if when_gone:
            when_gone()


async def _read_request(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    line, *lines = head.decode("latin-1").strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(headers, json.loads(body or b"{}"), line.split()[1])


async def _play(reply: Reply, body: JSON, writer: asyncio.StreamWriter) -> None:
    if reply.before_head:
        await reply.before_head.passed()
    whole = not body.get("stream") or reply.content_type == "application/json"
    await (_play_whole if whole else _play_stream)(reply, writer)


async def _play_stream(reply: Reply, writer: asyncio.StreamWriter) -> None:
    writer.write(_head(reply, reply.content_type, "Transfer-Encoding: chunked"))
    for part in reply.parts:
        data = event_bytes(part) if isinstance(part, dict) else await _through(part, writer)
        if data:
            writer.write(b"%x\r\n%s\r\n" % (len(data), data))
            await writer.drain()
    writer.write(b"0\r\n\r\n")


async def _play_whole(reply: Reply, writer: asyncio.StreamWriter) -> None:
    events = [part for part in reply.parts if isinstance(part, dict)]
    data = json.dumps(completion(events)).encode() if events else b"".join(p for p in reply.parts if type(p) is bytes)
    content_type = "application/json" if events else reply.content_type
    writer.write(_head(reply, content_type, f"Content-Length: {len(data)}"))
    writer.write(data[: len(data) // 2])
    for part in reply.parts:
        if not isinstance(part, dict):
            await _through(part, writer)
    writer.write(data[len(data) // 2 :])


async def _through(part: bytes | Gate | Cut | Pause, writer: asyncio.StreamWriter) -> bytes:
    if isinstance(part, bytes):
        return part
    if isinstance(part, Gate):
        await writer.drain()
        await part.passed()
    elif isinstance(part, Pause):
        await asyncio.sleep(part)
    else:
        raise ConnectionAbortedError  # what was written still arrives, the end of the body never does
    return b""


def _head(reply: Reply, content_type: str, length: str) -> bytes:
    lines = [f"HTTP/1.1 {reply.status} Scripted", f"Content-Type: {content_type}", length]
    return "\r\n".join([*lines, *(f"{name}: {value}" for name, value in reply.headers.items()), "", ""]).encode()
