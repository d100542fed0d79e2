"""Servers that hand their runs to workers: real processes on one PostgreSQL database and one Redis."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg

from tests.conftest import KEY
from tests.model_server import ModelServer
from tests.runtime_project.programs import ROOT, START_SECONDS, Server, environment, manage, serving

DATABASE, REDIS = os.environ.get("AGENT_RUNTIME__DB_URL", ""), os.environ.get("AGENT_RUNTIME__REDIS_URL", "")
SHARED = DATABASE.startswith("postgres") and bool(REDIS)
NEEDED = "needs AGENT_RUNTIME__DB_URL=postgres://... and AGENT_RUNTIME__REDIS_URL"
LEASE_SECONDS, GRACE_SECONDS = 4, 5
_numbers = itertools.count(1)


@contextmanager
def fresh_database(template: str = "") -> Iterator[str]:
    """A database of its own on the PostgreSQL that the suite runs on, empty or a copy of another."""
    server = f"postgres://{DATABASE.partition('://')[2]}"
    name = f"workers_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(server, autocommit=True) as link:
        link.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template.rpartition("/")[2] or "template1"}"')
    try:
        yield f"{server.rpartition('/')[0]}/{name}"
    finally:
        with psycopg.connect(server, autocommit=True) as link:
            link.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


@dataclass
class Program:
    """A server or a worker."""

    process: subprocess.Popen[str]
    errors: Path

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)

    def terminate(self) -> None:
        self.process.terminate()

    def clean(self) -> None:
        """Nothing unforeseen was logged."""
        said = self.errors.read_text()
        assert "Traceback" not in said, said
        assert "never retrieved" not in said, said


@contextmanager
def working(directory: Path, *arguments: str, **variables: str) -> Iterator[Program]:
    """`manage.py worker` in a process of its own, once it has said that it works."""
    errors = directory / f"worker-{time.monotonic_ns()}"
    with errors.open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "manage.py", "worker", *arguments],
            cwd=ROOT, env=environment(directory, **variables),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
    with process:
        try:
            assert process.stdout is not None
            assert any(line.startswith("Ctrl-C") for line in process.stdout), errors.read_text()
            yield Program(process, errors)
        finally:
            if process.poll() is None:
                process.kill()


class Installation:
    """One database, its model, and who serves and works on it."""

    def __init__(self, stack: ExitStack, directory: Path, database: str, **variables: str) -> None:
        self.stack, self.directory, self.database = stack, directory, database
        self.model = stack.enter_context(ModelServer())
        self.variables = {
            "AGENT_RUNTIME__EXECUTOR": "worker",
            "AGENT_RUNTIME__DB_URL": database,
            "AGENT_RUNTIME__REDIS_URL": REDIS,
            "AGENT_RUNTIME__INTERNAL_API_KEY": KEY,
            "AGENT_RUNTIME__LLM_PROXY_URL": self.model.url,
            "AGENT_RUNTIME__LLM_MODEL": "scripted",
            "AGENT_RUNTIME__LLM_STREAM": "true",
            "AGENT_RUNTIME__LEASE_SECONDS": str(LEASE_SECONDS),
            "AGENT_RUNTIME__SHUTDOWN_GRACE_SECONDS": str(GRACE_SECONDS),
            "AGENT_RUNTIME__RATE_LIMIT_PER_MINUTE": "0",
            "AGENT_RUNTIME__SESSION_RATE_LIMIT_PER_MINUTE": "0",
        } | variables

    def serve(self) -> tuple[Program, httpx.Client]:
        server: Server = self.stack.enter_context(serving(self.directory, **self.variables))
        headers = {"X-Internal-Auth": KEY}
        client = httpx.Client(base_url=server.url, headers=headers, timeout=30, trust_env=False)
        return Program(server.process, server.errors), self.stack.enter_context(client)

    def work(self, *arguments: str, **variables: str) -> Program:
        return self.stack.enter_context(working(self.directory, *arguments, **(self.variables | variables)))

    def manage(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return manage(self.directory, *arguments, **self.variables)

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.database, autocommit=True) as link:
            cursor = link.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def runs(self) -> list[str]:
        """The states of all runs, oldest first."""
        return [state for (state,) in self.rows("SELECT state FROM sessions_app_run ORDER BY id")]

    def owners(self) -> list[str]:
        return [owner for (owner,) in self.rows("SELECT lease_owner FROM sessions_app_run ORDER BY id")]

    def jobs(self) -> list[str]:
        """The states of all jobs, oldest first."""
        return [status for (status,) in self.rows("SELECT status FROM procrastinate_jobs ORDER BY id")]

    def until(self, states: list[str], seconds: float = START_SECONDS) -> None:
        """Returns once the runs are in these states."""
        deadline = time.monotonic() + seconds
        while (found := self.runs()) != states:
            assert time.monotonic() < deadline, f"not within {seconds:g} s: {states}; but {found}"
            time.sleep(0.02)
