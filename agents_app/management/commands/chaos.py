"""`manage.py chaos`: clients talk while servers are killed, frozen and locked out; nothing promised may be lost."""

import importlib
import os
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from sessions_app.conf import settings


class Command(BaseCommand):
    help = (
        "Torments two servers on a temporary SQLite file, or on a new database beside the configured PostgreSQL one, "
        "with random faults, and checks their logs. Where AGENT_RUNTIME__EXECUTOR is worker, two workers run the turns "
        "and are tormented as well. Exit 0 when every promise was kept, else 1."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--minutes", type=float, default=5.0, help="how long (default: %(default)s)")
        parser.add_argument("--seed", type=int, help="begin with the faults of an earlier run (default: a new one)")

    def handle(self, *args: Any, **options: Any) -> None:
        os.chdir(settings.BASE_DIR)
        try:
            chaos = importlib.import_module("tests.faults.chaos")
        except ImportError as fault:
            raise CommandError(f"{fault.name} is missing: run `pip install -r requirements-dev.txt` first.") from fault
        # Settings may come from a .env file; the servers read the environment.
        os.environ["AGENT_RUNTIME__DB_URL"] = settings.DB_URL
        redis = ""
        if settings.EXECUTOR == "worker":
            redis = settings.REDIS_URL
            if settings.ON_SQLITE or not redis:
                raise CommandError("Workers need AGENT_RUNTIME__DB_URL (PostgreSQL) and AGENT_RUNTIME__REDIS_URL.")
        if not chaos.run(minutes=options["minutes"], seed=options["seed"], say=self._say, redis=redis):
            sys.exit(1)
        self.stdout.write(self.style.SUCCESS("Every promise was kept."))

    def _say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()
