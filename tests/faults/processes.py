"""Real servers on one database file, with the scripted model as their upstream: killed, stopped, started again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx

from tests.conftest import KEY
from tests.model_server import ModelServer
from tests.runtime_project.programs import Server, serving


def started(directory: Path, model: ModelServer, **variables: str) -> AbstractContextManager[Server]:
    """`manage.py serve` in a process of its own."""
    given = {
        "AGENT_RUNTIME__INTERNAL_API_KEY": KEY,
        "AGENT_RUNTIME__LLM_PROXY_URL": model.url,
        "AGENT_RUNTIME__LLM_MODEL": "scripted",
        "AGENT_RUNTIME__LLM_STREAM": "true",
    }
    return serving(directory, **(given | variables))


@contextmanager
def calling(server: Server) -> Iterator[httpx.Client]:
    headers = {"X-Internal-Auth": KEY}
    with httpx.Client(base_url=server.url, headers=headers, timeout=30, trust_env=False) as client:
        yield client
