"""`manage.py keys`: the keys that programs call with."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from sessions_app import audit, keys
from sessions_app.errors import RuntimeFault
from sessions_app.models import APIKey


class Command(BaseCommand):
    help = "Makes, lists and revokes the keys that programs send as X-Internal-Auth."

    def add_arguments(self, parser: CommandParser) -> None:
        commands = parser.add_subparsers(dest="command", required=True)
        making = commands.add_parser("create", help="make a key and show it, this once")
        making.add_argument("name", help="who will call with it: a service, a host")
        making.add_argument("--days", type=_days, help="it expires after so many days (default: never)")
        commands.add_parser("list", help="all keys, by their ids; never the keys themselves")
        ending = commands.add_parser("revoke", help="end a key in every process, open connections included")
        ending.add_argument("key_id", metavar="id")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            getattr(self, f"_{options['command']}")(options)
        except RuntimeFault as fault:
            raise CommandError(str(fault)) from fault

    def _create(self, options: dict[str, Any]) -> None:
        expires_at = timezone.now() + timedelta(days=options["days"]) if options["days"] else None
        row, key = keys.create(options["name"], by=audit.shell_user(), expires_at=expires_at)
        self.stderr.write(f"{row.key_id} for {row.name}. This is the key; it is shown once and stored nowhere:")
        self.stdout.write(key)

    def _list(self, options: dict[str, Any]) -> None:
        for row in keys.listed():
            self.stdout.write("  ".join((row.key_id, row.name, _state(row), *_times(row))))

    def _revoke(self, options: dict[str, Any]) -> None:
        ended = keys.revoke(options["key_id"], by=audit.shell_user())
        said = "is revoked: no process takes it two seconds from now" if ended else "was revoked before"
        self.stdout.write(f"{options['key_id']} {said}")


def _days(text: str) -> int:
    days = int(text)
    if not 0 < days <= 36_500:
        raise ValueError
    return days


def _state(row: APIKey) -> str:
    if row.revoked_at:
        return f"revoked {row.revoked_at:%Y-%m-%d %H:%M}Z by {row.revoked_by}"
    if row.expires_at and row.expires_at <= timezone.now():
        return "expired"
    return "active"


def _times(row: APIKey) -> list[str]:
    used = f"used {row.last_used_at:%Y-%m-%d %H:%M}Z" if row.last_used_at else "never used"
    until = [f"expires {row.expires_at:%Y-%m-%d %H:%M}Z"] if row.expires_at else []
    return [f"created {row.created_at:%Y-%m-%d %H:%M}Z", *until, used]
