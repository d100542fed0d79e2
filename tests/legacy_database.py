"""A database as the replaced service left it, on SQLite or PostgreSQL, with all that went wrong there."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

SCHEMA = """
CREATE TABLE sessions (id VARCHAR(255) PRIMARY KEY, title TEXT, description TEXT, created_at TIMESTAMP,
    last_activity TIMESTAMP, is_active BOOLEAN, deleted_at TIMESTAMP);
CREATE TABLE messages (id VARCHAR(64) PRIMARY KEY, session_db_id VARCHAR(255), role VARCHAR(50), content TEXT,
    timestamp TIMESTAMP, name VARCHAR(255), tool_call_id VARCHAR(255), tool_calls TEXT, token_count INTEGER,
    metadata_json TEXT);
CREATE TABLE agent_contexts (id VARCHAR(64) PRIMARY KEY, session_db_id VARCHAR(255), current_agent VARCHAR(50),
    created_at TIMESTAMP, updated_at TIMESTAMP, switch_count INTEGER, metadata_json TEXT);
CREATE TABLE agent_switches (id VARCHAR(64) PRIMARY KEY, context_db_id VARCHAR(64), from_agent VARCHAR(50),
    to_agent VARCHAR(50), switched_at TIMESTAMP, reason TEXT, metadata_json TEXT);
CREATE TABLE pending_approvals (id VARCHAR(64) PRIMARY KEY, request_id VARCHAR(255), request_type VARCHAR(50),
    subject VARCHAR(255), details TEXT, call_id VARCHAR(255), tool_name VARCHAR(255), session_id VARCHAR(255),
    reason TEXT, created_at TIMESTAMP, status VARCHAR(50));
"""
BORN = "2025-03-01 10:00:00"


class LegacyDatabase:
    """Writes rows with sensible defaults; `link` takes any other statement."""

    def __init__(self, link: Any, url: str, mark: str) -> None:
        self.link, self.url, self._mark = link, url, mark
        self._numbers = iter(range(1, 10**9))
        self._seconds = 0

    def insert(self, table: str, **values: Any) -> str:
        row = {"id": f"{table}-{next(self._numbers)}", **values}
        names, marks = ", ".join(f'"{name}"' for name in row), ", ".join([self._mark] * len(row))
        self.link.execute(f'INSERT INTO "{table}" ({names}) VALUES ({marks})', list(row.values()))  # noqa: S608
        self.link.commit()
        return str(row["id"])

    def session(self, name: str, **values: Any) -> str:
        return self.insert(
            "sessions", **{"id": name, "created_at": BORN, "last_activity": BORN, "is_active": True, **values}
        )

    def say(self, session: str, role: str, content: Any, calls: Any = None, **values: Any) -> str:
        """The next message, a second after the one before."""
        self._seconds += 1
        minutes, seconds = divmod(self._seconds, 60)
        hours, minutes = divmod(minutes, 60)
        at = f"2025-03-{2 + hours // 24:02d} {hours % 24:02d}:{minutes:02d}:{seconds:02d}.000500"
        told = calls if calls is None or isinstance(calls, str) else json.dumps(calls)
        row = {"session_db_id": session, "role": role, "content": content, "timestamp": at, "tool_calls": told}
        return self.insert("messages", **{**row, **values})

    def answer(self, session: str, call_id: str | None, content: str = "done", **values: Any) -> str:
        return self.say(session, "tool", content, tool_call_id=call_id, **values)


def call(call_id: str, name: str = "read_file", arguments: Any = '{"path": "a.py"}') -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


@contextmanager
def on_sqlite(path: Path, schema: str = SCHEMA) -> Iterator[LegacyDatabase]:
    link = sqlite3.connect(path)
    link.executescript(schema)
    try:
        yield LegacyDatabase(link, f"sqlite:///{path}", "?")
    finally:
        link.close()


@contextmanager
def on_postgres(url: str) -> Iterator[LegacyDatabase]:
    link = psycopg.connect(url)
    link.execute(SCHEMA.encode())
    link.commit()
    try:
        yield LegacyDatabase(link, url, "%s")
    finally:
        link.close()


def lots(legacy: LegacyDatabase, session: str, rows: Iterable[Sequence[Any]]) -> None:
    """Many messages at once: (id, role, content)."""
    statement = "INSERT INTO messages (id, session_db_id, role, content, timestamp) VALUES (?, ?, ?, ?, ?)"
    legacy.link.executemany(statement, ((one, session, role, text, BORN) for one, role, text in rows))
    legacy.link.commit()
