"""A task of the serving event loop that looks now and then whether there is something to do, whatever happens."""

from __future__ import annotations

import asyncio
import logging
import random
from abc import ABC, abstractmethod

from sessions_app.errors import RuntimeFault

_chance = random.Random()  # noqa: S311  no secret; not everybody's, which tests hold still
logger = logging.getLogger(__name__)


class Looker(ABC):
    """One per process and purpose. Processes look at different moments: each pause is up to a fifth longer or
    shorter."""

    name: str
    seconds: float
    """Between two looks."""

    def __init__(self) -> None:
        self._owner = ""
        self._task: asyncio.Task[None] | None = None

    def start(self, owner: str) -> None:
        self._owner = owner
        self._task = asyncio.get_running_loop().create_task(self._look_for_ever(), name=self.name)

    async def stop(self) -> None:
        """Ends between two portions of work; another process goes on."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _look_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self.seconds * _chance.uniform(0.8, 1.2))
            try:
                await self._look()
            except RuntimeFault as fault:
                logger.warning("%s: %s", self.name, fault.code)
            except Exception:
                logger.exception("%s failed", self.name)

    @abstractmethod
    async def _look(self) -> None:
        """Does what there is to do."""
