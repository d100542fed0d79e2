"""The keys that this process knows: compared without a query, read again every second while anybody calls.

A key that was revoked elsewhere is refused here at most MAX_AGE_SECONDS later; while the database is away, what was
read last goes on. Nothing here raises but StorageUnavailable, when a key is unknown and nobody can be asked.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from contextlib import suppress

from django.utils import timezone

from sessions_app import database, keys
from sessions_app.conf import settings
from sessions_app.errors import RuntimeFault
from sessions_app.keys import ENVIRONMENT, Known

logger = logging.getLogger(__name__)
REFRESH_SECONDS, MAX_AGE_SECONDS = 1.0, 2.0
# A key that was made a moment ago is looked for at once, but wrong keys must not make a query each.
RETRY_SECONDS = 0.25


class Keyring:
    """One per process."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self._keys: tuple[Known, ...] = ()
        self._read_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None
        self._noted: dict[str, float] = {}
        self._noting: set[asyncio.Task[None]] = set()

    async def find(self, given: bytes) -> str | None:
        """The id of the key, when it opens the door."""
        digest = keys.digest(given)
        if hmac.compare_digest(digest, keys.digest(settings.INTERNAL_API_KEY.encode())):
            return self._used(ENVIRONMENT)
        await self._fresh()
        found = self._match(digest)
        if found is None and self._age() > RETRY_SECONDS:
            await self._read()
            found = self._match(digest)
        return self._used(found.key_id) if found else None

    async def holds(self, key_id: str) -> bool:
        """Whether a key that opened the door would do so again."""
        if key_id == ENVIRONMENT:
            return True
        with suppress(RuntimeFault):  # the storage is away: what was read last goes on
            await self._fresh()
        return any(known.key_id == key_id and not known.expired() for known in self._keys)

    def _match(self, digest: bytes) -> Known | None:
        found = None
        for known in self._keys:  # all of them, whichever it is
            if hmac.compare_digest(digest, known.digest) and not known.expired():
                found = known
        return found

    def _age(self) -> float:
        return time.monotonic() - self._read_at

    async def _fresh(self) -> None:
        """Reads again behind the caller's back while what is known is young enough, else before going on."""
        age = self._age()
        if age > MAX_AGE_SECONDS:
            try:
                await self._read()
            except RuntimeFault:
                if not self._keys:
                    raise
        elif age > REFRESH_SECONDS:
            self._read_soon()

    async def _read(self) -> None:
        await asyncio.shield(self._read_soon())

    def _read_soon(self) -> asyncio.Task[None]:
        """The one reading that is under way."""
        loop = asyncio.get_running_loop()
        if self._reading is None or self._reading.done() or self._reading.get_loop() is not loop:
            self._reading = loop.create_task(self._now())
            self._reading.add_done_callback(_retrieved)
        return self._reading

    async def _now(self) -> None:
        asked_at = time.monotonic()
        self._keys = await database.read(keys.active)
        self._read_at = asked_at

    # --- the last use ---

    def _used(self, key_id: str) -> str:
        """Has the use written down, at most once a minute and by somebody else."""
        now = time.monotonic()
        if now - self._noted.get(key_id, float("-inf")) > keys.USE_WRITTEN_EVERY.total_seconds():
            self._noted[key_id] = now
            self._noting.add(task := asyncio.get_running_loop().create_task(self._note(key_id)))
            task.add_done_callback(self._noting.discard)
        return key_id

    async def _note(self, key_id: str) -> None:
        try:
            await database.write("", keys.mark_used, key_id, timezone.now())
        except Exception as error:  # nobody waits for this: the next use tries again
            self._noted.pop(key_id, None)
            logger.warning("the last use of key %s was not written: %s", key_id, type(error).__name__)


def _retrieved(task: asyncio.Task[None]) -> None:
    """A failure is told to whoever waits; when nobody does, it is no news."""
    if not task.cancelled():
        task.exception()


keyring = Keyring()
