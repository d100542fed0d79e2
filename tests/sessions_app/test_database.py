"""The writer thread: jobs share commits, fail alone, are tried again after a lost race, and never end the thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from django.db import IntegrityError, OperationalError, connection, transaction

from sessions_app import database, doctor, events, services, writing
from sessions_app.errors import ConcurrentChange, SessionExists, SessionNotFound, StorageUnavailable
from sessions_app.models import Event, Message, Session

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _own_threads() -> Iterator[None]:
    """Each test begins and ends without the threads of another."""
    database.stop()
    yield
    database.stop()


def named(name: str) -> Callable[[], Session]:
    return lambda: services.create_session(name)


def names() -> set[str]:
    return set(Session.objects.values_list("session_id", flat=True))


class Blocked:
    """Holds the writer so that what is submitted meanwhile becomes one group."""

    def __init__(self) -> None:
        self.entered, self.leave = threading.Event(), threading.Event()

    def job(self) -> None:
        self.entered.set()
        assert self.leave.wait(30)

    async def __aenter__(self) -> Blocked:
        self.task = asyncio.create_task(database.write("", self.job))
        assert await asyncio.to_thread(self.entered.wait, 30)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.leave.set()
        await self.task


async def together(*jobs: Callable[[], Any]) -> list[Any]:
    """What each of the jobs, which the writer finds waiting at the same moment, gave or raised."""
    async with Blocked():
        tasks = [asyncio.create_task(database.write(str(index), job)) for index, job in enumerate(jobs)]
        await asyncio.sleep(0)  # lets each submit
    return await asyncio.gather(*tasks, return_exceptions=True)


async def test_jobs_that_wait_share_a_commit() -> None:
    told: list[int] = []

    def create(name: str) -> int:
        services.create_session(name)
        transaction.on_commit(lambda: told.append(Session.objects.count()))
        return len(told)

    found = await together(*(lambda name=name: create(name) for name in "abc"))  # type: ignore[misc]
    assert found == [0, 0, 0]  # none had been told when the last one ran
    assert told == [3, 3, 3]
    assert await asyncio.to_thread(names) == set("abc")


async def test_a_job_that_fails_fails_alone() -> None:
    await database.write("taken", named("taken"))
    first, failed, last = await together(named("a"), named("taken"), named("b"))
    assert (first.session_id, last.session_id) == ("a", "b")
    assert isinstance(failed, SessionExists)
    assert await database.read(names) == {"taken", "a", "b"}
    assert await database.read(Event.objects.count) == 6  # what ran twice was stored once


async def test_what_a_failed_group_would_have_told_is_told_once() -> None:
    told: list[str] = []

    def create(name: str) -> None:
        services.create_session(name)
        transaction.on_commit(lambda: told.append(name))

    def fail() -> None:
        raise SessionNotFound(session_id="x")

    await together(lambda: create("a"), fail, lambda: create("b"))
    assert sorted(told) == ["a", "b"]


@pytest.mark.parametrize("error", [IntegrityError, OperationalError])
async def test_a_lost_race_is_tried_once_more(error: type[Exception]) -> None:
    tries: list[int] = []

    def unlucky() -> str:
        tries.append(1)
        services.create_session(f"try {len(tries)}")
        if len(tries) == 1:
            raise error("lost")
        return "won"

    assert await database.write("", unlucky) == "won"
    assert await database.read(names) == {"try 2"}


@pytest.mark.parametrize(
    ("error", "fault"), [(IntegrityError, ConcurrentChange), (OperationalError, StorageUnavailable)]
)
async def test_a_race_lost_twice_is_told_in_our_words(error: type[Exception], fault: type[Exception]) -> None:
    def hopeless() -> None:
        services.create_session("never")
        raise error("details of the database")

    with pytest.raises(fault) as caught:
        await database.write("", hopeless)
    assert "details" not in str(caught.value)
    assert await database.read(names) == set()


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, RecursionError])
@pytest.mark.parametrize("company", [0, 2])
async def test_the_thread_survives_whatever_a_job_raises(error: type[BaseException], company: int) -> None:
    def fail() -> None:
        raise error("boom")

    *others, failed = await together(*(named(str(number)) for number in range(company)), fail)
    assert [session.session_id for session in others] == [str(number) for number in range(company)]
    assert isinstance(failed, Exception)
    assert (await database.write("", named("after"))).session_id == "after"


async def test_a_broken_statement_inside_a_job_does_not_spoil_the_others() -> None:
    def broken() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT * FROM no_such_table")

    first, failed, last = await together(named("a"), broken, named("b"))
    assert isinstance(failed, StorageUnavailable | Exception)
    assert await database.read(names) == {"a", "b"} == {first.session_id, last.session_id}


def survives_a_part() -> str:
    """Keeps what it did before, and lives with the failure of a part of it."""
    services.create_session("before")
    with suppress(SessionNotFound), database.atomic():
        services.create_session("undone")
        raise SessionNotFound(session_id="undone")
    services.create_session("after")
    return "went on"


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_a_job_that_survives_the_failure_of_a_part_loses_nobody_elses_writes(place: int) -> None:
    jobs: list[Callable[[], Any]] = [named("a"), named("b")]
    jobs.insert(place, survives_a_part)
    answers = await together(*jobs)
    assert answers.pop(place) == "went on"
    assert [session.session_id for session in answers] == ["a", "b"]
    assert await database.read(names) == {"a", "b", "before", "after"}


async def test_such_a_job_alone_keeps_what_else_it_did_and_the_next_group_is_one_again() -> None:
    assert await database.write("s", survives_a_part) == "went on"
    assert await database.read(names) == {"before", "after"}
    commits: list[int] = []
    noting = partial(transaction.on_commit, partial(commits.append, 1))
    await together(named("a"), noting, lambda: commits.append(len(commits)))
    assert commits == [0, 1]  # both were run before the one commit


async def test_a_job_that_goes_on_after_its_transaction_was_broken_hears_so_itself() -> None:
    def goes_on() -> None:
        transaction.set_rollback(True)
        services.create_session("never")

    created, failed = await together(named("a"), goes_on)
    assert isinstance(failed, transaction.TransactionManagementError)  # no storage that might be back soon
    assert await database.read(names) == {"a"} == {created.session_id}


async def test_a_repair_that_comes_too_late_takes_nobodys_writes_with_it() -> None:
    broken = next(one for one in doctor.BROKEN if one.repair is not None)
    gone = doctor.Finding(broken, session_pk=2**40, session_id="gone")
    created, repaired = await together(named("a"), lambda: doctor.repair(gone))
    assert (created.session_id, repaired) == ("a", False)
    assert await database.read(names) == {"a"}


async def test_a_connection_that_was_lost_is_replaced() -> None:
    with pytest.raises(StorageUnavailable):  # what it did is gone with it
        await database.write("", lambda: connection.close())
    assert (await database.write("", named("after"))).session_id == "after"


async def test_a_listener_that_fails_does_not_make_a_job_run_twice() -> None:
    def broken(session: Session, published: Any) -> None:
        raise RuntimeError("a listener's own affair")

    events._listeners.append(broken)
    try:
        created = await database.write("", named("once"))
        found = await together(named("a"), named("b"))
    finally:
        events._listeners.remove(broken)
    assert created.session_id == "once"
    assert [session.session_id for session in found] == ["a", "b"]
    assert await database.read(Event.objects.count) == 6


async def test_who_leaves_does_not_undo_the_write() -> None:
    async with Blocked():
        leaving = asyncio.create_task(database.write("", named("kept")))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
    await database.write("", lambda: None)
    assert await database.read(names) == {"kept"}


def test_a_loop_that_is_gone_does_not_end_the_thread() -> None:
    blocked = Blocked()

    async def leave() -> None:
        asyncio.create_task(database.write("", blocked.job))  # noqa: RUF006  it is left alone on purpose
        assert await asyncio.to_thread(blocked.entered.wait, 30)

    asyncio.run(leave())
    blocked.leave.set()
    assert asyncio.run(database.write("", named("after"))).session_id == "after"


async def test_writers_of_one_session_get_numbers_without_a_gap() -> None:
    await database.write("s", named("s"))

    def add(number: int) -> None:
        services.add_message("s", Message.USER, f"message {number}")

    await asyncio.gather(*(database.write("s", add, number) for number in range(100)))
    numbers = await database.read(lambda: list(Message.objects.order_by("number").values_list("number", flat=True)))
    seqs = await database.read(lambda: list(Event.objects.order_by("seq").values_list("seq", flat=True)))
    assert numbers == list(range(1, 101))
    assert seqs == list(range(1, 103))


async def test_two_that_create_the_same_session_both_succeed() -> None:
    def speak(text: str) -> int:
        with writing.locked_or_new("s") as change:
            return change.message(Message.USER, text).number

    found = await asyncio.gather(*(database.write("s", speak, str(number)) for number in range(10)))
    assert sorted(found) == list(range(1, 11))
    assert await database.read(names) == {"s"}


async def test_threads_race_the_writer_and_nothing_is_lost() -> None:
    """The views and the admin write from threads of their own."""
    await database.write("s", named("s"))

    def from_a_view(number: int) -> None:
        try:
            services.add_message("s", Message.USER, f"view {number}")
        finally:
            connection.close()

    def add(number: int) -> None:
        services.add_message("s", Message.USER, f"writer {number}")

    await asyncio.gather(
        *(asyncio.to_thread(from_a_view, number) for number in range(10)),
        *(database.write("s", add, number) for number in range(10)),
    )
    found = await database.read(lambda: Session.objects.get())
    assert (found.message_count, found.last_number, found.last_seq) == (20, 20, 22)


async def test_a_read_that_fails_is_told_in_our_words() -> None:
    def broken() -> None:
        raise OperationalError("details")

    with pytest.raises(StorageUnavailable):
        await database.read(broken)
    assert await database.read(lambda: 5) == 5


async def test_what_was_submitted_before_the_stop_is_written() -> None:
    async with Blocked() as blocked:
        tasks = [asyncio.create_task(database.write("", named(name))) for name in "ab"]
        await asyncio.sleep(0)
        blocked.leave.set()
        await asyncio.to_thread(database.stop)
    assert [session.session_id for session in await asyncio.gather(*tasks)] == ["a", "b"]
    assert (await database.write("", named("c"))).session_id == "c"
