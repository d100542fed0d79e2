"""The promises to event handlers, the same wherever they are run: in the server, and on workers of PostgreSQL."""

from __future__ import annotations

import sqlite3
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from tests.conftest import KEY
from tests.receiver import Receiver, receiving
from tests.runtime_project.programs import manage, serving
from tests.told import noted
from tests.workers import NEEDED, REDIS, SHARED, Program, fresh_database, working

PATIENCE_SECONDS = 60
MODES = ["inline", pytest.param("worker", marks=pytest.mark.skipif(not SHARED, reason=NEEDED))]


class Place:
    """A server, and workers where they execute; with the handlers of `tests.told`."""

    def __init__(self, stack: ExitStack, directory: Path, mode: str) -> None:
        self.stack, self.directory, self.mode = stack, directory, mode
        self.file = directory / "told"
        self.file.touch()
        self.variables = {
            "DJANGO_SETTINGS_MODULE": "tests.told.settings",
            "TOLD": str(self.file),
            "AGENT_RUNTIME__INTERNAL_API_KEY": KEY,
            "AGENT_RUNTIME__LEASE_SECONDS": "1",
            "AGENT_RUNTIME__WEBHOOK_ALLOWED_NETWORKS": "127.0.0.1",
        }
        if mode == "worker":
            self.database = stack.enter_context(fresh_database())
            shared = {"DB_URL": self.database, "REDIS_URL": REDIS, "EXECUTOR": "worker"}
            self.variables |= {f"AGENT_RUNTIME__{name}": value for name, value in shared.items()}

    def serve(self) -> tuple[subprocess.Popen[str], httpx.Client]:
        server = self.stack.enter_context(serving(self.directory, **self.variables))
        client = httpx.Client(base_url=server.url, headers={"X-Internal-Auth": KEY}, timeout=30, trust_env=False)
        return server.process, self.stack.enter_context(client)

    def work(self) -> Program:
        return self.stack.enter_context(working(self.directory, **self.variables))

    def start(self) -> tuple[subprocess.Popen[str], httpx.Client]:
        """What delivers, and a client of the server."""
        server, client = self.serve()
        return (self.work().process if self.mode == "worker" else server), client

    def manage(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return manage(self.directory, *arguments, **self.variables)

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        if self.mode == "worker":
            with psycopg.connect(self.database, autocommit=True) as link:
                return link.execute(statement.encode()).fetchall()
        with closing(sqlite3.connect(f"file:{self.directory / 'runtime.sqlite3'}?mode=ro", uri=True)) as file:
            return file.execute(statement).fetchall()

    def states(self) -> dict[str, set[tuple[str, int]]]:
        """Of each handler, what became of its deliveries and in how many attempts."""
        found: dict[str, set[tuple[str, int]]] = {}
        for handler, state, attempts in self.rows("SELECT handler, state, attempts FROM sessions_app_eventdelivery"):
            found.setdefault(handler, set()).add((state, attempts))
        return found

    def told(self, handler: str) -> list[dict[str, Any]]:
        return [line for line in noted(self.file) if line["handler"] == handler]

    def until(self, holds: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not holds():
            assert time.monotonic() < deadline, (self.states(), self.file.read_text())
            time.sleep(0.05)


@pytest.fixture(params=MODES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    with ExitStack() as stack:
        yield Place(stack, tmp_path, request.param)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as one:
        yield one


def test_each_handler_gets_what_it_is_owed_and_harms_no_other(place: Place, receiver: Receiver) -> None:
    assert place.manage("migrate", "--verbosity", "0").returncode == 0
    assert place.manage("webhooks", "add", receiver.url, "--events", "SessionCreated").returncode == 0
    deliverer, client = place.start()
    client.post("/sessions", json={"session_id": "s1"})
    for agent in ("coder", "ask"):
        switched = {"target_agent": agent, "reason": "test"}
        client.post("/agents/s1/switch", json=switched, headers={"X-Request-ID": f"corr-{agent}"})
    place.until(lambda: not any(state in ("due", "running") for found in place.states().values() for state, _ in found))
    states = place.states()
    assert states["takes"] == {("delivered", 1)}
    assert states["stumbles"] == {("delivered", 3)}
    assert states["refuses"] == {("dead", 3)}
    assert states["hangs"] == {("dead", 1)}
    assert states["webhook:1"] == {("delivered", 1)}
    assert {line["process"] for line in place.told("takes")} == {deliverer.pid}
    assert receiver.types == ["SessionCreated"]
    in_order_and_with_their_correlation(place)
    place.manage("deliveries", "replay", "--dead", "--handler", "refuses")
    place.until(lambda: len(place.told("refuses")) == 6 and place.states()["refuses"] == {("dead", 3)})


def in_order_and_with_their_correlation(place: Place) -> None:
    [[session]] = place.rows("SELECT id FROM sessions_app_session WHERE session_id = 's1'")
    rows = place.rows(f"SELECT event_id, seq FROM sessions_app_event WHERE session_id = {int(session)} ORDER BY seq")  # noqa: S608
    of_session = {str(uuid.UUID(str(event_id))): seq for event_id, seq in rows}
    heard = [line for line in place.told("in_order") if line["event"] in of_session]
    seqs = [line["seq"] for line in heard]
    assert seqs == sorted(seqs)
    assert len(seqs) == len(of_session) + 2, "two were refused once, and tried again before the next"
    assert {"corr-coder", "corr-ask"} <= {line["correlation"] for line in heard}


def test_a_handler_that_kills_its_process_costs_its_own_delivery_an_attempt(place: Place) -> None:
    first, client = place.start()
    client.post("/sessions", json={"session_id": "s1"})
    with suppress(httpx.TransportError):  # the server may be dead before it answers
        client.post("/agents/s1/switch", json={"target_agent": "debug", "reason": "test"})
    first.wait(PATIENCE_SECONDS)
    second = place.work().process if place.mode == "worker" else place.start()[0]
    place.until(lambda: place.states()["dies"] == {("delivered", 2)})
    assert [line["process"] for line in place.told("dies")] == [first.pid, second.pid]


@pytest.mark.skipif(not SHARED, reason=NEEDED)
def test_without_a_worker_deliveries_wait_and_the_server_takes_none(tmp_path: Path) -> None:
    with ExitStack() as stack:
        place = Place(stack, tmp_path, "worker")
        _, client = place.serve()
        client.post("/sessions", json={"session_id": "s1"})
        [[jobs]] = place.rows("SELECT COUNT(*) FROM procrastinate_jobs WHERE task_name = 'deliver' AND status = 'todo'")
        assert jobs > 0
        assert place.states()["takes"] == {("due", 0)}
        place.rows("UPDATE procrastinate_jobs SET status = 'failed' RETURNING id")  # as if the queue had lost them
        worker = place.work()
        place.until(lambda: place.states()["takes"] == {("delivered", 1)})
        assert {line["process"] for line in place.told("takes")} == {worker.process.pid}
