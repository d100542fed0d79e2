"""Bodies that are written on without a message, on a server of uvicorn's and a socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn

from agents_app import bodies
from agents_app.bodies import Body

Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[dict[str, Any], Any, Send], Awaitable[None]]
ON_EACH_LOOP = True
SECONDS = 30
MORE = b"x" * 65536
MOST_BYTES = 2**26  # that a client's and a server's system take in between


def start(*headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"type": "http.response.start", "status": 200, "headers": [*headers]}


def part(body: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


@asynccontextmanager
async def asked(app: App, *, method: str = "GET") -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """What a client reads that asked the app, and its own end."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, http="httptools", lifespan="off", log_config=None, access_log=False)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    async with asyncio.timeout(SECONDS):
        reader, writer = await asyncio.open_connection(*listener.getsockname(), limit=MOST_BYTES)
        writer.write(f"{method} / HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        try:
            yield reader, writer
        finally:
            writer.transport.abort()
            server.should_exit = True
            await serving
            listener.close()


async def test_pieces_go_out_as_chunks_among_what_is_sent() -> None:
    wrote: list[bool] = []

    async def app(scope: dict[str, Any], receive: Any, send: Send) -> None:
        await send(start())
        body = bodies.begun_by(send)
        assert isinstance(body, Body)
        await send(part(b"first", more=True))
        await asyncio.sleep(0)
        wrote.extend([body.write(b"one " * 10)])
        await asyncio.sleep(0)
        wrote.append(body.write(b"two"))
        await send(part(b"last", more=False))

    async with asked(app) as (reader, _):
        head = await reader.readuntil(b"\r\n\r\n")
        chunks = await reader.readuntil(b"0\r\n\r\n")
    assert b"transfer-encoding: chunked" in head
    told = b"one " * 10
    assert chunks == b"5\r\nfirst\r\n28\r\n" + told + b"\r\n3\r\ntwo\r\n4\r\nlast\r\n0\r\n\r\n"
    assert wrote == [True, True]


async def test_nothing_is_written_to_a_slow_client_and_what_is_sent_then_arrives() -> None:
    wrote = asyncio.get_running_loop().create_future()
    refused = asyncio.Event()

    async def app(scope: dict[str, Any], receive: Any, send: Send) -> None:
        await send(start())
        body = bodies.begun_by(send)
        assert body is not None
        count = 0
        while body.write(MORE):  # until the system takes no more
            count += 1
            await asyncio.sleep(0)
        refused.set()
        await send(part(b"end", more=False))
        wrote.set_result(count)

    async with asked(app) as (reader, writer):
        client: Any = writer.transport
        client.pause_reading()
        await refused.wait()
        client.resume_reading()
        await reader.readuntil(b"\r\n\r\n")
        body = await reader.readuntil(b"0\r\n\r\n")
        count = await wrote
    assert count > 0
    assert body == (b"10000\r\n" + MORE + b"\r\n") * count + b"3\r\nend\r\n0\r\n\r\n"


async def test_nothing_is_written_to_a_client_that_has_gone() -> None:
    found = asyncio.get_running_loop().create_future()

    async def app(scope: dict[str, Any], receive: Any, send: Send) -> None:
        await send(start())
        body = bodies.begun_by(send)
        assert body is not None
        await receive()  # the request itself
        while (await receive())["type"] != "http.disconnect":
            continue
        found.set_result(body.write(b"nobody reads this"))

    async with asked(app) as (reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()
        assert await found is False


async def test_nothing_is_written_for_a_caller_who_has_lost_the_right() -> None:
    wrote: list[bool] = []

    class Right:
        ended = False

    async def app(scope: dict[str, Any], receive: Any, send: Send) -> None:
        async def wrapped(message: dict[str, Any]) -> None:
            await send(message)

        await send(start())
        assert bodies.begun_by(wrapped) is None  # whoever it is that stands there
        right = Right()
        body = bodies.begun_by(send, right)
        assert body is not None
        wrote.append(body.write(b"one"))
        await asyncio.sleep(0)
        right.ended = True
        wrote.append(body.write(b"two"))
        await send(part(b"", more=False))

    async with asked(app) as (reader, _):
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readuntil(b"0\r\n\r\n") == b"3\r\none\r\n0\r\n\r\n"
    assert wrote == [True, False]


async def _others(send: Send) -> list[Body | None]:
    """What is found before the head, and behind a `send` of somebody else's."""

    async def wrapped(message: dict[str, Any]) -> None:
        await send(message)

    return [bodies.begun_by(send), bodies.begun_by(wrapped)]


@pytest.mark.parametrize(
    ("method", "headers"),
    [("GET", [(b"content-length", b"3")]), ("HEAD", [])],
    ids=["of a known length", "without a body"],
)
async def test_no_other_answer_is_written_on(method: str, headers: list[tuple[bytes, bytes]]) -> None:
    found: asyncio.Future[list[Body | None]] = asyncio.get_running_loop().create_future()

    async def app(scope: dict[str, Any], receive: Any, send: Send) -> None:
        before = await _others(send)
        await send(start(*headers))
        begun = bodies.begun_by(send)
        await send(part(b"abc", more=False))
        found.set_result([*before, begun, bodies.begun_by(send)])

    async with asked(app, method=method) as (reader, _):
        await reader.readuntil(b"\r\n\r\n")
        assert await found == [None, None, None, None]


async def test_an_answer_that_is_over_is_not_written_on() -> None:
    found: asyncio.Future[Body | None] = asyncio.get_running_loop().create_future()

    async def app(scope: dict[str, Any], receive: Any, send: Send) -> None:
        await send(start())
        await send(part(b"", more=False))
        found.set_result(bodies.begun_by(send))

    async with asked(app) as (reader, _):
        await reader.readuntil(b"0\r\n\r\n")
        assert await found is None
