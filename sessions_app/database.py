"""Where the async side meets the database: one hop into a writer thread, or into one of a few reader threads.

Writes of different sessions that wait at the same moment share one transaction; when one of them fails, all are run
again, each alone: unless it may have been written, or has waited long enough. A job is therefore a pure function of
the database: what it wants told, it returns, or registers with `on_commit`. Nothing is held between jobs, so nothing
is held across a model call.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from django.db import (
    DEFAULT_DB_ALIAS,
    DatabaseError,
    IntegrityError,
    InterfaceError,
    InternalError,
    OperationalError,
    connection,
    connections,
    transaction,
)

from sessions_app import timings
from sessions_app.errors import ConcurrentChange, StorageUnavailable

P = ParamSpec("P")
T = TypeVar("T")
logger = logging.getLogger(__name__)

GROUP_JOBS = 64
READERS = 4
PATIENCE_SECONDS = 5.0
# The database is away, full or locked; InternalError is what PostgreSQL says when it only lets read.
UNAVAILABLE = (OperationalError, InterfaceError, InternalError)


class _ThreadState(threading.local):
    """Whether this is the writer's thread, how many of our transactions are open, and what their last deeds are."""

    def __init__(self) -> None:
        self.connection = connections[DEFAULT_DB_ALIAS]  # to find it takes four calls
        self.grouped = False
        self.depth = 0
        self.last: list[tuple[Callable[[list[Any]], None], Any]] = []


_thread = _ThreadState()


@dataclass(slots=True)
class Job:
    key: str
    call: Callable[[], Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    submitted_at: float = field(default_factory=time.monotonic)


class Atomic(transaction.Atomic):
    """As Django's; the outermost one does what `before_commit` was given, unless it fails."""

    def __enter__(self) -> None:
        super().__enter__()
        _thread.depth += 1
        self._known = len(_thread.last)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        _thread.depth -= 1
        if kind is not None:
            del _thread.last[self._known :]
        elif _thread.depth == 0:
            try:
                _do_last()
            except BaseException as failed:
                super().__exit__(type(failed), failed, failed.__traceback__)
                raise
        super().__exit__(kind, error, at)


class _Part:
    """What an inner `Atomic` without a savepoint comes to: all must be undone once it has failed."""

    __slots__ = ("_known",)

    def __enter__(self) -> None:
        self._known = len(_thread.last)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None:
            del _thread.last[self._known :]
            connection.set_rollback(True)


def atomic() -> AbstractContextManager[None]:
    """A transaction of its own, or a part of the writer's group, without a savepoint there: a group that fails is
    run again job by job."""
    if _thread.grouped and _thread.depth:
        return _Part()
    return Atomic(None, savepoint=not _thread.grouped, durable=False)


class _PartFailed(Exception):
    """A job has survived the failure of a part of it: without a savepoint, nothing of the transaction can be kept."""


def _require_all_kept() -> None:
    if _thread.connection.needs_rollback:
        raise _PartFailed


def savepoint() -> Atomic:
    """A part of a transaction that may fail by itself, also in the writer's group."""
    return Atomic(None, savepoint=True, durable=False)


def before_commit(call: Callable[[list[T]], None], item: T) -> None:
    """Has `call` do all such items together as one of this transaction's last deeds: what locks a row that every
    transaction may want must come after all other locks, in one order for all, and hold it for the commit alone.
    Outside of `atomic` it is done now."""
    if _thread.depth:
        _thread.last.append((call, item))
        return
    with atomic():
        call([item])


def _do_last() -> None:
    last, _thread.last = _thread.last, []
    items: dict[Callable[[list[Any]], None], list[Any]] = {}
    for call, item in last:
        items.setdefault(call, []).append(item)
    for call in sorted(items, key=lambda one: (one.__module__, one.__qualname__)):
        call(items[call])


class Writer:
    """The thread with the process's one writing connection."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def submit(self, job: Job) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="database-writer", daemon=True)
                self._thread.start()
        self._jobs.put(job)

    def stop(self) -> None:
        """Finishes what was submitted and closes the connection."""
        with self._starting:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._jobs.put(None)
            thread.join()

    def _work(self) -> None:
        _thread.grouped = True
        while True:
            jobs, stopping = self._next_group()
            for job in jobs if len(jobs) == 1 else _together(jobs):
                _alone(job)
            if stopping:
                connection.close()
                return

    def _next_group(self) -> tuple[list[Job], bool]:
        job = self._jobs.get()
        jobs: list[Job] = []
        while job is not None:
            jobs.append(job)
            if len(jobs) == GROUP_JOBS:
                return jobs, False
            try:
                job = self._jobs.get_nowait()
            except Empty:
                return jobs, False
        return jobs, True


def _together(jobs: list[Job]) -> list[Job]:
    """Commits all in one transaction; returns those to be run again alone, when any failed and nothing was written."""
    jobs.sort(key=lambda job: job.key)  # the same order of locks in every process
    results: list[Any] = []
    try:
        with timings.Timed(timings.WRITE), atomic():
            results += [job.call() for job in jobs]
            _require_all_kept()
    except BaseException as error:  # the thread must live; alone, each job hears of its own
        _mend()
        return [job for job in jobs if not _given_up(job, error, called=bool(results))]
    written()
    _report_all(jobs, results)
    return []


def _given_up(job: Job, error: BaseException, *, called: bool) -> bool:
    """Reports a job that must not be run again: a connection that was lost in the commit may have brought it through,
    and storage that was away, or locked, for so long has kept its caller waiting enough."""
    if not isinstance(error, UNAVAILABLE):
        return False
    in_doubt = called and connection.vendor != "sqlite"
    if in_doubt or time.monotonic() - job.submitted_at > PATIENCE_SECONDS:
        _report(job, None, _translated(error))
        return True
    return False


def _alone(job: Job) -> None:
    """Commits one; a lost race or a lost connection is tried once more where nothing was written, and with savepoints
    around its parts where it survives the failure of one."""
    try:
        _tried_twice(job)
    finally:
        _thread.grouped = True


def _tried_twice(job: Job) -> None:
    for attempt in (1, 2):
        called = False
        try:
            with timings.Timed(timings.WRITE), atomic():
                result = job.call()
                _require_all_kept()
                called = True
        except (_PartFailed, transaction.TransactionManagementError) as error:
            _mend()
            _thread.grouped = False  # a savepoint is made for each part from here on
            if attempt == 2:  # its connection is gone, and all it did with it; or the job is to blame
                _report(job, None, unavailable(error) if isinstance(error, _PartFailed) else error)
        except (IntegrityError, *UNAVAILABLE) as error:
            _mend()
            if _given_up(job, error, called=called):
                return
            if attempt == 2:
                _report(job, None, _translated(error))
        except BaseException as error:
            _report(job, None, error if isinstance(error, Exception) else StorageUnavailable())
            return
        else:
            written()
            _report(job, result, None)
            return


def _mend() -> None:
    """Drops a connection that is of no more use; the next job makes a new one. Never raises: the thread must live."""
    try:
        connection.close_if_unusable_or_obsolete()
    except Exception:
        logger.warning("database: a broken connection was dropped")
        with suppress(Exception):
            connection.close()


def _translated(error: DatabaseError | InterfaceError) -> Exception:
    if not isinstance(error, IntegrityError):
        return unavailable(error)
    logger.warning("database: %s", type(error).__name__)
    fault = ConcurrentChange()
    fault.__cause__ = error
    return fault


def unavailable(error: Exception) -> StorageUnavailable:
    """What a caller hears of an error that is one of UNAVAILABLE."""
    global _last_failed
    logger.warning("database: %s", type(error).__name__)
    fault, _last_failed = StorageUnavailable(), True
    fault.__cause__ = error
    return fault


def last_write_failed() -> bool:
    """Whether storage refused what this process wanted to write last: it may let read, and yet be full."""
    return _last_failed


def written() -> None:
    """A write has come through."""
    global _last_failed
    _last_failed = False


def _report(job: Job, result: Any, error: Exception | None) -> None:
    try:
        job.loop.call_soon_threadsafe(_settle, job.future, result, error)
    except RuntimeError:  # the loop is gone, and with it whoever asked
        logger.warning("a database job ended after its event loop")


def _report_all(jobs: list[Job], results: list[Any]) -> None:
    """Wakes each event loop once, for all of its jobs: waking it is a system call."""
    for loop in {job.loop for job in jobs}:
        done = [(job.future, result) for job, result in zip(jobs, results, strict=True) if job.loop is loop]
        try:
            loop.call_soon_threadsafe(_settle_all, done)
        except RuntimeError:
            logger.warning("database jobs ended after their event loop")


def _settle_all(done: list[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, result in done:
        _settle(future, result, None)


def _settle(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


_last_failed = False
_writer = Writer()
_readers = ThreadPoolExecutor(READERS, thread_name_prefix="database-reader")


async def write(key: str, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Runs `call` in the writer thread; returns when its transaction has committed. `key` names the session: jobs of a
    group lock theirs in its order. A caller that is cancelled does not undo the write."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    _writer.submit(Job(key, _in_context(partial(call, *args, **kwargs)), loop, future))
    return await future


async def read(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Runs `call` in a reader thread. Several statements in it may see different moments."""
    job = _in_context(partial(call, *args, **kwargs))
    return await asyncio.get_running_loop().run_in_executor(_readers, _read, job)


def _in_context(call: Callable[[], T]) -> Callable[[], T]:
    """Whom a job acts for, and what its log lines belong to, is as with its caller."""
    return partial(copy_context().run, call)


def _read(call: Callable[[], T]) -> T:
    try:
        with timings.Timed(timings.READ):
            return call()
    except UNAVAILABLE as error:
        connection.close()
        raise StorageUnavailable from error
    finally:
        if connection.vendor != "sqlite":  # back to the pool: connections are held by queries, not by threads
            connection.close()


def stop() -> None:
    """Ends the threads and their connections; the next call starts new ones."""
    global _readers
    _writer.stop()
    old, _readers = _readers, ThreadPoolExecutor(READERS, thread_name_prefix="database-reader")
    barrier = threading.Barrier(READERS)
    for closing in [old.submit(_close_with, barrier) for _ in range(READERS)]:
        closing.result()
    old.shutdown()
    if connection.vendor == "postgresql":
        connection.close_pool()  # type: ignore[attr-defined]


def _close_with(barrier: threading.Barrier) -> None:
    barrier.wait()  # so that every thread closes its own
    connection.close()


__all__: Sequence[str] = ["atomic", "read", "savepoint", "stop", "write"]
