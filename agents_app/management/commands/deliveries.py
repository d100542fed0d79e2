"""`manage.py deliveries`: what event handlers are owed, and the dead letters tried again or discarded."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from agents_app.terminal.safe_text import one_line
from sessions_app import audit, deliveries
from sessions_app.models import DeliveryState, EventDelivery

SHOWN = 100
SETTLING = {
    "replay": (deliveries.replay, deliveries.replay_dead, "made due"),
    "discard": (deliveries.discard, deliveries.discard_dead, "discarded"),
}
LEFT_ALONE = {
    "replay": "The others do not exist, or are being run right now.",
    "discard": "The others do not exist, or are no dead letters.",
}


class Command(BaseCommand):
    help = "Lists what event handlers were given and are owed; replays, or discards, what they failed to take."

    def add_arguments(self, parser: CommandParser) -> None:
        commands = parser.add_subparsers(dest="command", required=True)
        listing = commands.add_parser("list", help="the newest deliveries, and how many there are of each state")
        listing.add_argument("--dead", action="store_true", help="only the dead letters")
        listing.add_argument("--handler", default="", help="only those of this handler")
        listing.add_argument("--limit", type=int, default=SHOWN, help="at most so many (default: %(default)s)")
        again = commands.add_parser("replay", help="make deliveries due at once; a running server takes them")
        again.add_argument("ids", nargs="*", type=int, metavar="id", help="these, whatever became of them")
        away = commands.add_parser("discard", help="end dead letters: they are kept, and no longer counted as dead")
        away.add_argument("ids", nargs="*", type=int, metavar="id", help="these dead letters")
        for chosen in (again, away):
            chosen.add_argument("--dead", action="store_true", help="all dead letters")
            chosen.add_argument("--handler", default="", help="with --dead: only those of this handler")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["command"] == "list":
            self._list(options["handler"], dead=options["dead"], limit=max(options["limit"], 0))
        else:
            self._settle(options["command"], options["ids"], options["handler"], dead=options["dead"])

    def _list(self, handler: str, *, dead: bool, limit: int) -> None:
        found = deliveries.listed(state=DeliveryState.DEAD if dead else "", handler=handler)
        for delivery in found.select_related("event__session")[:limit]:
            self.stdout.write(_line(delivery))
        self.stdout.write(", ".join(f"{count} {state}" for state, count in deliveries.counts().items()))

    def _settle(self, command: str, ids: list[int], handler: str, *, dead: bool) -> None:
        if bool(ids) == dead:
            raise CommandError("Name deliveries by their ids (manage.py deliveries list), or all dead ones by --dead.")
        if handler and not dead:
            raise CommandError("--handler narrows --dead; ids need none.")
        some, all_dead, done = SETTLING[command]
        who = audit.shell_user()
        count = all_dead(handler, who=who) if dead else some(ids, who=who)
        self.stdout.write(f"{count} {done}")
        if ids and count < len(set(ids)):
            raise CommandError(LEFT_ALONE[command])


def _line(delivery: EventDelivery) -> str:
    event = delivery.event
    at = delivery.delivered_at if delivery.state == DeliveryState.DELIVERED else delivery.next_at
    where = f"{event.type} #{event.seq} of {one_line(event.session.session_id, 60)}"
    told = f"{delivery.state} {at:%Y-%m-%d %H:%M:%S}Z, attempts {delivery.attempts}"
    parts = [str(delivery.pk), delivery.handler, where, told, one_line(delivery.last_error)]
    return "  ".join(part for part in parts if part)
