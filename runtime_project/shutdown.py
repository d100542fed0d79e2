"""SIGTERM reaches the turns first and the server after them: servers tell neither Django nor a stream that they stop.

The server's own handler is kept and called when the turns have ended or were stored as interrupted. A second signal
goes straight to it.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from agents_app.supervisor import supervisor
from sessions_app import lines
from sessions_app.conf import settings

logger = logging.getLogger(__name__)
Handler = Callable[[int, FrameType | None], Any]
_chained: set[int] = set()


def chain() -> None:
    """Puts the drain before the server's handlers, once a process; only its main thread may."""
    if threading.current_thread() is not threading.main_thread():
        return
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        following = signal.getsignal(signum)
        if signum not in _chained and callable(following):
            _chained.add(signum)
            signal.signal(signum, _draining(loop, following))


def _draining(loop: asyncio.AbstractEventLoop, following: Handler) -> Handler:
    def handle(signum: int, frame: FrameType | None) -> None:
        if supervisor.draining or loop.is_closed():
            following(signum, frame)
        else:
            supervisor.draining = True
            loop.call_soon_threadsafe(lambda: _tasks.append(loop.create_task(drain(signum))))

    _tasks: list[asyncio.Task[None]] = []

    async def drain(signum: int) -> None:
        lines.are_about()  # the signal came in the middle of anything
        logger.info("draining: up to %s s for the turns that run", settings.SHUTDOWN_GRACE_SECONDS)
        try:
            await supervisor.drain(settings.SHUTDOWN_GRACE_SECONDS)
        finally:
            gc.freeze()  # the interpreter need not go through everything once more before it ends
            following(signum, None)

    return handle
