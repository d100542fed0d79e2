"""SQLite by the shorter ways: transactions are as Django's, for whoever looks on too, and moments are in UTC."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from django.conf import settings
from django.db import IntegrityError, OperationalError, connection, transaction
from django.test.utils import CaptureQueriesContext

from sessions_app.models import Message, Session

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(not settings.ON_SQLITE, reason="needs SQLite"),
]


def names() -> list[str]:
    """What another connection sees, so only what is committed."""
    with closing(sqlite3.connect(connection.settings_dict["NAME"])) as other:
        return [name for (name,) in other.execute("SELECT session_id FROM sessions_app_session ORDER BY id")]


def make(*wanted: str) -> Session:
    return [Session.objects.create(session_id=name) for name in wanted][-1]


def breaks(*before: Callable[[], object]) -> None:
    """A transaction that does those and then fails."""
    with transaction.atomic():
        for one in before:
            one()
        raise ZeroDivisionError


def test_a_transaction_is_seen_when_it_is_committed_and_not_before() -> None:
    with transaction.atomic():
        make("a")
        assert names() == []
    assert names() == ["a"]
    make("b")  # without a transaction of ours
    assert names() == ["a", "b"]


def test_what_fails_is_undone_whole_or_in_its_part() -> None:
    with pytest.raises(ZeroDivisionError):
        breaks(lambda: make("a"))
    with transaction.atomic():
        make("b")
        with pytest.raises(IntegrityError), transaction.atomic():
            make("c", "b")
        make("d")
    assert names() == ["b", "d"]


def test_transactions_by_hand_are_as_ever() -> None:
    transaction.set_autocommit(False)
    try:
        make("a")
        transaction.rollback()
        make("b")
        transaction.commit()
        make("c")
        assert names() == ["b"]
        transaction.rollback()
    finally:
        transaction.set_autocommit(True)
    make("d")
    assert names() == ["b", "d"]


def test_what_happens_after_a_commit_happens_once_it_is_one() -> None:
    told: list[str] = []
    with pytest.raises(ZeroDivisionError):
        breaks(lambda: transaction.on_commit(lambda: told.append("never")))
    with transaction.atomic():
        transaction.on_commit(lambda: told.append(names()[-1]))
        make("a")
        assert told == []
    assert told == ["a"]


def test_who_looks_on_sees_begin_and_commit() -> None:
    with CaptureQueriesContext(connection) as seen, transaction.atomic():
        make("a")
    statements = [query["sql"].split()[0] for query in seen.captured_queries]
    assert statements == ["BEGIN", "INSERT", "COMMIT"]
    wrapped: list[str] = []

    def look(execute, sql, params, many, context):  # type: ignore[no-untyped-def]
        wrapped.append(sql)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(look), transaction.atomic():
        make("b")
    assert wrapped[0].startswith("BEGIN IMMEDIATE")
    assert names() == ["a", "b"]


@pytest.fixture
def locked() -> Iterator[None]:
    """Somebody else writes, and nobody waits for him."""
    connection.ensure_connection()
    connection.connection.execute("PRAGMA busy_timeout = 0")
    with closing(sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")
    connection.close()


@pytest.mark.usefixtures("locked")
def test_a_database_that_is_locked_is_told_in_djangos_words() -> None:
    for _ in range(2):  # the connection is as good as before
        with pytest.raises(OperationalError, match="locked"), transaction.atomic():
            make("a")
    assert not connection.in_atomic_block


def test_a_commit_that_fails_is_told_in_djangos_words() -> None:
    stored = []
    with pytest.raises(IntegrityError, match="FOREIGN KEY"), transaction.atomic():
        stored.append(Message.objects.create(session_id=99, number=1, role=Message.USER))
    assert stored  # the statement was fine
    assert not Message.objects.exists()
    make("b")
    assert names() == ["b"]


@pytest.mark.parametrize("microseconds", [0, 1, 120_000, 999_999])
def test_moments_come_back_as_they_were_in_utc(microseconds: int) -> None:
    moment = datetime(2026, 3, 29, 1, 30, 15, microseconds, tzinfo=UTC)
    session = make("a")
    Session.objects.filter(pk=session.pk).update(last_activity=moment, expired_at=moment - timedelta(days=9_000))
    session.refresh_from_db()
    assert (session.last_activity, session.expired_at) == (moment, moment - timedelta(days=9_000))
    assert session.last_activity.tzinfo is UTC
    assert Session.objects.filter(last_activity=moment).values_list("last_activity", flat=True)[0] == moment
