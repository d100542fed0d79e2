"""Does what operators want done to many rows: a row at a time between everybody's turns, one process at a time."""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import suppress

from sessions_app import batches, database
from sessions_app.errors import RuntimeFault

_chance = random.Random()  # noqa: S311  no secret; not everybody's, which tests hold still
logger = logging.getLogger(__name__)
LOOK_SECONDS = 2.0
LEASE_SECONDS = 30.0


class Batcher:
    """One per process, bound to the event loop that serves."""

    def __init__(self) -> None:
        self._owner = ""
        self._task: asyncio.Task[None] | None = None

    def start(self, owner: str) -> None:
        self._owner = owner
        self._task = asyncio.get_running_loop().create_task(self._look_for_ever(), name="batches")

    async def stop(self) -> None:
        """Ends between two rows; another process goes on at once."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _look_for_ever(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS * _chance.uniform(0.8, 1.2))
            try:
                await self._look()
            except RuntimeFault as fault:
                logger.warning("background actions: %s", fault.code)
            except Exception:
                logger.exception("background actions failed")

    async def _look(self) -> None:
        while (pk := await database.read(batches.due)) is not None:
            if not await database.write("", batches.claim, pk, self._owner, LEASE_SECONDS):
                return
            await self._do(pk)

    async def _do(self, pk: int) -> None:
        try:
            more = True
            while more:
                key = await database.read(batches.next_key, pk)
                more = await database.write(key, batches.step, pk, self._owner, LEASE_SECONDS)
        except BaseException:  # cancelled, or the storage is away
            with suppress(Exception):
                await database.write("", batches.give_back, pk, self._owner)
            raise
        logger.info("background action %s: done with it", pk)


batcher = Batcher()
