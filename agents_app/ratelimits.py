"""How often an address may call and a session may be spoken to: exact under concurrency, shared over Redis if any."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from functools import cache

from django.conf import settings
from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage, RedisStorage, Storage

from sessions_app import owners

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Standing:
    """How an account stands after a hit."""

    allowed: bool
    limit: int
    remaining: int
    reset: int

    @property
    def retry_after(self) -> int:
        return max(1, self.reset - int(time.time()))

    def headers(self) -> list[tuple[bytes, bytes]]:
        named = {"limit": self.limit, "remaining": self.remaining, "reset": self.reset}
        return [(f"x-ratelimit-{name}".encode(), str(value).encode()) for name, value in named.items()]

    def refusal(self) -> dict[str, object]:
        """The body of a 429."""
        told = {"error": "Too many requests", "limit": self.limit, "window": "1 minute"}
        return {**told, "retry_after": self.retry_after}


REDIS_PATIENCE_SECONDS = 2.0  # less, and a busy process would take its own slowness for Redis's
AGAIN_SECONDS = 5.0
MOST_RESETS = 20_000
_resets: dict[tuple[type[Storage], str], float] = {}
"""When the windows that were hit lately end, by the storage they are in."""


@cache
def _here() -> Storage:
    """This process's own accounts."""
    return MemoryStorage()


_shared: tuple[asyncio.AbstractEventLoop, Storage] | None = None
_shared_again_at = 0.0


def _everywhere() -> Storage | None:
    """The accounts that all processes share; None without a Redis, or while it fails. Then one hit at a time tries it
    again, and the others do not wait for what comes of that."""
    global _shared, _shared_again_at
    now = time.monotonic()
    if not settings.REDIS_URL or now < _shared_again_at:
        return None
    if _shared_again_at:
        _shared_again_at = now + AGAIN_SECONDS
    loop = asyncio.get_running_loop()
    if _shared is None or _shared[0] is not loop:
        from redis.asyncio.retry import Retry  # it loads much, and many have no Redis
        from redis.backoff import NoBackoff

        storage = RedisStorage(
            f"async+{settings.REDIS_URL}",
            implementation="redispy",
            key_prefix=f"{settings.CHANNEL_PREFIX}limits",  # another installation may have the same Redis
            # A hit whose answer is lost may have been counted. What this is, redis-py is told as it stands.
            retry=Retry(NoBackoff(), 0),  # type: ignore[arg-type]
            socket_timeout=REDIS_PATIENCE_SECONDS,
            socket_connect_timeout=REDIS_PATIENCE_SECONDS,
        )
        _shared = loop, storage
    return _shared[1]


def reset() -> None:
    """Forgets this process's accounts."""
    _here.cache_clear()
    _resets.clear()


async def _hit(limit: int, *account: str) -> Standing | None:
    """Counts one; None where the limit is switched off."""
    if limit <= 0:
        return None
    global _shared_again_at
    if (shared := _everywhere()) is not None:
        try:
            standing = await _counted(shared, limit, account)
            _shared_again_at = 0.0
            return standing
        except Exception as error:  # a limit is no reason to refuse anybody because Redis is down
            logger.warning("rate limits: Redis fails (%s), each process counts for itself", type(error).__name__)
            _shared_again_at = time.monotonic() + AGAIN_SECONDS
    return await _counted(_here(), limit, account)


async def _counted(accounts: Storage, limit: int, account: tuple[str, ...]) -> Standing:
    """A fixed window of a minute. `limits`' own strategy would ask the storage three times; here it is asked once, and
    once a window when the window ends."""
    window = _per_minute(limit)
    key, seconds = window.key_for(*account), window.get_expiry()
    count, now = await accounts.incr(key, seconds), time.time()
    known = type(accounts), key
    reset = now + seconds if count == 1 else _resets.get(known, 0.0)
    if reset <= now:
        reset = await accounts.get_expiry(key)
    if len(_resets) >= MOST_RESETS:
        _resets.clear()
    _resets[known] = reset
    return Standing(count <= limit, limit, max(limit - count, 0), int(reset) + 1)


_per_minute = cache(RateLimitItemPerMinute)


async def hit_address(address: str) -> Standing | None:
    return await _hit(settings.RATE_LIMIT_PER_MINUTE, "address", address)


async def hit_session(session_id: str) -> Standing | None:
    """Counts one message; nobody can use up what another owner may say."""
    return await _hit(settings.SESSION_RATE_LIMIT_PER_MINUTE, "session", owners.current(), session_id)


async def hit_login(address: str) -> Standing | None:
    """Counts an attempt to log in to the admin, a right one too: so no two at once can slip through."""
    return await _hit(settings.ADMIN_LOGINS_PER_MINUTE, "login", address)
