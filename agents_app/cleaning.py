"""Cleans up by schedule: one process at a time, in a task of its own, a portion at a time between everybody's turns."""

from __future__ import annotations

import logging

from agents_app.looking import Looker
from sessions_app import cleanup, database, schedules
from sessions_app.cleanup import Chore
from sessions_app.retention import PORTION_ROWS, Retention

logger = logging.getLogger(__name__)
NAME = "cleanup"
LEASE_SECONDS = 60.0
SHORTEST_SECONDS, LONGEST_SECONDS = 5.0, 300.0
PASSES_AN_AGE = 20  # how often one looks while the youngest of what goes comes of age


class Cleaner(Looker):
    """Bound to the event loop that serves. Its lease is not given back: whoever goes on, waits for it to run out."""

    name = NAME
    seconds = 5.0

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
