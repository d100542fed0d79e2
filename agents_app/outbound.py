"""Requests to addresses that operators give us: to public ones only, resolved once, no redirect followed.

What the name resolves to is what is connected to, so that it cannot become another address between the look and the
connection. Of the answer its status is read and nothing else.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cache

import httpx

from sessions_app.conf import settings

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
CONNECT_SECONDS = 5
MOST_TRIED = 3
PRIVATE = "The address is private; AGENT_RUNTIME__WEBHOOK_ALLOWED_NETWORKS may allow it."
UNKNOWN = "The name of its host is not known."
TRANSLATED = ipaddress.ip_network("64:ff9b::/96")  # an IPv4 address behind NAT64, RFC 6052


class Refused(Exception):
    """The address may not be reached, or is none. Its text names no more than the host's own operator gave."""


@dataclass(frozen=True, slots=True)
class Answer:
    """How a request went: a status, or an error in words that may be shown."""

    status: int | None
    duration_ms: int
    error: str = ""

    @property
    def taken(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


# --- addresses ---------------------------------------------------------------------------------------------------


def may_be_reached(address: Address) -> bool:
    """Public addresses, and those of the networks that the setting names."""
    meant = _meant(address)
    return any(meant in network or address in network for network in _allowed()) or _is_public(meant)


def _meant(address: Address) -> Address:
    """The IPv4 address that an IPv6 one is only another spelling of."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in TRANSLATED:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address


def _is_public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and (address.is_site_local or address.sixtofour or address.teredo):
        return False  # a tunnel could end anywhere
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_link_local)


def _allowed() -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    return [ipaddress.ip_network(text, strict=False) for text in settings.WEBHOOK_ALLOWED_NETWORKS]


async def _resolved(host: str, port: int) -> list[Address]:
    """All that the name stands for, each of which may be reached. Raises Refused."""
    looked: Future[list[Address]] = Future()
    looked.set_running_or_notify_cancel()
    # A thread of its own: a resolver that hangs takes no other's place.
    threading.Thread(target=_look_up, args=(host, port, looked), name="name look-up", daemon=True).start()
    addresses = await asyncio.wrap_future(looked)
    for address in addresses:
        if not may_be_reached(address):
            raise Refused(PRIVATE)
    return addresses


def _look_up(host: str, port: int, looked: Future[list[Address]]) -> None:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        named = [str(entry[4][0]).partition("%")[0] for entry in found]
        addresses = [ipaddress.ip_address(one) for one in dict.fromkeys(named)]
    except (OSError, UnicodeError, ValueError):
        looked.set_exception(Refused(UNKNOWN))
    else:
        looked.set_result(addresses)


# --- sending -----------------------------------------------------------------------------------------------------


async def post(url: str, *, body: bytes, headers: Mapping[str, str]) -> Answer:
    """Posts, within WEBHOOK_TIMEOUT_SECONDS in all. Never raises for what the other side does."""
    started = time.monotonic()
    status, error = None, ""
    try:
        async with asyncio.timeout(settings.WEBHOOK_TIMEOUT_SECONDS):
            status = await _status(httpx.URL(url), body, headers)
    except TimeoutError:
        error = f"No answer within {settings.WEBHOOK_TIMEOUT_SECONDS:g} s."
    except Refused as refusal:
        error = str(refusal)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as failure:
        error = _failed(failure)
    return Answer(status, round((time.monotonic() - started) * 1000), error or _told(status))


def _failed(failure: BaseException) -> str:
    """What kind of failure it was: its own words may hold the address."""
    cause: BaseException | None = failure
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return "Its certificate is not valid, or it speaks no TLS."
        cause = cause.__cause__ or cause.__context__
    return type(failure).__name__


def _told(status: int | None) -> str:
    if status is None or 200 <= status < 300:
        return ""
    return f"HTTP {status}" + (": redirects are not followed." if 300 <= status < 400 else "")


async def _status(url: httpx.URL, body: bytes, headers: Mapping[str, str]) -> int:
    addresses = await _resolved(url.raw_host.decode("ascii"), url.port or (443 if url.scheme == "https" else 80))
    failure: Exception = Refused(UNKNOWN)
    for address in addresses[:MOST_TRIED]:
        try:
            return await _sent(url, address, body, headers)
        except (httpx.ConnectError, httpx.ConnectTimeout) as unreachable:
            failure = unreachable
    raise failure


async def _sent(url: httpx.URL, address: Address, body: bytes, headers: Mapping[str, str]) -> int:
    """Connected to the very address; the name stands in the Host header and in the certificate."""
    timeout = httpx.Timeout(settings.WEBHOOK_TIMEOUT_SECONDS, connect=CONNECT_SECONDS)
    named = {"Host": url.netloc.decode("ascii"), "Connection": "close", **headers}
    async with httpx.AsyncClient(verify=_tls(), trust_env=False, follow_redirects=False, timeout=timeout) as client:
        request = client.build_request(
            "POST",
            url.copy_with(host=str(address)),
            content=body,
            headers=named,
            extensions={"sni_hostname": url.raw_host.decode("ascii")},
        )
        response = await client.send(request, stream=True)
        await response.aclose()
        return response.status_code


@cache
def _tls() -> ssl.SSLContext:
    """Made once: reading the certificates takes longer than the request."""
    return httpx.create_ssl_context(trust_env=False)
