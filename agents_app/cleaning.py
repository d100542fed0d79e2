"""Cleans up by schedule: one process at a time, in a task of its own, a portion at a time between everybody's turns."""

from __future__ import annotations

import asyncio
import logging
import random

from sessions_app import cleanup, database, schedules
from sessions_app.cleanup import Chore
from sessions_app.errors import RuntimeFault
from sessions_app.retention import PORTION_ROWS, Retention

_chance = random.Random()  # noqa: S311  no secret; not everybody's, which tests hold still
logger = logging.getLogger(__name__)
NAME = "cleanup"
LOOK_SECONDS = 5.0
LEASE_SECONDS = 60.0
SHORTEST_SECONDS, LONGEST_SECONDS = 5.0, 300.0
PASSES_AN_AGE = 20  # how often one looks while the youngest of what goes comes of age


class Cleaner:
    """One per process, bound to the event loop that serves."""

    def __init__(self) -> None:
        self._owner = ""
        self._task: asyncio.Task[None] | None = None

    def start(self, owner: str) -> None:
        self._owner = owner
        self._task = asyncio.get_running_loop().create_task(self._look_for_ever(), name="cleanup")

    async def stop(self) -> None:
        """Ends between two portions; another process goes on when the lease has run out."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _look_for_ever(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS * _chance.uniform(0.8, 1.2))
            try:
                await self._look()
            except RuntimeFault as fault:
                logger.warning("cleanup: %s", fault.code)
            except Exception:
                logger.exception("cleanup failed")

    async def _look(self) -> None:
        retention = Retention.by_settings()
        if retention.keeps_everything or not await database.read(schedules.is_due, NAME):
            return
        if not await database.write("", schedules.claim, NAME, self._owner, LEASE_SECONDS):
            return
        done = {chore.name: await self._do(chore, retention) for chore in cleanup.wanted(retention)}
        await database.write("", schedules.finish, NAME, self._owner, _pause_seconds(retention))
        if any(done.values()):
            logger.info("cleaned up: %s", ", ".join(f"{count} {name}" for name, count in done.items() if count))

    async def _do(self, chore: Chore, retention: Retention) -> int:
        total, portions = 0, chore.portions(retention)
        while (portion := await database.read(next, portions, None)) is not None:
            more = True
            while more:
                if not await database.write("", schedules.renew, NAME, self._owner, LEASE_SECONDS):
                    return total
                count = await database.write(portion.key, chore.apply, retention, portion)
                total, more = total + count, count >= PORTION_ROWS
        return total


def _pause_seconds(retention: Retention) -> float:
    """Until the next pass: the shorter things are kept, the sooner."""
    return min(max(retention.shortest_seconds / PASSES_AN_AGE, SHORTEST_SECONDS), LONGEST_SECONDS)


cleaner = Cleaner()
