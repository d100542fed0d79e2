"""Where a request comes from: its headers, its address, the id that it is followed by. Decides nothing."""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from functools import cache
from ipaddress import ip_address, ip_network
from typing import Any

from sessions_app import ids
from sessions_app.conf import settings

Scope = MutableMapping[str, Any]
REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
HOP = re.compile(r"(?P<v4>[0-9.]+):[0-9]+|\[(?P<v6>[0-9A-Fa-f:.]+)\](:[0-9]+)?")
TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


def headers_of(scope: Scope, name: bytes) -> list[bytes]:
    return [value for key, value in scope["headers"] if key == name]


def correlation_id(scope: Scope) -> str:
    """The caller's X-Request-ID, else the trace it belongs to, else one of our own."""
    for value in headers_of(scope, b"x-request-id")[:1]:
        if REQUEST_ID.fullmatch(text := value.decode("latin-1")):
            return text
    for value in headers_of(scope, b"traceparent")[:1]:
        if match := TRACEPARENT.fullmatch(value.decode("latin-1")):
            return match[1]
    return ids.new().hex


@cache
def _trusted(proxies: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(ip_network(one, strict=False) for one in proxies)


def address_of(scope: Scope) -> str:
    """The caller's address; X-Forwarded-For counts only as far as trusted proxies wrote it."""
    client = scope.get("client")
    address = client[0] if client else "unknown"
    if not settings.TRUSTED_PROXIES:
        return address
    named = b",".join(headers_of(scope, b"x-forwarded-for")).decode("latin-1").split(",")
    hops = [hop.strip() for hop in named if hop.strip()]
    while hops and _is_trusted(address):
        if (hop := _address(hops.pop())) is None:
            break  # nobody's address: the proxy that wrote it stands for it
        address = hop
    return address


def _address(hop: str) -> str | None:
    """The address in one part of X-Forwarded-For; some proxies add the port, and every port would be another caller."""
    if match := HOP.fullmatch(hop):
        hop = match["v6"] or match["v4"]
    try:
        return str(ip_address(hop))
    except ValueError:
        return None


def _is_trusted(address: str) -> bool:
    try:
        found = ip_address(address)
    except ValueError:
        return False
    return any(found in network for network in _trusted(tuple(settings.TRUSTED_PROXIES)))
