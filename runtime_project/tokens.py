"""Bearer tokens of people: JWTs, checked against the keys that their issuer publishes (JWKS).

A key that is known goes on while the issuer is away. One that is unknown is looked for, but not for every token.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Any

import httpx
import jwt

from agents_app.checks import PUBLIC_KEY_ALGORITHMS
from sessions_app import owners, strict_json
from sessions_app.conf import settings
from sessions_app.errors import IssuerUnavailable

logger = logging.getLogger(__name__)
SIGNING = frozenset({"RSA", "EC", "OKP"})
REFRESH_SECONDS, RETRY_SECONDS, PATIENCE_SECONDS = 300.0, 10.0, 5.0
MAX_JWKS_BYTES, MAX_TOKEN_BYTES = 262_144, 16_384


@dataclass(frozen=True, slots=True)
class Person:
    """Whom a token speaks for, and until when (unix seconds)."""

    subject: str
    expires_at: float


class Issuer:
    """The keys of one issuer, kept in this process."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._keys: dict[str, dict[str, Any]] = {}
        self._fetched_at = self._tried_at = float("-inf")
        self._fetching: asyncio.Task[None] | None = None

    async def key(self, key_id: str | None) -> dict[str, Any] | None:
        """The public key of this name, or the only one there is for a token that names none.

        Raises IssuerUnavailable when it is unknown and nobody can be asked.
        """
        known = self._known(key_id)
        now = time.monotonic()
        if now - self._tried_at > (REFRESH_SECONDS if known else RETRY_SECONDS):
            fetching = self._fetch_soon()
            if not known:
                await asyncio.shield(fetching)
                known = self._known(key_id)
        elif not known and self._fetching is not None and not self._fetching.done():
            await asyncio.shield(self._fetching)
            known = self._known(key_id)
        if known is None and self._fetched_at < self._tried_at:
            raise IssuerUnavailable
        return known

    def _known(self, key_id: str | None) -> dict[str, Any] | None:
        if key_id is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(key_id)

    def _fetch_soon(self) -> asyncio.Task[None]:
        """The one request that is under way."""
        loop = asyncio.get_running_loop()
        if self._fetching is None or self._fetching.done() or self._fetching.get_loop() is not loop:
            self._tried_at = time.monotonic()
            self._fetching = loop.create_task(self._fetch())
        return self._fetching

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                self._keys = _usable(await _download(self.url))
            self._fetched_at = self._tried_at
        except (httpx.HTTPError, TimeoutError, ValueError) as error:
            logger.warning("the token issuer's keys cannot be read: %s", type(error).__name__)


async def _download(url: str) -> bytes:
    client = httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=PATIENCE_SECONDS)
    async with client, client.stream("GET", url, headers={"Accept": "application/json"}) as answer:
        answer.raise_for_status()  # a redirect, too
        body = b""
        async for piece in answer.aiter_bytes():
            body += piece
            if len(body) > MAX_JWKS_BYTES:
                raise ValueError("too large")
        return body


def _usable(body: bytes) -> dict[str, dict[str, Any]]:
    """The public signing keys of a JWKS by their names. Raises ValueError."""
    told = strict_json.loads(body)
    listed = told.get("keys") if isinstance(told, dict) else None
    if not isinstance(listed, list):
        raise ValueError("no JWKS")
    return {
        str(key.get("kid", "")): key
        for key in listed
        if isinstance(key, dict) and key.get("kty") in SIGNING and key.get("use", "sig") == "sig"
    }


_issuer: Issuer | None = None


def forget() -> None:
    """Ask the issuer again."""
    global _issuer
    _issuer = None


def _current() -> Issuer:
    global _issuer
    if _issuer is None or _issuer.url != settings.JWT_JWKS_URL:
        _issuer = Issuer(settings.JWT_JWKS_URL)
    return _issuer


async def check(token: bytes) -> Person | None:
    """Whom the token speaks for; None for one that is not good. Raises IssuerUnavailable."""
    if len(token) > MAX_TOKEN_BYTES:
        return None
    try:
        head = jwt.get_unverified_header(token)
        algorithm, key_id = head.get("alg"), head.get("kid")
        if algorithm not in settings.JWT_ALGORITHMS or algorithm not in PUBLIC_KEY_ALGORITHMS:
            return None
        key = await _current().key(key_id)
        if key is None or key.get("alg", algorithm) != algorithm:
            return None
        return _person(_claims(token, jwt.PyJWK(key, algorithm)))
    except (jwt.PyJWTError, ValueError, TypeError, OverflowError):  # whatever is wrong with it, it opens nothing
        return None


def _claims(token: bytes, key: jwt.PyJWK) -> dict[str, Any]:
    return jwt.decode(
        token,
        key,
        algorithms=settings.JWT_ALGORITHMS,
        audience=settings.JWT_AUDIENCE,
        issuer=settings.JWT_ISSUER,
        leeway=settings.JWT_LEEWAY_SECONDS,
        options={"require": ["exp", "sub", "iss", "aud"]},
    )


def _person(claims: dict[str, Any]) -> Person | None:
    subject = claims["sub"]
    return Person(subject, float(claims["exp"]) + settings.JWT_LEEWAY_SECONDS) if owners.is_owner(subject) else None
