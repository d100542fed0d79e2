"""`manage.py worker`: executes runs in the foreground, where AGENT_RUNTIME__EXECUTOR is `worker`."""

import asyncio
from argparse import ArgumentTypeError
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from agents_app.management.commands import serve
from sessions_app import database
from sessions_app.conf import settings

CONCURRENCY = 100


class Command(BaseCommand):
    help = "Executes runs that servers hand over (AGENT_RUNTIME__EXECUTOR=worker). SIGTERM lets them end."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--concurrency", type=positive, default=CONCURRENCY, help="runs at the same time (default: %(default)s)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if settings.EXECUTOR != "worker":
            raise CommandError(
                "The servers execute their runs themselves. Set AGENT_RUNTIME__EXECUTOR=worker for both."
            )
        from agents_app import worker  # loads procrastinate

        serve.open_database()
        serve.migrate()
        self.stdout.write(greeting(options["concurrency"]))
        self.stdout.flush()
        asyncio.run(worker.work(options["concurrency"]))
        database.stop()


def positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is no number of runs: give 1 or more")
    return int(text)


def greeting(concurrency: int) -> str:
    return f"""
Agent runtime {settings.VERSION}, worker for up to {concurrency} runs at a time
  model     {serve.model_name()}
  database  {serve.database_name()}

Ctrl-C stops."""
