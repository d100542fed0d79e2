"""Questions to what may hang: each asked in a thread of its own, never twice at a time, and nobody waits for long."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Generic, TypeVar

from django.db import DEFAULT_DB_ALIAS, connections

T = TypeVar("T")


class Probe(Generic[T]):
    """A question. Who asks while it is under way gets the same answer, so that what hangs costs one thread."""

    def __init__(self, ask: Callable[[], T]) -> None:
        self._ask = ask
        self._asked: Future[T] | None = None
        self._asking = threading.Lock()

    def asked(self) -> Future[T]:
        with self._asking:
            if self._asked is None or self._asked.done():
                self._asked = Future()
                # A daemon: a database that hangs must not hold up the process's end.
                threading.Thread(target=self._answer, args=(self._asked,), name="probe", daemon=True).start()
            return self._asked

    def _answer(self, asked: Future[T]) -> None:
        try:
            answer = self._ask()
        except BaseException as error:
            _close()
            asked.set_exception(error)
        else:
            _close()
            asked.set_result(answer)


def _close() -> None:
    with suppress(Exception):
        connections.close_all()


def stand_aside(patience_seconds: float) -> None:
    """This thread connects by itself from now on, waits so long for the database at most, and closes when it is done:
    it takes no connection of the pool from a turn, nor waits for one."""
    own = connections[DEFAULT_DB_ALIAS].copy()
    options = own.settings_dict["OPTIONS"]
    milliseconds = round(patience_seconds * 1000)
    if own.vendor == "sqlite":
        options |= {"timeout": patience_seconds, "init_command": f"PRAGMA busy_timeout={milliseconds};"}
    else:
        options.pop("pool", None)
        options |= {"connect_timeout": max(round(patience_seconds), 2), "tcp_user_timeout": milliseconds}
        options |= {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 2}
    connections[DEFAULT_DB_ALIAS] = own
    if own.vendor != "sqlite":
        with own.cursor() as cursor:
            cursor.execute(f"SET statement_timeout = {milliseconds}")
