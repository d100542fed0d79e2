"""Does what operators want done to many rows: a row at a time between everybody's turns, one process at a time."""

from __future__ import annotations

import logging
from contextlib import suppress

from agents_app.looking import Looker
from sessions_app import batches, database

logger = logging.getLogger(__name__)
LEASE_SECONDS = 30.0


class Batcher(Looker):
    """Bound to the event loop that serves."""

    name = "background actions"
    seconds = 2.0

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
