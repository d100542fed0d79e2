"""What a test expects of any REST answer."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import httpx

ROOTS = ["", "/api/v1"]


def times(value: Any) -> Iterator[str]:
    """Every text that looks like a time."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if isinstance(inner, str) and (name.endswith("_at") or name in ("timestamp", "last_activity")):
                yield inner
            yield from times(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from times(inner)


def got(client: httpx.Client, path: str, **query: Any) -> Any:
    answer = client.get(path, params=query or None)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert all(datetime.fromisoformat(text).tzinfo for text in times(body))
    return body


def refused(answer: httpx.Response, status: int) -> Any:
    """The detail of an error, which is JSON whatever went wrong."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    detail = answer.json()["detail"]
    assert detail
    return detail
