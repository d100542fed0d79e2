"""The LLM proxy as an HTTP peer: its connections, one pool an event loop, its headers, and what is known about it."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import ssl
import time
from contextlib import AbstractAsyncContextManager
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import httpx
import orjson

from agents_app import tracing
from agents_app.llm_events import loads
from agents_app.llm_wire import Connection, Pool, WireBroken
from sessions_app.conf import settings
from sessions_app.errors import LLMGarbage, LLMUnavailable

PROBE_SECONDS = 2
PROBE_KEPT_SECONDS = 60
PROBE_BYTES = 65_536
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_VISIBLE = re.compile(r"[\x21-\x7e]{1,255}")

_of_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Upstream]] = WeakKeyDictionary()


class Upstream:
    """One base URL, met from one event loop."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self.takes_stream_options = True
        self._is_llm_proxy = False
        self._known_until = 0.0
        self._probe: asyncio.Task[bool] | None = None
        url = httpx.URL(f"{base_url}/v1/chat/completions")
        self._line_and_host = b"POST %s HTTP/1.1\r\nHost: %s\r\n" % (url.raw_path, url.netloc)
        self._login = _basic(url)
        tls = _tls() if url.scheme == "https" else None
        self._pool = Pool(url.host, url.port or (443 if tls else 80), tls)
        self._prober = httpx.AsyncClient(timeout=PROBE_SECONDS, trust_env=False, follow_redirects=False)

    def asked(self, body: dict[str, Any], correlation_id: str) -> AbstractAsyncContextManager[Connection]:
        """The answer's head; its body is then read raw. Leaving early closes the connection. Raises WireBroken."""
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity", **_keys(), **self._login}
        told = tracing.headers()
        if _VISIBLE.fullmatch(correlation_id):
            told["X-Correlation-ID"] = correlation_id
        data = _dumps(body)
        told["Content-Length"] = str(len(data))
        own = "".join(f"{name}: {value}\r\n" for name, value in told.items()).encode()
        request = b"%s%s%s\r\n%s" % (self._line_and_host, _lines(tuple(headers.items())), own, data)
        return self._pool.asked(request, settings.LLM_CONNECT_TIMEOUT_SECONDS)

    async def streams(self) -> bool:
        """Whether to ask it for a stream: today's LLM proxy loses tool calls when it streams."""
        if settings.LLM_STREAM in ("true", "false"):
            return bool(settings.LLM_STREAM == "true")
        if time.monotonic() < self._known_until:
            return not self._is_llm_proxy
        if self._probe is None or self._probe.done():
            self._probe = asyncio.create_task(self._probed())
        return not await asyncio.shield(self._probe)

    async def _probed(self) -> bool:
        """Whether it says that it is the LLM proxy; what cannot be asked is not remembered, and counts as no."""
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                status, told = await self._health()
        except (httpx.HTTPError, TimeoutError):
            return False
        if status >= 500:
            return False
        self._is_llm_proxy = isinstance(told, dict) and told.get("service") == "llm-proxy"
        self._known_until = time.monotonic() + PROBE_KEPT_SECONDS
        return self._is_llm_proxy

    async def _health(self) -> tuple[int, Any]:
        headers = _encoded({"Accept-Encoding": "identity", **_keys()})
        async with self._prober.stream("GET", f"{self.base_url}/health", headers=headers) as response:
            body = b""
            async for data in response.aiter_raw():
                body += data
                if len(body) > PROBE_BYTES:
                    break
        try:
            return response.status_code, loads(body) if response.is_success else None
        except LLMGarbage:
            return response.status_code, None

    async def close(self) -> None:
        if self._probe is not None:
            self._probe.cancel()
        self._pool.close()
        await self._prober.aclose()


def here() -> Upstream:
    """The configured upstream, for the running event loop."""
    base_url = settings.LLM_PROXY_URL.rstrip("/").removesuffix("/v1").rstrip("/")
    upstreams = _of_loop.setdefault(asyncio.get_running_loop(), {})
    if base_url not in upstreams:
        upstreams[base_url] = _new(base_url)
    return upstreams[base_url]


async def close() -> None:
    """Closes the running loop's connections; the next request opens new ones."""
    for upstream in _of_loop.pop(asyncio.get_running_loop(), {}).values():
        await upstream.close()


def _new(base_url: str) -> Upstream:
    try:
        url = httpx.URL(base_url)
        if url.scheme in ("http", "https") and url.host and (url.port or 0) < 65_536:
            return Upstream(base_url)
    except httpx.InvalidURL:
        pass
    raise LLMUnavailable(reason="LLM_PROXY_URL is empty or no address")


def _dumps(body: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(body)
    except orjson.JSONEncodeError:  # a lone surrogate, an integer beyond 64 bits
        return json.dumps(body).encode()


def _keys() -> dict[str, str]:
    keys = {"X-Internal-Auth": settings.INTERNAL_API_KEY}
    if settings.LLM_API_KEY:
        keys["Authorization"] = f"Bearer {settings.LLM_API_KEY}"
    return keys


def _encoded(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]


def _basic(url: httpx.URL) -> dict[str, str]:
    """What an address with a name and a password in it asks for."""
    if not url.userinfo:
        return {}
    login = f"{url.username}:{url.password}".encode()
    return {"Authorization": f"Basic {base64.b64encode(login).decode()}"}


def _tls() -> ssl.SSLContext:
    """Trusts whom httpx trusts, for the probe and for the model alike."""
    context = httpx.create_ssl_context(trust_env=False)
    context.set_alpn_protocols(["http/1.1"])
    return context


@lru_cache(16)
def _lines(headers: tuple[tuple[str, str], ...]) -> bytes:
    """The lines that all requests have. A key with a line break in it would begin a header of its own."""
    if any(_CONTROL.search(value) for _, value in headers):
        raise WireBroken("a key that is no header")
    return "".join(f"{name}: {value}\r\n" for name, value in headers).encode()
