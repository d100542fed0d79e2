"""A reader's inbox: what it waits for, and how long."""

from __future__ import annotations

import asyncio

import pytest

from agents_app import live
from agents_app.live import Delta, Inbox

ON_EACH_LOOP = True
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


async def test_waits_at_the_same_time_end_each_in_its_own() -> None:
    loop = asyncio.get_running_loop()
    ended: list[float] = []

    async def wait(seconds: float) -> None:
        began = loop.time()
        assert not await Inbox().wait(seconds)
        assert loop.time() - began >= seconds - 0.01
        ended.append(seconds)

    async with asyncio.timeout(LONG_SECONDS):
        await asyncio.gather(*map(wait, (0.5, 0.02, LONG_SECONDS / 20, 0.25, 0.02)))
    assert ended == [0.02, 0.02, 0.25, 0.5, LONG_SECONDS / 20]


async def test_a_wait_that_is_over_at_once_disturbs_no_other() -> None:
    waits = [Inbox().wait(seconds) for seconds in (0, 0.2, 0.0001, 0.05)]
    assert await asyncio.gather(*waits, return_exceptions=True) == [False] * 4
    assert not live._patience_of(asyncio.get_running_loop())._waiting


async def test_a_timer_that_knows_no_part_of_a_millisecond_looks_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "BETWEEN_LOOKS_SECONDS", LONG_SECONDS)
    async with asyncio.timeout(LONG_SECONDS / 2):
        for number in range(20):
            assert not await Inbox().wait(0.005 + number * 0.00017)


async def test_a_reader_that_has_gone_is_not_held() -> None:
    inbox, loop = Inbox(), asyncio.get_running_loop()
    loop.call_soon(inbox.push, Delta(1, 0, "a"))
    assert await inbox.wait(LONG_SECONDS)
    leaving = loop.create_task(Inbox().wait(LONG_SECONDS))
    await asyncio.sleep(0)
    assert len(live._patience_of(loop)._waiting) == 1
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert not live._patience_of(loop)._waiting


async def test_nobodys_time_is_kept_once_all_have_ended() -> None:
    loop = asyncio.get_running_loop()
    assert not await Inbox().wait(0.01)
    async with asyncio.timeout(LONG_SECONDS):
        while live._patience_of(loop)._timer is not None:  # noqa: ASYNC110  the look after the last wait tells nobody
            await asyncio.sleep(0.01)
