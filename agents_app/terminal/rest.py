"""The few things that are asked over REST: agents, history, what a session is and waits for."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import httpx

Json = dict[str, Any]


class RestFailed(Exception):
    """The server answered something else than asked, or not at all."""


class Rest:
    def __init__(self, socket_url: str, key: str) -> None:
        self._client = httpx.Client(
            base_url=http_url(socket_url), headers={"X-Internal-Auth": key}, timeout=10, trust_env=False
        )

    def close(self) -> None:
        self._client.close()

    def agents(self) -> list[Json]:
        return self._items("/agents", "agents")

    def history(self, session_id: str) -> list[Json]:
        return self._items(f"/sessions/{quote(session_id, safe='')}/history", "messages")

    def pending_approvals(self, session_id: str) -> list[Json]:
        return self._items(f"/sessions/{quote(session_id, safe='')}/pending-approvals", "pending_approvals")

    def exists(self, session_id: str) -> bool:
        return self._get(f"/sessions/{quote(session_id, safe='')}") is not None

    def _items(self, path: str, key: str) -> list[Json]:
        """The list under `key`; empty where the server knows nothing of it."""
        found = (self._get(path) or {}).get(key)
        return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []

    def _get(self, path: str) -> Json | None:
        try:
            answer = self._client.get(path)
            if answer.status_code == httpx.codes.NOT_FOUND:
                return None
            answer.raise_for_status()
            found = answer.json()
        except httpx.HTTPStatusError as fault:
            raise RestFailed(f"The server answered {fault.response.status_code}") from fault
        except (httpx.HTTPError, ValueError) as fault:
            raise RestFailed(f"The server could not be asked: {type(fault).__name__}") from fault
        return found if isinstance(found, dict) else None


def http_url(socket_url: str) -> str:
    parts = urlsplit(socket_url)
    return urlunsplit(parts._replace(scheme={"ws": "http", "wss": "https"}[parts.scheme]))
