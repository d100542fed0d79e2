"""`manage.py doctor`: prints what is broken, and repairs it with --fix. May run beside a live server."""

import sys
from contextlib import suppress
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.db import DatabaseError

from agents_app import definitions
from sessions_app import audit, doctor


class Command(BaseCommand):
    help = (
        "Looks for broken states: exit 0 when there is none, else 1. Open calls and approvals are not broken, nor is "
        "an agent's setting that the code no longer follows: that is a note."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--fix", action="store_true", help="repair what can be repaired")

    def handle(self, *args: Any, **options: Any) -> None:
        findings = doctor.examine()
        for finding in findings:
            self.stdout.write(f"{finding.broken.name}: {finding.broken.meaning}: session {finding.session_id!r}")
        for note in definitions.misfits():
            self.stdout.write(f"note: {note}")
        if options["fix"] and findings:
            findings = self._fixed(findings)
        with suppress(DatabaseError):  # a copy that is only read is looked at all the same
            doctor.note(findings)  # the admin's home shows it
        if findings:
            sys.exit(1)
        self.stdout.write(self.style.SUCCESS("Nothing is broken."))

    def _fixed(self, findings: list[doctor.Finding]) -> list[doctor.Finding]:
        """What is still broken after the repairs."""
        for finding in findings:
            done = doctor.repair(finding, who=audit.shell_user())
            self.stdout.write(f"{finding.broken.name}: {'repaired' if done else 'cannot be repaired'}")
        return doctor.examine()
