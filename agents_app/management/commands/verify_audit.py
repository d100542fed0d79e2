"""`manage.py verify_audit`: proves that no entry of the audit was changed or removed, and exports it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError, connections
from tqdm import tqdm

from agents_app.terminal.safe_text import one_line
from sessions_app import audit_chains
from sessions_app.audit_chains import Fault
from sessions_app.models import AuditEntry

COPY = "copy"
NAME_CHARACTERS = 255


class Command(BaseCommand):
    help = "Verifies the audit's chains: exit 0 when they are whole, else 1 with the first broken row of each."
    requires_system_checks: Any = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--file", type=Path, help="a copy of an SQLite database instead; it is only read")
        parser.add_argument("--export", metavar="FILE", help="write all entries as JSON lines ('-': standard output)")

    def handle(self, *args: Any, **options: Any) -> None:
        using = _opened(options["file"]) if options["file"] else "default"
        try:
            faults, seen = self._verify(using, options["export"])
        except DatabaseError as error:
            raise CommandError(
                f"The audit cannot be read: {type(error).__name__}. Is it a database of ours?"
            ) from error
        finally:
            if using != "default":
                connections[using].close()
        for fault in faults:
            self.stderr.write(_line(fault))
        if faults:
            sys.exit(1)
        self.stderr.write(self.style.SUCCESS(f"{seen} audit entries: nothing was changed or removed."))

    def _verify(self, using: str, export: str | None) -> tuple[list[Fault], int]:
        total = audit_chains.total(using)
        with _written(export, self.stdout) as out, tqdm(total=total, unit=" entries", file=sys.stderr) as bar:

            def seen(entry: AuditEntry, session: str | None) -> None:
                bar.update()
                if out is not None:
                    out.write(_exported(entry, session) + "\n")

            return list(audit_chains.faults(using, seen)), int(bar.n)


def _line(fault: Fault) -> str:
    chain = "the installation" if fault.session is None else f"session {one_line(fault.session, NAME_CHARACTERS)!r}"
    return f"{chain}: entry {fault.number} {fault.why}"


def _opened(path: Path) -> str:
    """Makes the file a database of Django's, for reading. One without its write-ahead log cannot be changing."""
    if not path.is_file():
        raise CommandError(f"There is no file {str(path)!r}.")
    mode = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "immutable=1"
    name = f"file:{quote(str(path.resolve()))}?{mode}"
    connections.databases[COPY] = {
        **connections.databases["default"], "ENGINE": "django.db.backends.sqlite3", "NAME": name, "OPTIONS": {},
        "CONN_HEALTH_CHECKS": False,
    }  # fmt: skip
    return COPY


@contextmanager
def _written(export: str | None, stdout: Any) -> Iterator[IO[str] | None]:
    if export is None:
        yield None
    elif export == "-":
        yield stdout
    else:
        try:
            with Path(export).open("w", encoding="ascii") as file:
                yield file
        except OSError as error:
            raise CommandError(f"{export!r} cannot be written: {error.strerror}.") from error


def _exported(entry: AuditEntry, session: str | None) -> str:
    columns = ("number", "who", "action", "subject", "correlation_id", "previous", "hash")
    told = {name: getattr(entry, name) for name in columns}
    facts = {name: _facts(getattr(entry, name)) for name in ("before", "after")}
    chain = {"session": session, "session_pk": entry.session_id}
    return json.dumps({**chain, **told, **facts, "at": entry.at.isoformat()})


def _facts(text: str) -> Any:
    try:
        return json.loads(text) if text else None
    except ValueError:  # forged
        return text
