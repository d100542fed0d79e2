"""Tells other processes what happens here, over the Channels layer. A hint, never a promise: what the layer loses,
or what a Redis that is down or hangs never carries, readers find in the database a little later.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine
from typing import Any

from channels.layers import InMemoryChannelLayer, get_channel_layer

from agents_app import breaker, live
from agents_app.live import Delta, Hint
from sessions_app import breakers

logger = logging.getLogger(__name__)
FLUSH_SECONDS = 0.02
PATIENCE_SECONDS = 1.0
AGAIN_SECONDS = 1.0
MAX_UNSENT = 2000
EVERYBODY = 0  # no session's key: the group of all processes


def _group(session_pk: int) -> str:
    return f"session.{session_pk}"


class Sharing:
    """One per process with a layer that reaches others."""

    def __init__(self, layer: Any, owner: str, asked: Callable[[Collection[int]], None]) -> None:
        self._layer, self._owner, self._asked = layer, owner, asked
        self._seqs: dict[int, int] = {}
        self._deltas: dict[int, list[Delta]] = {}
        self._stopped: set[int] = set()
        self._breaker_changed = False
        self._looking: asyncio.Task[None] | None = None
        self._read_here: set[int] = {EVERYBODY}
        self._joined: set[int] = set()
        self._woken = asyncio.Event()
        self._readers_changed = asyncio.Event()
        self._channel = ""
        self.loop = loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._for_ever(work)) for work in (self._send, self._join, self._receive)]

    # --- what live tells us ---

    def told(self, session_pk: int, seq: int) -> None:
        self._seqs[session_pk] = seq
        self._woken.set()

    def grew(self, session_pk: int, delta: Delta) -> None:
        unsent = self._deltas.setdefault(session_pk, [])
        if len(unsent) < MAX_UNSENT:
            unsent.append(delta)
        self._woken.set()

    def stopped(self, run_id: int) -> None:
        """Somebody wants a run to stop that is at work elsewhere."""
        self._stopped.add(run_id)
        self._woken.set()

    def breaker_changed(self) -> None:
        """The breaker was opened or closed here."""
        self._breaker_changed = True
        self._woken.set()

    def wanted(self, session_pk: int, *, here: bool) -> None:
        (self._read_here.add if here else self._read_here.discard)(session_pk)
        self._readers_changed.set()

    # --- the three loops ---

    async def _for_ever(self, work: Any) -> None:
        """A layer that fails is asked again a second later; nothing here may stop a turn."""
        while True:
            try:
                await work()
            except Exception as error:
                logger.warning("the channel layer fails: %s", type(error).__name__)
                self._joined.clear()  # all are joined again; the channel stays: `_receive` waits on it
                self._readers_changed.set()
                self._seqs.clear()
                self._deltas.clear()
                self._stopped.clear()
                await asyncio.sleep(AGAIN_SECONDS)

    async def _send(self) -> None:
        await self._woken.wait()
        self._woken.clear()
        deltas, self._deltas = self._deltas, {}
        seqs, self._seqs = self._seqs, {}
        stopped, self._stopped = self._stopped, set()
        changed, self._breaker_changed = self._breaker_changed, False
        if changed:
            await self._tell_all(breaker=True)
        if stopped:
            await self._tell_all(stopped=sorted(stopped))
        for session_pk in deltas.keys() | seqs.keys():
            await self._patiently(self._layer.group_send(_group(session_pk), self._message(session_pk, seqs, deltas)))
        await asyncio.sleep(FLUSH_SECONDS)  # what comes meanwhile goes out together

    async def _tell_all(self, **told: Any) -> None:
        message = {"type": "shared", "from": self._owner, **told}
        await self._patiently(self._layer.group_send(_group(EVERYBODY), message))

    def _message(self, session_pk: int, seqs: dict[int, int], deltas: dict[int, list[Delta]]) -> dict[str, Any]:
        message: dict[str, Any] = {"type": "shared", "from": self._owner, "session": session_pk}
        if session_pk in seqs:
            message["seq"] = seqs[session_pk]
        if unsent := deltas.get(session_pk):
            last = unsent[-1].message_id
            same = [delta for delta in unsent if delta.message_id == last]
            message |= {"message": last, "start": same[0].start, "text": "".join(delta.text for delta in same)}
        return message

    async def _join(self) -> None:
        """Follows the sessions that are read here, and no others: at once, since their tokens may be on the way."""
        await self._readers_changed.wait()
        self._readers_changed.clear()
        if not self._channel:
            return
        for session_pk in self._read_here - self._joined:
            await self._patiently(self._layer.group_add(_group(session_pk), self._channel))
            self._joined.add(session_pk)
        for session_pk in self._joined - self._read_here:
            await self._patiently(self._layer.group_discard(_group(session_pk), self._channel))
            self._joined.discard(session_pk)

    async def _receive(self) -> None:
        if not self._channel:
            self._channel = await self._patiently(self._layer.new_channel())
            self._readers_changed.set()
        message = await self._layer.receive(self._channel)
        if message.get("from") == self._owner:
            return
        if "stopped" in message:
            self._asked(message["stopped"])
            return
        if "breaker" in message:  # what it is like now, the database says
            self._looking = self.loop.create_task(breaker.refresh())
            return
        session_pk = message["session"]
        if "text" in message:
            live.hear(session_pk, Delta(message["message"], message["start"], message["text"]))
        if "seq" in message:
            live.hear(session_pk, Hint(message["seq"]))

    async def _patiently(self, call: Coroutine[Any, Any, Any]) -> Any:
        # Not wait_for: until Python 3.12 it loses a cancel that comes together with the answer.
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await call

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks, timeout=PATIENCE_SECONDS)


_sharing: Sharing | None = None


def start(owner: str, asked: Callable[[Collection[int]], None]) -> Sharing | None:
    """Begins to share, in the running loop; None where the layer lives in this process alone. `asked` is called with
    runs that somebody wants to stop."""
    global _sharing
    layer = get_channel_layer()
    _sharing = None if layer is None or isinstance(layer, InMemoryChannelLayer) else Sharing(layer, owner, asked)
    return _sharing


def stopped(run_id: int) -> None:
    """Tells the process that runs it to look at once what is wanted of it."""
    if _sharing is not None:
        _sharing.stopped(run_id)


def _breaker_changed() -> None:
    sharing = _sharing
    if sharing is not None and not sharing.loop.is_closed():
        sharing.loop.call_soon_threadsafe(sharing.breaker_changed)


async def stop() -> None:
    global _sharing
    if _sharing is not None:
        await _sharing.stop()
        _sharing = None


breakers.listen(_breaker_changed)
