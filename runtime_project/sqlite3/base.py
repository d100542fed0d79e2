"""SQLite as Django has it, with shorter ways to what every turn does: begin, commit, read a moment.

Around each statement Django makes a cursor, looks for wrappers and times it for whoever debugs: around `BEGIN` and
`COMMIT` that costs more than they do. Whoever looks on, such as a test that counts statements, is given Django's way.
"""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from typing import Any

from django.db.backends.sqlite3 import base

from sessions_app.conf import settings


def _moment(text: bytes) -> datetime:
    """What is stored is in UTC, and does not say so."""
    return datetime.fromisoformat(text.decode()).replace(tzinfo=UTC)


sqlite3.register_converter("datetime", _moment)


class DatabaseWrapper(base.DatabaseWrapper):
    transaction_mode: str | None

    def _start_transaction_under_autocommit(self) -> None:
        if self._is_watched():
            super()._start_transaction_under_autocommit()  # type: ignore[misc]
        else:
            self._call("execute", f"BEGIN {self.transaction_mode or 'DEFERRED'}")

    def _commit(self) -> None:
        if self.connection is None or self._is_watched():
            super()._commit()  # type: ignore[misc]
        else:
            self._call("commit")

    def _set_autocommit(self, autocommit: bool) -> None:
        """A transaction that its own statement has begun leaves the driver's autocommit as it is."""
        if not autocommit or self.connection.isolation_level is not None:
            super()._set_autocommit(autocommit)  # type: ignore[misc]

    def _is_watched(self) -> bool:
        return bool(self.execute_wrappers or self.force_debug_cursor or settings.DEBUG)

    def _call(self, name: str, *values: Any) -> None:
        try:
            getattr(self.connection, name)(*values)
        except Exception:
            with self.wrap_database_errors:
                raise
