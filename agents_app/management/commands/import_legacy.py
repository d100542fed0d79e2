"""`manage.py import_legacy`: takes over what the replaced service stored."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connection
from tqdm import tqdm

from agents_app import agents
from agents_app.management.commands import serve
from agents_app.terminal.safe_text import one_line
from sessions_app import audit
from sessions_app.conf import settings
from sessions_app.legacy import source
from sessions_app.legacy.importing import Import
from sessions_app.legacy.report import Report
from sessions_app.models import LegacyRow

SHOWN_ROWS = 100


class Command(BaseCommand):
    help = "Takes over the sessions of the replaced service. Its database is only read; a second run adds what is new."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--from",
            dest="url",
            required=True,
            metavar="URL",
            help="sqlite:///path or postgres://user:password@host/name",
        )
        parser.add_argument("--dry-run", action="store_true", help="read and count everything, write nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        dry = options["dry_run"]
        if not dry:
            serve.open_database()
            serve.migrate()
        try:
            rows = source.opened(options["url"])
        except source.CannotOpen as reason:
            raise CommandError(f"Cannot read the old database: {one_line(str(reason))}") from reason
        try:
            self._import(rows, dry=dry)
        except source.FAILURES as error:
            raise CommandError(f"The old database fails: {type(error).__name__}. What is taken over stays.") from error
        finally:
            rows.close()

    def _import(self, rows: source.Source, *, dry: bool) -> None:
        if not rows.has("sessions") or not rows.has("messages"):
            raise CommandError("This is no database of the replaced service: it has no tables sessions and messages.")
        with tqdm(total=rows.count("messages"), unit=" messages", file=sys.stderr) as bar:
            run = Import(rows, audit.shell_user(), agents.resolve, bar.update, dry=dry, known=not dry or _is_migrated())
            report = run.run()
        self._tell(report, dry=dry)

    def _tell(self, report: Report, *, dry: bool) -> None:
        self._list("Would be taken over" if dry else "Taken over", report.taken)
        self._list("Repaired on the way", report.repairs)
        self._list("Left out", report.left)
        if report.bad:
            self.stdout.write(f"Rows that cannot be taken over: {len(report.bad)}")
            for told in report.bad[:SHOWN_ROWS]:
                self.stdout.write(f"  {one_line(told)}")
            if len(report.bad) > SHOWN_ROWS:
                self.stdout.write(f"  and {len(report.bad) - SHOWN_ROWS} more")

    def _list(self, title: str, counts: Counter[str]) -> None:
        found = sorted((name, n) for name, n in counts.items() if n)
        self.stdout.write(f"{title}:" if found else f"{title}: nothing")
        for name, n in found:
            self.stdout.write(f"  {n:>8}  {name}")


def _is_migrated() -> bool:
    """Whether there is a database here to compare with: a dry run makes none."""
    if settings.ON_SQLITE and not Path(settings.DATABASES["default"]["NAME"]).is_file():
        return False
    return LegacyRow._meta.db_table in connection.introspection.table_names()
