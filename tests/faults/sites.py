"""An installation that is to suffer: one database, any number of servers on it, and the model they ask.

with ExitStack() as stack:
    site = Site(stack, directory, database="sqlite:///...")
    one, two = site.serve(), site.serve()
    one.kill(); two.freeze(); two.thaw()
"""

from __future__ import annotations

import itertools
import re
import signal
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx
import psycopg

from tests.conftest import KEY
from tests.faults.forks import Forked, forks
from tests.faults.servers import until
from tests.model_server import ModelServer
from tests.runtime_project.programs import environment

LEASE_SECONDS = 4  # a busy machine may hold up a process for longer than two
KILLED = 137
STATES = """
    SELECT session.session_id, run.state
    FROM sessions_app_run run JOIN sessions_app_session session ON session.id = run.session_id ORDER BY run.id
"""
_numbers = itertools.count(1)


@dataclass
class Program:
    """One process of ours; an armed one has fail points."""

    process: Forked
    errors: Path
    armed: bool

    @property
    def log(self) -> str:
        return self.errors.read_text()

    def kill(self) -> None:
        self.process.send(signal.SIGKILL)
        self.process.wait(30)

    def freeze(self) -> None:
        self.process.send(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send(signal.SIGCONT)

    def stop(self) -> int:
        self.process.send(signal.SIGTERM)
        return self.process.wait(30)

    def died(self, seconds: float = 60) -> None:
        """Returns once a fail point, or a signal of ours, has killed it."""
        assert self.process.wait(seconds) in (KILLED, -signal.SIGKILL), self.log

    def clean(self) -> None:
        """Nothing unforeseen was logged."""
        assert "Traceback" not in self.log
        assert "never retrieved" not in self.log


@dataclass
class Node(Program):
    """A server, and a client that holds its key."""

    url: str
    client: httpx.Client


class Site:
    """A database and who serves it."""

    def __init__(self, stack: ExitStack, directory: Path, database: str = "", **variables: str) -> None:
        self.stack, self.directory = stack, directory
        self.database = database or f"sqlite:///{directory / 'runtime.sqlite3'}"
        self.model = stack.enter_context(ModelServer())
        self.variables = {
            "AGENT_RUNTIME__DB_URL": self.database,
            "AGENT_RUNTIME__INTERNAL_API_KEY": KEY,
            "AGENT_RUNTIME__LLM_PROXY_URL": self.model.url,
            "AGENT_RUNTIME__LLM_MODEL": "scripted",
            "AGENT_RUNTIME__LLM_STREAM": "true",
            "AGENT_RUNTIME__LEASE_SECONDS": str(LEASE_SECONDS),
            "AGENT_RUNTIME__RATE_LIMIT_PER_MINUTE": "0",
            "AGENT_RUNTIME__SESSION_RATE_LIMIT_PER_MINUTE": "0",
        } | variables

    @property
    def on_sqlite(self) -> bool:
        return self.database.startswith("sqlite")

    def serve(self, *failpoints: str, **variables: str) -> Node:
        """A server that answers; killed at the end if it still runs."""
        process, out, errors = self._run("serve", "--port", "0", failpoints=failpoints, variables=variables)
        self.stack.callback(process.send, signal.SIGKILL)
        greeting = re.compile(r"^Agent runtime \S+ on (\S+)$", re.MULTILINE)
        found = until(
            lambda: greeting.search(out.read_text()) or process.poll() is not None, 40, "the server says its address"
        )
        assert found is not True, errors.read_text()
        headers = {"X-Internal-Auth": KEY}
        client = httpx.Client(base_url=found[1], headers=headers, timeout=60, trust_env=False)
        node = Node(process, errors, bool(failpoints), found[1], self.stack.enter_context(client))
        until(lambda: self._healthy(node), 40, "the server answers")
        return node

    def work(self, *failpoints: str) -> Program:
        """A worker that has said that it works."""
        process, out, errors = self._run("worker", failpoints=failpoints)
        self.stack.callback(process.send, signal.SIGKILL)
        until(lambda: "Ctrl-C" in out.read_text() or process.poll() is not None, 40, "the worker says that it works")
        assert process.poll() is None, errors.read_text()
        return Program(process, errors, bool(failpoints))

    def _run(
        self, *arguments: str, failpoints: Sequence[str] = (), variables: Mapping[str, str] = MappingProxyType({})
    ) -> tuple[Forked, Path, Path]:
        number = next(_numbers)
        out, errors = self.directory / f"out-{number}", self.directory / f"errors-{number}"
        out.touch()
        errors.touch()
        armed = {"AGENT_RUNTIME__FAILPOINTS": ",".join(failpoints)}
        env = environment(self.directory, **(self.variables | armed | dict(variables)))
        return forks().start(*arguments, env=env, out=out, errors=errors), out, errors

    def _healthy(self, node: Node) -> bool:
        assert node.process.poll() is None, node.log
        try:
            return node.client.get("/health").status_code == 200
        except httpx.TransportError:
            return False

    def doctor(self) -> tuple[int, str]:
        """The exit code of `manage.py doctor`, and what it said."""
        return self.manage("doctor")

    def manage(self, *arguments: str, failpoints: Sequence[str] = (), **variables: str) -> tuple[int, str]:
        """The exit code of a command, and what it said."""
        process, out, errors = self._run(*arguments, failpoints=failpoints, variables=variables)
        return process.wait(60), out.read_text() + errors.read_text()

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        """What a statement that only reads finds in the database."""
        if self.on_sqlite:
            with closing(sqlite3.connect(self.database.removeprefix("sqlite:///"), timeout=30)) as link:
                return link.execute(statement).fetchall()
        with psycopg.connect(self.database) as connection:
            return connection.execute(statement).fetchall()

    def change(self, statement: str) -> None:
        """What somebody does to the database past all of our code."""
        if self.on_sqlite:
            with closing(sqlite3.connect(self.database.removeprefix("sqlite:///"), timeout=30)) as link, link:
                link.execute(statement)
        else:
            with psycopg.connect(self.database) as connection:
                connection.execute(statement)

    def runs(self, session_id: str = "") -> list[str]:
        """The states of a session's runs, or of all, oldest first."""
        return [state for session, state in self.rows(STATES) if session_id in ("", session)]

    def settled(self, seconds: float = 60) -> None:
        """Returns once nothing runs and nothing waits for its turn."""
        until(lambda: not {"queued", "running"} & set(self.runs()), seconds, f"settled runs; {self.runs()}")
