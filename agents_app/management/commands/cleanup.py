"""`manage.py cleanup`: removes at once what the settings do not keep, beside a live server if need be."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from tqdm import tqdm

from sessions_app import audit, cleanup, tallies
from sessions_app.cleanup import Chore
from sessions_app.retention import PORTION_ROWS, Retention

NOTHING = """Everything is kept. What is to go, and when, is set by AGENT_RUNTIME__SESSION_IDLE_EXPIRE_HOURS,
AGENT_RUNTIME__SESSION_PURGE_DAYS and AGENT_RUNTIME__EVENT_RETENTION_DAYS."""


class Command(BaseCommand):
    help = "Expires and purges sessions that nobody uses, and removes old events, deliveries and model requests."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="only count what would go")

    def handle(self, *args: Any, **options: Any) -> None:
        retention = Retention.by_settings(who=audit.shell_user())
        if retention.keeps_everything:
            self.stdout.write(NOTHING)
            return
        if not options["dry_run"]:
            tallies.fold()  # what is counted may go
        for chore in cleanup.wanted(retention):
            count = chore.count(retention)
            if options["dry_run"]:
                self.stdout.write(f"{chore.name}: {count} would go")
            else:
                self.stdout.write(f"{chore.name}: {_done(chore, retention, count)} of {count} done")


def _done(chore: Chore, retention: Retention, expected: int) -> int:
    total = 0
    with tqdm(total=expected, desc=chore.name, file=sys.stderr) as bar:
        for portion in chore.portions(retention):
            count = PORTION_ROWS
            while count >= PORTION_ROWS:
                count = chore.apply(retention, portion)
                total += count
                bar.update(count)
    return total
