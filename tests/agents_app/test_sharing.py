"""What processes tell each other: it ends when it is told to, and stays within one installation."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from channels.layers import InMemoryChannelLayer

from agents_app import breaker, sharing
from agents_app.sharing import Sharing
from sessions_app import breakers, database
from sessions_app.breakers import Circuit
from tests.runtime_project.programs import manage

SHOW = "from django.conf import settings; print(settings.CHANNEL_LAYERS['default']['CONFIG']['prefix'])"
HERE = ("postgres://runtime@db/runtime", "redis://redis:6379/0")


@pytest.mark.parametrize("steps_between", range(4))
async def test_a_cancel_that_comes_with_the_answer_is_not_lost(steps_between: int) -> None:
    sharing = Sharing(InMemoryChannelLayer(), "me", lambda run_ids: None)
    answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def waiting() -> None:
        await answer

    async def asking() -> None:
        await sharing._patiently(waiting())
        await asyncio.Event().wait()  # what comes next in a loop without an end

    task = asyncio.create_task(asking())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    answer.set_result(None)
    for _ in range(steps_between):
        await asyncio.sleep(0)
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=30)
    task.cancel()
    await sharing.stop()
    assert done == {task}


async def test_a_wish_to_stop_a_run_is_heard_by_all_other_processes() -> None:
    layer, heard = InMemoryChannelLayer(), asyncio.Queue[tuple[str, list[int]]]()
    processes = {
        name: Sharing(layer, name, lambda run_ids, name=name: heard.put_nowait((name, list(run_ids))))  # type: ignore[misc]
        for name in ("web", "worker", "another")
    }
    async with asyncio.timeout(30):
        while len(layer.groups.get("session.0", {})) < len(processes):  # noqa: ASYNC110  it has nothing to await
            await asyncio.sleep(0)  # each joins when its channel is there
        processes["web"].stopped(7)
        assert sorted([await heard.get(), await heard.get()]) == [("another", [7]), ("worker", [7])]
    for process in processes.values():
        await process.stop()
    assert heard.empty()


@pytest.mark.django_db(transaction=True)
async def test_an_opened_breaker_is_known_elsewhere_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a tick: nothing else runs here. This process plays both: the one that opens it looks at no copy."""
    layer = InMemoryChannelLayer()
    here, elsewhere = (Sharing(layer, name, lambda run_ids: None) for name in ("here", "elsewhere"))
    monkeypatch.setattr(sharing, "_sharing", here)
    breaker._see(Circuit())

    def opened(circuit: Circuit) -> Circuit:
        return replace(circuit, state="open", failures=8)

    async with asyncio.timeout(30):
        while len(layer.groups.get("session.0", {})) < 2:  # noqa: ASYNC110  it has nothing to await
            await asyncio.sleep(0)
        await database.write("", breakers.change, opened)
        while seen() != "open":  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await database.write("", breakers.reset, "anna")
        while seen() != "closed":  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    for process in (here, elsewhere):
        await process.stop()


def seen() -> Any:
    return breaker._seen and breaker._seen.state


def prefix(directory: Path, database: str, redis: str) -> str:
    done = manage(
        directory, "shell", "--no-imports", "-c", SHOW,
        AGENT_RUNTIME__DB_URL=database, AGENT_RUNTIME__REDIS_URL=redis,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("database", "redis", "same"),
    [
        ("postgres://runtime@db/runtime", "redis://redis:6379", True),
        ("postgres://runtime@127.0.0.1:5432/runtime", "redis://127.0.0.1/0", True),
        ("postgres://runtime@db/staging", "redis://redis:6379/0", False),
        ("postgres://runtime@db/runtime", "redis://redis:6379/1", False),
    ],
    ids=["default number", "another name of the same hosts", "another database", "another number in Redis"],
)
def test_installations_that_share_a_redis_do_not_hear_each_other(
    tmp_path: Path, database: str, redis: str, same: bool
) -> None:
    assert (prefix(tmp_path, *HERE) == prefix(tmp_path, database, redis)) is same
