"""`manage.py serve` as a newcomer and an operator meet it: real processes, real ports, real files."""

import json
import os
import shlex
import socket
import stat
import subprocess
import sys
from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.core.management.base import CommandError

from agents_app.management.commands import serve
from tests.runtime_project.programs import manage, serving

SHARED = "AGENT_RUNTIME__REDIS_URL" in os.environ and "postgres" in os.environ.get("AGENT_RUNTIME__DB_URL", "")
KEY = "a-long-and-private-key-0123456789"


def frames(body: str) -> list[dict[str, Any]]:
    return [json.loads(line.removeprefix("data: ")) for line in body.splitlines() if line.startswith("data: ")]


def test_first_start_makes_the_database_and_a_private_key_and_answers(tmp_path: Path) -> None:
    with serving(tmp_path) as server, httpx.Client(base_url=server.url, trust_env=False) as client:
        assert client.get("/health").json()["status"] == "healthy"
        assert client.get("/sessions").status_code == 401
        key = (tmp_path / "internal_api_key").read_text().strip()
        assert client.get("/sessions", headers={"X-Internal-Auth": key}).json()["total"] == 0
        assert (tmp_path / "runtime.sqlite3").exists()
        assert stat.S_IMODE((tmp_path / "internal_api_key").stat().st_mode) == 0o600


def test_the_printed_curl_line_streams_an_answer(tmp_path: Path) -> None:
    with serving(tmp_path, AGENT_RUNTIME__DEMO_MODEL_WORD_SECONDS="0") as server:
        [line] = [line for line in server.greeting.splitlines() if "curl -N" in line]
        _, _, url, _, key, _, kind, _, body = shlex.split(line)
        headers = dict(header.split(": ") for header in (key, kind))
        answer = httpx.post(url, headers=headers, content=body, timeout=60, trust_env=False)
    assert answer.headers["content-type"].startswith("text/event-stream")
    story = frames(answer.text)
    assert [frame for frame in story if frame["type"] == "error"] == []
    assert story[-1]["is_final"]
    assert story[-1]["content"]


def test_it_says_what_to_try_next(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        for part in ("fake-llm", f"SQLite {tmp_path}", "manage.py chat", f"{server.url}/admin/", "createsuperuser"):
            assert part in server.greeting


def test_an_operators_key_is_never_printed(tmp_path: Path) -> None:
    with serving(tmp_path, AGENT_RUNTIME__INTERNAL_API_KEY=KEY) as server:
        assert "$AGENT_RUNTIME__INTERNAL_API_KEY" in server.greeting
        assert KEY not in server.greeting + server.errors.read_text()
        answer = httpx.get(f"{server.url}/sessions", headers={"X-Internal-Auth": KEY}, trust_env=False)
        assert answer.status_code == 200
    assert not (tmp_path / "internal_api_key").exists()


def test_a_short_key_is_a_warning_and_works(tmp_path: Path) -> None:
    with serving(tmp_path, AGENT_RUNTIME__INTERNAL_API_KEY="abc") as server:
        assert "has less than 16 characters" in server.errors.read_text()
        answer = httpx.get(f"{server.url}/sessions", headers={"X-Internal-Auth": "abc"}, trust_env=False)
        assert answer.status_code == 200


def test_a_second_server_on_the_same_file_starts_and_sees_the_same_rows(tmp_path: Path) -> None:
    headers = {"X-Internal-Auth": KEY}
    with (
        serving(tmp_path, AGENT_RUNTIME__INTERNAL_API_KEY=KEY) as first,
        serving(tmp_path, AGENT_RUNTIME__INTERNAL_API_KEY=KEY) as second,
    ):
        made = httpx.post(f"{first.url}/sessions", headers=headers, json={"session_id": "shared"}, trust_env=False)
        assert made.status_code == 201
        assert httpx.get(f"{second.url}/sessions/shared", headers=headers, trust_env=False).status_code == 200


def test_sigterm_ends_it_quietly(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        assert server.stop() in {0, -15, 143}
        assert "Traceback" not in server.errors.read_text()


@pytest.mark.skipif(not SHARED, reason="needs AGENT_RUNTIME__DB_URL=postgres://... and AGENT_RUNTIME__REDIS_URL")
def test_workers_share_postgresql_and_end_together(tmp_path: Path) -> None:
    variables = {name: os.environ[name] for name in ("AGENT_RUNTIME__DB_URL", "AGENT_RUNTIME__REDIS_URL")}
    with serving(tmp_path, "--workers", "2", AGENT_RUNTIME__INTERNAL_API_KEY=KEY, **variables) as server:
        answers = [
            httpx.get(f"{server.url}/sessions", headers={"X-Internal-Auth": KEY}, trust_env=False) for _ in range(10)
        ]
        assert {answer.status_code for answer in answers} == {200}
        assert server.stop() == 0


def test_a_worker_finds_its_protocol_before_the_apps_are_loaded() -> None:
    """A spawned process unpickles uvicorn's configuration first, and that names a class of this module."""
    done = subprocess.run(
        [sys.executable, "-c", f"import {serve.__name__}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not SHARED, reason="needs AGENT_RUNTIME__DB_URL=postgres://... and AGENT_RUNTIME__REDIS_URL")
def test_workers_without_redis_are_refused(tmp_path: Path) -> None:
    done = manage(tmp_path, "serve", "--workers", "2", AGENT_RUNTIME__DB_URL=os.environ["AGENT_RUNTIME__DB_URL"])
    assert done.returncode == 1
    assert "--workers needs Redis" in done.stderr


def test_no_server_name_is_told_and_no_address_is_logged(tmp_path: Path) -> None:
    with serving(tmp_path, AGENT_RUNTIME__LOG_LEVEL="INFO") as server:
        answer = httpx.get(f"{server.url}/health?key=planted-secret", trust_env=False)
        assert "server" not in answer.headers
        assert server.stop() in {0, -15, 143}
        assert "planted-secret" not in server.errors.read_text()


@pytest.mark.parametrize(
    ("arguments", "variables", "said"),
    [
        (["--workers", "2"], {}, "--workers needs PostgreSQL"),
        (["--workers", "0"], {}, "at least one process"),
        (["--host", "127.0.0.1"], {"PORT": "eighty"}, "The variable PORT is wrong: 'eighty' is no port"),
        (["--host", "no.such.host.invalid"], {}, "Cannot listen on no.such.host.invalid"),
        ([], {"AGENT_RUNTIME__DB_URL": "sqlite://:memory:"}, "a database in memory"),
        ([], {"AGENT_RUNTIME__DB_URL": "sqlite:////proc/nowhere/x.sqlite3"}, "'/proc/nowhere/"),
        ([], {"AGENT_RUNTIME__DB_URL": "postgres://u:secret@127.0.0.1:1/x"}, "PostgreSQL x at 127.0.0.1:1"),
        ([], {"AGENT_RUNTIME__DB_URL": "oracle9://u:secret@127.0.0.1/x"}, "oracle9"),
        ([], {"AGENT_RUNTIME__DB_URL": "nonsense"}, "AGENT_RUNTIME__DB_URL"),
        ([], {"AGENT_RUNTIME__INTERNAL_API_KEY": "change-me"}, "AGENT_RUNTIME__INTERNAL_API_KEY is a sample"),
        ([], {"AGENT_RUNTIME__BREAKER_FAILURES": "many"}, "AGENT_RUNTIME__BREAKER_FAILURES must be a whole number"),
        ([], {"AGENT_RUNTIME__STREAM_MODE": "sideways"}, "AGENT_RUNTIME__STREAM_MODE is 'sideways'"),
    ],
)
def test_what_cannot_work_is_said_in_a_line(
    tmp_path: Path, arguments: list[str], variables: dict[str, str], said: str
) -> None:
    keys = {"AGENT_RUNTIME__INTERNAL_API_KEY": KEY, "AGENT_RUNTIME__SECRET_KEY": KEY * 2}
    done = manage(tmp_path, "serve", *(arguments or ["--port", "0"]), **(keys | variables))
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "runtime.sqlite3").write_text("no database " * 20)
    done = manage(tmp_path, "serve", "--port", "0")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"CommandError: Cannot open the database SQLite {tmp_path}/runtime.sqlite3: file is not a database"
    ]


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = manage(tmp_path, "serve", "--port", str(port))
        by_variable = manage(tmp_path, "serve", PORT=str(port))
    line = (
        f"CommandError: Cannot listen on 127.0.0.1 port {port}: Address already in use. Give another --port or --host."
    )
    assert (done.returncode, done.stderr.splitlines()) == (1, [line])
    assert (by_variable.returncode, by_variable.stderr.splitlines()) == (1, [line])


@pytest.mark.parametrize("text", ["", "-1", "eighty", "65536", "80.0", "８０"])
def test_no_port(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="is no port"):
        serve.port_number(text)


@pytest.mark.parametrize(("variable", "port"), [(None, 8001), ("", 8001), ("9000", 9000)])
def test_default_port(monkeypatch: pytest.MonkeyPatch, variable: str | None, port: int) -> None:
    monkeypatch.delenv("PORT", raising=False)
    if variable is not None:
        monkeypatch.setenv("PORT", variable)
    assert serve.default_port() == port


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8001"),
        ("0.0.0.0", "http://127.0.0.1:8001"),  # noqa: S104  compared, not bound
        ("::", "http://[::1]:8001"),
        ("::1", "http://[::1]:8001"),
    ],
)
def test_the_printed_address_can_be_called_from_here(host: str, url: str) -> None:
    assert serve.address(host, 8001) == url


@pytest.mark.parametrize(
    ("url", "generated", "parts"),
    [
        ("http://127.0.0.1:8001", True, ["X-Internal-Auth: the-key", "manage.py chat\n"]),
        ("http://127.0.0.1:9000", False, ["$AGENT_RUNTIME__INTERNAL_API_KEY", "chat --url ws://127.0.0.1:9000\n"]),
    ],
)
def test_greeting(settings: Any, monkeypatch: pytest.MonkeyPatch, url: str, generated: bool, parts: list[str]) -> None:
    monkeypatch.setattr("sys.argv", ["manage.py", "serve"])
    settings.INTERNAL_API_KEY, settings.INTERNAL_API_KEY_GENERATED = "the-key", generated
    said = serve.greeting(url)
    assert all(part in said for part in parts)
    assert ("the-key" in said) is generated


def test_the_models_address_is_shown_without_its_password(settings: Any) -> None:
    settings.LLM_MODEL, settings.LLM_PROXY_URL = "gpt-x", "http://user:pass@proxy:8002"
    assert serve.model_name() == "gpt-x at proxy:8002"


def test_a_socket_is_claimed_for_either_family() -> None:
    with serve.listening_socket("127.0.0.1", 0) as listener:
        assert listener.family == socket.AF_INET
        port = listener.getsockname()[1]
        with pytest.raises(CommandError, match="Address already in use"):
            serve.listening_socket("127.0.0.1", port)


@pytest.mark.django_db(transaction=True)
def test_a_database_that_is_up_to_date_is_opened_and_left_alone() -> None:
    serve.open_database()
    serve.migrate()
    assert serve.database_name().startswith(("SQLite ", "PostgreSQL "))
