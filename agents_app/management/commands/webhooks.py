"""`manage.py webhooks`: addresses elsewhere that are told what happens here."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlsplit

from django.core.management.base import BaseCommand, CommandError, CommandParser

from agents_app import webhooks as telling
from agents_app.handlers import NotDelivered
from agents_app.terminal.safe_text import one_line
from sessions_app import audit, database, webhooks
from sessions_app.errors import RuntimeFault
from sessions_app.models import Webhook

SHOWN = 20


class Command(BaseCommand):
    help = "Adds, lists, tests, enables and disables webhooks."

    def add_arguments(self, parser: CommandParser) -> None:
        commands = parser.add_subparsers(dest="command", required=True)
        adding = commands.add_parser("add", help="tell an address of events; prints the secret, once")
        adding.add_argument("url", help="http:// or https://")
        adding.add_argument("--events", default="*", metavar="TYPES", help="types or patterns by commas (default: all)")
        adding.add_argument("--with-content", action="store_true", help="also what people and models wrote")
        commands.add_parser("list", help="all of them")
        for name, meaning in (
            ("test", "post an event that never happened, and say how it went"),
            ("enable", "tell it again of what happens from now on"),
            ("disable", "tell it nothing more; what it is still owed becomes dead letters"),
            ("rotate", "give it a new secret; prints it, once"),
            ("log", f"its newest {SHOWN} attempts"),
        ):
            commands.add_parser(name, help=meaning).add_argument("id", type=int)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            getattr(self, f"_{options['command']}")(options)
        except (RuntimeFault, NotDelivered) as fault:
            raise CommandError(str(fault)) from fault

    def _add(self, options: dict[str, Any]) -> None:
        webhook, secret = webhooks.add(
            options["url"], patterns=options["events"], include_content=options["with_content"], who=audit.shell_user()
        )
        self.stdout.write(f"webhook {webhook.pk}\nsecret  {secret}\nIt is not shown again.")
        self.stdout.write(f"Try it: manage.py webhooks test {webhook.pk}")

    def _list(self, options: dict[str, Any]) -> None:
        for webhook in Webhook.objects.order_by("pk"):
            self.stdout.write(_line(webhook))

    def _test(self, options: dict[str, Any]) -> None:
        answer = asyncio.run(telling.send_test(webhooks.named(options["id"])))
        database.stop()
        told = f"{answer.error or f'HTTP {answer.status}'} ({answer.duration_ms} ms)"
        if not answer.taken:
            raise CommandError(f"Not taken: {told}")
        self.stdout.write(f"Taken: {told}")

    def _enable(self, options: dict[str, Any]) -> None:
        self.stdout.write(_line(webhooks.enable(options["id"], who=audit.shell_user())))

    def _disable(self, options: dict[str, Any]) -> None:
        who = audit.shell_user()
        self.stdout.write(_line(webhooks.disable(options["id"], because=f"By {who}.", who=who)))

    def _rotate(self, options: dict[str, Any]) -> None:
        secret = webhooks.rotate_secret(webhooks.named(options["id"]), who=audit.shell_user())
        self.stdout.write(f"secret  {secret}\nIt is not shown again.")

    def _log(self, options: dict[str, Any]) -> None:
        attempts = webhooks.named(options["id"]).attempts.select_related("event__session").order_by("-pk")[:SHOWN]
        for attempt in attempts:
            event = attempt.event
            what = f"{event.type} #{event.seq} of {one_line(event.session.session_id, 60)}" if event else "test"
            how = attempt.error or f"HTTP {attempt.status}"
            self.stdout.write(f"{attempt.at:%Y-%m-%d %H:%M:%S}Z  {what}  {how}  {attempt.duration_ms} ms")


def shown_url(url: str) -> str:
    """Without its query, which may be a secret of the other side."""
    parts = urlsplit(url)
    return one_line(f"{parts.scheme}://{parts.netloc}{parts.path}{'?…' if parts.query else ''}")


def _line(webhook: Webhook) -> str:
    state = "enabled" if webhook.enabled else f"disabled: {one_line(webhook.disabled_because) or 'in the admin'}"
    content = "with content" if webhook.include_content else ""
    parts = [str(webhook.pk), shown_url(webhook.url), webhook.patterns, content, state, one_line(webhook.created_by)]
    return "  ".join(part for part in parts if part)
