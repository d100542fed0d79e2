"""What the tests of deliveries share, and which tests are run on each event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvloop

from tests.conftest import RunningServer

Loops = dict[str, Callable[[], asyncio.AbstractEventLoop]]


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Function) -> Loops:
    """Those of a module that says ON_EACH_LOOP also on the one that `serve` has, whose clock and sockets differ."""
    loops: Loops = {"asyncio": asyncio.new_event_loop}
    if getattr(item.module, "ON_EACH_LOOP", False):
        loops["uvloop"] = uvloop.new_event_loop
    return loops


@pytest.fixture
def running(server: RunningServer) -> RunningServer:
    """The server with its loop started: nobody has asked it anything yet."""
    from agents_app.supervisor import supervisor

    async def start() -> None:
        supervisor.ensure_started()

    asyncio.run_coroutine_threadsafe(start(), server.loop).result(10)
    return server
