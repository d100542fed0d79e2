"""How often an address may call and a session may be spoken to: exact under concurrency, shared over Redis if any."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from functools import cache

from limits import RateLimitItemPerMinute
from limits.aio.storage import RedisStorage, Storage

from sessions_app import owners
from sessions_app.conf import settings

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


WINDOW_SECONDS = 60
REDIS_PATIENCE_SECONDS = 2.0  # less, and a busy process would take its own slowness for Redis's
AGAIN_SECONDS = 5.0
MOST_RESETS = 20_000


class Here:
    """This process's own accounts, in fixed windows of a minute. `limits` has a storage in memory too, but that goes
    through all that it keeps at nearly every hit: with a thousand sessions that cost more than the hit."""

    def __init__(self) -> None:
        self._windows: dict[tuple[str, ...], tuple[int, float]] = {}  # the hits, and when the window ends
        self._cleared_at = 0.0

    def hit(self, limit: int, account: tuple[str, ...], now: float) -> Standing:
        count, reset = self._windows.get(account, (0, 0.0))
        if _is_over(reset, now):
            count, reset = 0, now + WINDOW_SECONDS
            if abs(now - self._cleared_at) >= WINDOW_SECONDS:
                self._windows = {one: window for one, window in self._windows.items() if not _is_over(window[1], now)}
                self._cleared_at = now
        self._windows[account] = count + 1, reset
        return _standing(limit, count + 1, reset)


def _is_over(reset: float, now: float) -> bool:
    """Also of a window that a clock set back has put far into the future."""
    return not now < reset <= now + WINDOW_SECONDS


_here = Here()
_resets: dict[str, float] = {}
"""When the windows in Redis that were hit lately end."""


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
    global _here
    _here = Here()
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
    return _here.hit(limit, account, time.time())


async def _counted(accounts: Storage, limit: int, account: tuple[str, ...]) -> Standing:
    """A fixed window of a minute. `limits`' own strategy would ask the storage three times; here it is asked once, and
    once a window when the window ends."""
    key = _per_minute(limit).key_for(*account)
    count, now = await accounts.incr(key, WINDOW_SECONDS), time.time()
    reset = now + WINDOW_SECONDS if count == 1 else _resets.get(key, 0.0)
    if reset <= now:
        reset = await accounts.get_expiry(key)
    if len(_resets) >= MOST_RESETS:
        _resets.clear()
    _resets[key] = reset
    return _standing(limit, count, reset)


def _standing(limit: int, count: int, reset: float) -> Standing:
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
