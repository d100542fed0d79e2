"""Another program locks the SQLite file: who writes waits for a while, then hears so; nobody else notices."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from tests import talk
from tests.faults.checker import Checker, Ledger
from tests.faults.sites import Node, Site
from tests.listening import posting, truth
from tests.model_server import Gate, text

pytestmark = pytest.mark.timeout(300)
BOUND_SECONDS = 3 * 20.0  # what a caller may have to wait, three times


@contextmanager
def locked(site: Site) -> Iterator[None]:
    """The write lock, held as a backup or a shell may hold it."""
    path = site.database.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)) as link:
        link.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            link.execute("ROLLBACK")


@pytest.fixture
def on_sqlite(tmp_path: Path, stack: ExitStack) -> Site:
    return Site(stack, tmp_path)


def health(node: Node) -> None:
    """The event loop is not held up: what needs no database answers, and so does what only reads."""
    for path in ("/health", "/sessions", "/sessions/s/history"):
        assert node.client.get(path, timeout=15).status_code == 200


def test_a_locked_file_makes_writers_wait_and_then_says_so(on_sqlite: Site, ledger: Ledger, stack: ExitStack) -> None:
    site = on_sqlite
    node = site.serve(AGENT_RUNTIME__LEASE_SECONDS="15")
    gate = Gate()
    site.model.reply(text("one ", gate, "two"))
    answer = stack.enter_context(posting(node.client, "s", "Go", agent_type="coder"))
    answer.until(lambda heard: heard.tokens == "one ")
    ledger.ack("s", "Go")
    with locked(site), ThreadPoolExecutor(12) as pool:
        began = time.monotonic()
        said = [pool.submit(talk.say, node.client, f"t{number}", f"Refused {number}") for number in range(8)]
        created = pool.submit(node.client.post, "/sessions", json={})
        body = {"session_id": "v", "message": {"type": "user_message", "content": "Refused v"}}
        program = pool.submit(node.client.post, f"/api/v1{talk.PATH}", json=body)
        gate.open()
        answer.until(lambda heard: heard.tokens == "one two")
        ready = node.client.get("/health/ready")
        assert (ready.status_code, ready.json()["status"]) == (503, "unavailable")
        assert node.client.get("/metrics").status_code == 200
        while not all(one.done() for one in [*said, created, program]):
            health(node)
        assert time.monotonic() - began < BOUND_SECONDS
        for one in said:
            error = one.result().error
            assert error is not None
            assert error["code"] == "STORAGE_UNAVAILABLE"
        for refused in (created.result(), program.result()):
            assert refused.status_code == 503
            assert int(refused.headers["retry-after"]) > 0
        assert not answer.over
    assert answer.ended(30).contents == ["one two"]
    assert [row["content"] for row in truth(node.client, "s")] == ["Go", "one two"]
    assert node.client.get("/sessions").json()["total"] == 1
    Checker(site, ledger).check(node)
    node.clean()


def test_a_lock_that_is_soon_over_is_only_waited_for(on_sqlite: Site, ledger: Ledger) -> None:
    site = on_sqlite
    nodes = [site.serve(), site.serve()]
    talk.say(nodes[0].client, "s", "Before", agent_type="coder")
    with ThreadPoolExecutor(8) as pool:
        with locked(site):
            said = [pool.submit(talk.say, nodes[n % 2].client, f"t{n}", f"Go {n}") for n in range(8)]
            for node in nodes:
                health(node)
        for number, one in enumerate(said):
            assert one.result().error is None
            ledger.ack(f"t{number}", f"Go {number}")
    Checker(site, ledger).check(nodes[1])
    for node in nodes:
        node.clean()
