"""A reader's inbox: what it waits for, and how long."""

from __future__ import annotations

import asyncio

from agents_app.live import Delta, Inbox

LONG_SECONDS = 30.0


async def test_a_wait_ends_without_anything_after_its_time() -> None:
    inbox = Inbox()
    assert not await inbox.wait(0.01)
    assert not await inbox.wait(0.01)
    assert inbox.take() == ([], False)


async def test_what_comes_ends_the_wait_at_once() -> None:
    inbox, delta = Inbox(), Delta(1, 0, "a")
    asyncio.get_running_loop().call_soon(inbox.push, delta)
    assert await inbox.wait(LONG_SECONDS)
    assert inbox.take() == ([delta], False)


async def test_a_wait_that_begins_under_an_older_timer_has_its_own_time() -> None:
    inbox, loop = Inbox(), asyncio.get_running_loop()
    for seconds in (0.02, LONG_SECONDS, 0.02):  # longer than the timer that is armed, then shorter
        loop.call_soon(inbox.push, Delta(1, 0, "a"))
        assert await inbox.wait(seconds)
        inbox.take()
    began = loop.time()
    assert not await inbox.wait(0.05)
    assert loop.time() - began >= 0.04  # not when an older timer ran out


async def test_a_reader_that_has_gone_leaves_no_timer() -> None:
    inbox = Inbox()
    asyncio.get_running_loop().call_soon(inbox.push, Delta(1, 0, "a"))
    assert await inbox.wait(LONG_SECONDS)
    inbox.forget_time()
    assert inbox._timer is None
