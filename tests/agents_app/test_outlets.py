"""Frames that go out from where they are made, and the one that has to wait for its client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from agents_app import live
from agents_app.frames import Frame
from agents_app.live import Delta
from agents_app.outlets import Outlet
from agents_app.reader import Reader
from sessions_app.models import Session

ON_EACH_LOOP = True
Piece = tuple[str, str]
PIECE: Piece = "a", "1.1-t"


def made(text: str, cursor: str) -> Piece:
    return text, cursor


class Client:
    """Takes text, and lets the sender wait while it is slow."""

    def __init__(self) -> None:
        self.got: list[tuple[str, str]] = []
        self.ready = asyncio.Event()
        self.ready.set()
        self.cancelled = False

    async def send(self, piece: Piece) -> None:
        try:
            await self.ready.wait()
            if piece[0] == "twice":
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        self.got.append(piece)


async def test_what_need_not_wait_is_sent_on_the_spot() -> None:
    client = Client()
    assert Outlet(client.send, made).now(*PIECE)
    assert client.got == [PIECE]


@pytest.mark.parametrize("piece", [PIECE, ("twice", "1.5-t")], ids=["once", "twice"])
async def test_what_must_wait_is_sent_by_the_readers_task(piece: tuple[str, str]) -> None:
    client = Client()
    client.ready.clear()
    outlet = Outlet(client.send, made)
    assert not outlet.now(*piece)
    settling = asyncio.create_task(outlet.settled())
    await asyncio.sleep(0)
    assert client.got == []
    client.ready.set()
    await settling
    assert client.got == [piece]
    await outlet.settled()
    assert client.got == [piece]


async def test_a_client_that_leaves_meanwhile_ends_what_was_begun() -> None:
    client = Client()
    client.ready.clear()
    outlet = Outlet(client.send, made)
    assert not outlet.now(*PIECE)
    settling = asyncio.create_task(outlet.settled())
    await asyncio.sleep(0)
    settling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await settling
    assert client.cancelled
    assert client.got == []


async def test_what_was_begun_ends_with_its_reader() -> None:
    client = Client()
    client.ready.clear()
    outlet = Outlet(client.send, made)
    assert not outlet.now(*PIECE)
    outlet.close()
    client.ready.set()
    await outlet.settled()
    assert client.got == []


class Body:
    """Takes what is written, but for what it is told to leave."""

    def __init__(self, *, takes: bool) -> None:
        self.takes = takes
        self.got: list[Piece] = []

    def write(self, piece: Piece) -> bool:
        if self.takes:
            self.got.append(piece)
        return self.takes


async def test_where_there_is_a_body_it_is_written_on_and_nothing_is_sent() -> None:
    client, body = Client(), Body(takes=True)
    client.ready.clear()
    assert Outlet(client.send, made, body).now(*PIECE)
    assert (body.got, client.got) == ([PIECE], [])


async def test_nothing_is_written_once_the_reader_has_gone() -> None:
    client, body = Client(), Body(takes=True)
    outlet = Outlet(client.send, made, body)
    outlet.close()
    outlet.now(*PIECE)
    assert body.got == []


async def test_what_cannot_be_written_is_sent() -> None:
    client, body = Client(), Body(takes=False)
    assert Outlet(client.send, made, body).now(*PIECE)
    assert (body.got, client.got) == ([], [PIECE])


async def test_the_reader_hears_of_a_failure_and_not_the_speaker() -> None:
    async def broken(piece: Piece) -> None:
        raise ConnectionResetError

    outlet = Outlet(broken, made)
    assert not outlet.now(*PIECE)
    with pytest.raises(ConnectionResetError):
        await outlet.settled()
    await outlet.settled()


async def test_what_the_sending_waited_for_may_be_cancelled() -> None:
    gone = asyncio.get_running_loop().create_future()
    gone.cancel()

    async def cancelled(piece: Piece) -> None:
        await gone

    outlet = Outlet(cancelled, made)
    assert not outlet.now(*PIECE)
    with pytest.raises(ConnectionAbortedError):
        await outlet.settled()


def test_a_sending_that_cannot_even_begin_is_not_the_speakers() -> None:
    def broken(piece: Piece) -> Coroutine[Any, Any, None]:
        raise ValueError

    assert not Outlet(broken, made).now(*PIECE)


class Listening:
    """A reader that waits for more of message 1, of which it knows two characters."""

    def __init__(self, keepalive_seconds: float = 30.0) -> None:
        self.keepalive_seconds = keepalive_seconds
        self.client = Client()
        self.session = Session(pk=1, session_id="s", last_seq=1)
        self.source = Reader(self.session, 1, told=(), offset=2, open_id=1, open_run=1, newest_id=1)
        self.growing = live.open_text(1, 1)
        self.growing.grow("ab")

    async def batches(self) -> AsyncIterator[list[Frame]]:
        with self.source:
            async for batch in self.source.frames(self.keepalive_seconds, Outlet(self.client.send, made)):
                yield batch


@pytest.fixture(autouse=True)
def _nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a server of an earlier test has left: one that has drained tells every reader to go."""
    monkeypatch.setattr(live, "_closed", False)
    monkeypatch.setattr(live, "_sharing", None)


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30.0):
        while not holds():  # noqa: ASYNC110  what it waits for tells nobody
            await asyncio.sleep(0)


async def _until_it_waits(listening: Listening) -> None:
    await _until(lambda: listening.source._inbox._waiter is not None)


async def test_text_reaches_a_waiting_reader_in_order_whether_its_client_is_slow_or_not() -> None:
    listening = Listening()

    async def read() -> None:
        async for batch in listening.batches():
            for frame in batch:
                await listening.client.send((json.loads(frame.json)["token"], frame.cursor))

    reading = asyncio.create_task(read())
    await _until_it_waits(listening)
    listening.growing.grow("c")
    assert len(listening.client.got) == 1  # before anything else has run
    listening.client.ready.clear()
    for text in "def":  # the first of them is begun and waits, the others queue up behind it
        listening.growing.grow(text)
        await asyncio.sleep(0)
    assert len(listening.client.got) == 1
    listening.client.ready.set()
    await _until(lambda: len(listening.client.got) == 4)
    await _until_it_waits(listening)
    listening.growing.grow("g")
    tag = listening.session.cursor_tag
    assert listening.client.got == [(text, f"1.{number}-{tag}") for number, text in enumerate("cdefg", start=3)]
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    live.close_text(1, 1)
    assert live._topics == {}


@pytest.mark.parametrize("untold", [{"whole_messages": True}, {"run_id": 2}], ids=["whole messages", "another run"])
async def test_text_that_a_reader_is_not_told_does_not_stop_its_keepalives(untold: dict[str, Any]) -> None:
    listening = Listening(keepalive_seconds=0.05)
    for name, value in untold.items():
        setattr(listening.source, name, value)
    heard: list[list[Frame]] = []

    async def read() -> None:
        async for batch in listening.batches():
            heard.append(batch)

    reading = asyncio.create_task(read())
    await _until_it_waits(listening)
    while len(heard) < 3 and not reading.done():
        listening.growing.grow("x")
        await asyncio.sleep(0.001)
    assert heard == [[], [], []]
    assert listening.client.got == []
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    live.close_text(1, 1)


class Offered:
    """Takes what it is offered, or nothing of it."""

    def __init__(self, *, takes: bool) -> None:
        self.takes = takes
        self.texts: list[tuple[int, int, int, str]] = []

    def take(self, message_id: int, start: int, end: int, text: str) -> bool:
        self.texts.append((message_id, start, end, text))
        return self.takes


async def test_what_a_reader_does_not_take_itself_waits_for_it() -> None:
    inbox, refuses = live.Inbox(), Offered(takes=False)
    live.subscribe(1, inbox)
    growing = live.open_text(1, 1)
    growing.grow("w")  # nobody waits
    assert inbox.take() == ([Delta(1, 0, "w")], False)
    waiting = asyncio.create_task(inbox.wait(30.0, refuses))
    await asyncio.sleep(0)
    growing.grow("x")
    growing.grow("y")  # nothing goes past what waits
    assert await waiting
    assert refuses.texts == [(1, 1, 2, "x")]
    assert inbox.take() == ([Delta(1, 1, "x"), Delta(1, 2, "y")], False)
    live.close_text(1, 1)
    live.unsubscribe(1, inbox)


async def test_text_that_was_taken_at_once_is_no_silence() -> None:
    inbox = live.Inbox()
    live.subscribe(1, inbox)
    growing = live.open_text(1, 1)
    waiting = asyncio.create_task(inbox.wait(0.2, Offered(takes=True)))
    await asyncio.sleep(0.01)
    silent_until = inbox.until
    growing.grow("a")
    assert not await waiting
    assert inbox.until >= silent_until + 0.19  # once more as long; a look may be early by what the clock does not tell
    assert asyncio.get_running_loop().time() >= inbox.until - 0.01
    assert inbox.take() == ([], False)
    live.close_text(1, 1)
    live.unsubscribe(1, inbox)


async def test_silence_is_counted_from_the_last_text_whatever_wakes_the_reader() -> None:
    listening = Listening()
    reading = asyncio.create_task(anext(aiter(listening.batches())))
    await _until_it_waits(listening)
    listening.growing.grow("c")
    spoke_at = listening.source._outlet.spoke_at  # type: ignore[union-attr]
    assert spoke_at > listening.source._spoke_at
    listening.source._inbox.push(live.Hint(0))
    await _until(lambda: listening.source._inbox.taker is not None)
    assert listening.source._spoke_at == spoke_at
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    live.close_text(1, 1)
