"""Storage that lets read and takes no write: whoever writes hears so, readiness says so, and it heals by itself."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
import pytest

from tests import talk
from tests.faults.checker import Checker, Ledger
from tests.faults.servers import missing_postgres, postgres, until
from tests.faults.sites import Node, Site

pytestmark = pytest.mark.timeout(300)


@contextmanager
def no_room(node: Node) -> Iterator[None]:
    """No file of the process may grow, as on a full disk."""
    pid = node.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


def readiness(node: Node) -> tuple[int, str, str]:
    answer = node.client.get("/health/ready")
    body = answer.json()
    return answer.status_code, body["status"], body["checks"]["database"]["status"]


def refuses_writes_and_heals(node: Node) -> None:
    """While it lasts."""
    refused = node.client.post("/sessions", json={})
    assert (refused.status_code, refused.json()["code"]) == (503, "STORAGE_UNAVAILABLE")
    assert int(refused.headers["retry-after"]) > 0
    assert readiness(node) == (503, "unavailable", "failing")
    error = talk.say(node.client, "s", "Refused").error
    assert error is not None
    assert error["code"] == "STORAGE_UNAVAILABLE"
    for path in ("/health", "/sessions", "/sessions/s/history"):
        assert node.client.get(path).status_code == 200
    assert readiness(node) == (503, "unavailable", "failing")


def test_a_full_disk_under_sqlite(tmp_path: Path, stack: ExitStack, ledger: Ledger) -> None:
    site = Site(stack, tmp_path)
    node = site.serve()
    assert talk.say(node.client, "s", "Before").contents == ["Hello world"]
    ledger.ack("s", "Before")
    assert readiness(node) == (200, "ready", "ok")
    with no_room(node):
        refuses_writes_and_heals(node)
    until(lambda: readiness(node)[2] == "ok", 30, "it is written again")
    assert talk.say(node.client, "s", "After").contents == ["Hello world"]
    ledger.ack("s", "After")
    Checker(site, ledger).check(node)
    assert site.rows("PRAGMA integrity_check") == [("ok",)]


@pytest.mark.skipif(bool(missing_postgres()), reason=missing_postgres() or "never")
def test_a_postgres_that_only_lets_read(tmp_path: Path, stack: ExitStack, ledger: Ledger) -> None:
    cluster = stack.enter_context(postgres())
    site = Site(stack, tmp_path, cluster.fresh())
    node = site.serve()
    assert talk.say(node.client, "s", "Before").contents == ["Hello world"]
    ledger.ack("s", "Before")
    only_reads(site.database, "on")
    refuses_writes_and_heals(node)
    only_reads(site.database, "off")
    until(lambda: readiness(node)[2] == "ok", 60, "it is written again")
    until(lambda: node.client.post("/sessions", json={}).status_code == 201, 60, "all connections are new")
    assert talk.say(node.client, "s", "After").contents == ["Hello world"]
    ledger.ack("s", "After")
    Checker(site, ledger).check(node)


def only_reads(url: str, state: str) -> None:
    """For connections that are new: those that there are, are ended."""
    with psycopg.connect(url, autocommit=True) as link:
        link.execute("SET default_transaction_read_only = off")
        name = url.rpartition("/")[2]
        link.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = {state}')
        link.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()",
            (name,),
        )
