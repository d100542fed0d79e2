"""Whether the configured database is the replaced service's own: then it is never opened to be written, let alone
migrated. Both services read the same setting, so it is an easy mistake."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from django.db import connection

from sessions_app.conf import settings
from sessions_app.legacy.source import sqlite_uri
from sessions_app.models import Session

REFUSAL = (
    "AGENT_RUNTIME__DB_URL names the database of the service that this one replaces: it is not touched. "
    "Name a new one, and take its sessions over with manage.py import_legacy --from <that URL>."
)


def is_legacy_file() -> bool:
    """SQLite's: by a look that writes nothing, not even a journal mode. False for anything that is no such file."""
    path = str(settings.DATABASES["default"]["NAME"])
    if not settings.ON_SQLITE or not Path(path).is_file():
        return False
    try:
        with closing(sqlite3.connect(sqlite_uri(path), uri=True)) as link:
            tables = {str(name) for (name,) in link.execute("SELECT name FROM sqlite_master")}
            columns = {str(row[1]) for row in link.execute("PRAGMA table_info(messages)")}
            return _are_theirs(tables, columns)
    except sqlite3.Error:
        return False


def is_legacy() -> bool:
    """Either kind; raises DatabaseError for a PostgreSQL that cannot be asked."""
    if settings.ON_SQLITE:
        return is_legacy_file()
    with connection.cursor() as cursor:
        tables = set(connection.introspection.table_names(cursor))
        if "messages" not in tables:
            return False
        found = connection.introspection.get_table_description(cursor, "messages")
    return _are_theirs(tables, {column.name for column in found})


def _are_theirs(tables: set[str], columns: set[str]) -> bool:
    """By the two tables that every age of it has, and a column that is its own."""
    return tables >= {"sessions", "messages"} and "session_db_id" in columns and Session._meta.db_table not in tables
