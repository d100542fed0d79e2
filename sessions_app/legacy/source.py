"""The replaced service's database, SQLite or PostgreSQL, opened for reading only. Imports nothing of ours.

Rows come in the order in which they were written, with a `key` that names them as long as the source is open. Columns
that an older file lacks are None.
"""

from __future__ import annotations

import itertools
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import psycopg
from psycopg.rows import dict_row

TABLES: dict[str, tuple[str, ...]] = {
    "sessions": ("id", "title", "description", "created_at", "last_activity", "is_active", "deleted_at"),
    "messages": ("id", "session_db_id", "role", "content", "timestamp", "name", "tool_call_id", "tool_calls"),
    "agent_contexts": ("id", "session_db_id", "current_agent", "created_at", "switch_count"),
    "agent_switches": ("id", "context_db_id", "from_agent", "to_agent", "switched_at", "reason", "metadata_json"),
    "pending_approvals": (
        "id", "request_id", "call_id", "tool_name", "session_id", "reason", "created_at", "status",
    ),
}  # fmt: skip
CHUNK = 500
CONNECT_SECONDS = 10
Row = dict[str, Any]


class CannotOpen(Exception):
    """Why, in one line, without a password."""


FAILURES = (sqlite3.Error, psycopg.Error)


class Source(ABC):
    """The rows of one database. `key` and `mark` are how its dialect names a row's place and a parameter."""

    key: str
    mark: str

    def __init__(self) -> None:
        found = {table: self._columns(table) for table in TABLES}
        self.columns = {table: [name for name in TABLES[table] if name in names] for table, names in found.items()}

    def has(self, table: str) -> bool:
        return bool(self.columns[table])

    def count(self, table: str) -> int:
        [[n]] = self._run(f'SELECT COUNT(*) FROM "{table}"') if self.has(table) else [[0]]  # noqa: S608  our own names
        return int(n)

    def rows(self, table: str, *, where: str = "", value: Any = None, only: Sequence[str] = ()) -> Iterator[Row]:
        """The table's rows, or those whose column `where` has this value, as they were written."""
        if not self.has(table) or (where and where not in self.columns[table]):
            return
        names = [name for name in self.columns[table] if not only or name in only]
        told = f' WHERE "{where}" = {self.mark}' if where else ""
        statement = f'SELECT {self._selected(names)} FROM "{table}"{told} ORDER BY {self.order}'  # noqa: S608
        missing = dict.fromkeys(only or TABLES[table])
        for values in self._run(statement, *([value] if where else [])):
            yield missing | dict(zip(("key", *names), values, strict=True))

    def whole(self, table: str, keys: Sequence[Any]) -> dict[Any, Row]:
        """These rows, by key."""
        names, found = self.columns[table], {}
        for start in range(0, len(keys), CHUNK):
            some = keys[start : start + CHUNK]
            statement = f'SELECT {self._selected(names)} FROM "{table}" WHERE {self._among(len(some))}'  # noqa: S608
            for values in self._run(statement, *self._bound(some)):
                found[values[0]] = dict.fromkeys(TABLES[table]) | dict(zip(("key", *names), values, strict=True))
        return found

    def _selected(self, names: Sequence[str]) -> str:
        return ", ".join([self.key, *(f'"{name}"' for name in names)])

    @property
    @abstractmethod
    def order(self) -> str: ...

    @abstractmethod
    def _columns(self, table: str) -> set[str]: ...

    @abstractmethod
    def _run(self, statement: str, *values: Any) -> Iterator[Sequence[Any]]: ...

    @abstractmethod
    def _among(self, count: int) -> str: ...

    @abstractmethod
    def _bound(self, keys: Sequence[Any]) -> Sequence[Any]: ...

    @abstractmethod
    def close(self) -> None: ...


class SQLiteSource(Source):
    key, mark, order = "rowid", "?", "rowid"

    def __init__(self, path: str) -> None:
        if not Path(path).is_file():
            raise CannotOpen(f"there is no file {path!r}")
        try:
            self._link = sqlite3.connect(sqlite_uri(path), uri=True)
            self._link.text_factory = lambda raw: raw.decode("utf-8", "replace")
            super().__init__()
        except sqlite3.Error as error:
            raise CannotOpen(f"{path!r}: {error}") from error

    def _columns(self, table: str) -> set[str]:
        return {str(row[1]) for row in self._link.execute(f'PRAGMA table_info("{table}")')}

    def _run(self, statement: str, *values: Any) -> Iterator[Sequence[Any]]:
        yield from self._link.execute(statement, values)

    def _among(self, count: int) -> str:
        return f"rowid IN ({', '.join('?' * count)})"

    def _bound(self, keys: Sequence[Any]) -> Sequence[Any]:
        return keys

    def close(self) -> None:
        self._link.close()


def sqlite_uri(path: str) -> str:
    """Read only. Of a file in WAL mode whose log is gone nobody writes: it is read as it lies, or SQLite would make
    a new log beside it."""
    with suppress(OSError), Path(path).open("rb") as file:
        in_wal_mode = file.read(20)[18:20] == b"\x02\x02"
        if in_wal_mode and not Path(f"{path}-wal").exists():
            return f"file:{quote(path)}?mode=ro&immutable=1"
    return f"file:{quote(path)}?mode=ro"


class PostgresSource(Source):
    key, mark, order = "ctid::text", "%s", "ctid"

    def __init__(self, url: str) -> None:
        try:
            self._link = psycopg.connect(url, connect_timeout=CONNECT_SECONDS)
            self._link.read_only = True
            self._numbers = itertools.count()
            self._link.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ  # one moment
            super().__init__()
        except psycopg.Error as error:
            raise CannotOpen(f"PostgreSQL: {type(error).__name__}") from error

    def _columns(self, table: str) -> set[str]:
        with self._link.cursor(row_factory=dict_row) as cursor:
            cursor.execute(
                "SELECT column_name FROM information_schema.columns"
                " WHERE table_name = %s AND table_schema = ANY(current_schemas(false))",
                [table],
            )
            return {str(row["column_name"]) for row in cursor}

    def _run(self, statement: str, *values: Any) -> Iterator[Sequence[Any]]:
        with self._link.cursor(name=f"rows_{next(self._numbers)}") as cursor:  # kept there, and fetched in parts
            yield from cursor.execute(statement.encode(), values)

    def _among(self, count: int) -> str:
        return "ctid = ANY(%s::tid[])"

    def _bound(self, keys: Sequence[Any]) -> Sequence[Any]:
        return [list(keys)]

    def close(self) -> None:
        self._link.close()


def opened(url: str) -> Source:
    """Raises CannotOpen."""
    scheme, separator, rest = url.partition("://")
    kind = scheme.partition("+")[0]
    if separator and kind == "sqlite":
        return SQLiteSource(unquote(rest.removeprefix("/")))
    if separator and kind in ("postgres", "postgresql"):
        return PostgresSource(f"postgresql://{rest}")
    raise CannotOpen("give sqlite:///path or postgres://user:password@host/name")
