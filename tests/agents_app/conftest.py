"""What the tests of deliveries share."""

from __future__ import annotations

import asyncio

import pytest

from tests.conftest import RunningServer


@pytest.fixture
def running(server: RunningServer) -> RunningServer:
    """The server with its loop started: nobody has asked it anything yet."""
    from agents_app.supervisor import supervisor

    async def start() -> None:
        supervisor.ensure_started()

    asyncio.run_coroutine_threadsafe(start(), server.loop).result(10)
    return server
