"""What is measured side by side: this server as it is shipped, and the yardsticks."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

KEY = "a-key-for-the-benchmark-0123456789"
ROOT = Path(__file__).resolve().parent.parent
RUNTIME, RAW, STARLETTE, MODEL = "runtime", "T0agent", "T0b", "model"

Request = Callable[[str, str], bytes]
"""The bytes of one turn: of this session, with this text."""


@dataclass(frozen=True)
class Target:
    name: str
    request: Request
    command: Callable[[int, int], list[str]]
    """From the ports of the target and of the model."""
    env: Callable[[int], dict[str, str]] = field(default=lambda model_port: {})


def post(path: str, body: object) -> bytes:
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: bench\r\nx-internal-auth: {KEY}\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(data)}\r\n\r\n".encode() + data


def agent_request(session_id: str, text: str) -> bytes:
    message = {"type": "user_message", "content": text, "agent_type": "coder"}
    return post("/agent/message/stream", {"session_id": session_id, "message": message})


def openai_request(session_id: str, text: str) -> bytes:
    messages = [{"role": "user", "content": text}]
    return post("/v1/chat/completions", {"model": "bench", "stream": True, "messages": messages})


def runtime_env(database_url: str, redis_url: str = "") -> Callable[[int], dict[str, str]]:
    """As shipped, but for limits that are there to stop what a benchmark does: they count and let through."""
    return lambda model_port: {
        "AGENT_RUNTIME__DB_URL": database_url,
        "AGENT_RUNTIME__REDIS_URL": redis_url,
        "AGENT_RUNTIME__INTERNAL_API_KEY": KEY,
        "AGENT_RUNTIME__LLM_PROXY_URL": f"http://127.0.0.1:{model_port}",
        "AGENT_RUNTIME__LLM_MODEL": "bench",
        "AGENT_RUNTIME__LOG_LEVEL": "INFO",
        "AGENT_RUNTIME__RATE_LIMIT_PER_MINUTE": "100000000",
        "AGENT_RUNTIME__SESSION_RATE_LIMIT_PER_MINUTE": "100000000",
        "AGENT_RUNTIME__MAX_MESSAGES_PER_SESSION": "100000",
    }


def shared_name(processes: int) -> str:
    """So many of our processes, on one PostgreSQL and one Redis."""
    return f"PostgreSQL x {processes}"


def runtime(database_url: str, redis_url: str = "", workers: int = 1) -> Target:
    def command(port: int, model_port: int) -> list[str]:
        manage = [sys.executable, str(ROOT / "manage.py"), "serve", "--port", str(port)]
        return [*manage, "--workers", str(workers)]

    name = shared_name(workers) if redis_url else RUNTIME
    return Target(name, agent_request, command, runtime_env(database_url, redis_url))


def raw_command(port: int, model_port: int) -> list[str]:
    return [sys.executable, "-m", "bench.pass_raw", str(port), str(model_port)]


def starlette_command(port: int, model_port: int) -> list[str]:
    options = ["--port", str(port), "--log-level", "warning", "--no-access-log"]
    return [sys.executable, "-m", "uvicorn", "bench.pass_starlette:app", *options]


def yardsticks() -> list[Target]:
    found = [Target(RAW, agent_request, raw_command)]
    if find_spec("starlette"):
        env = {"UPSTREAM": "http://127.0.0.1:{}"}
        told = lambda model_port: {key: url.format(model_port) for key, url in env.items()}  # noqa: E731
        found.append(Target(STARLETTE, openai_request, starlette_command, told))
    return found
