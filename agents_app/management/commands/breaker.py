"""`manage.py breaker`: whether the language model's upstream is asked, and a way to have it asked again now."""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from sessions_app import audit, breakers
from sessions_app.breakers import Circuit


class Command(BaseCommand):
    help = "Shows the circuit breaker of the language model's upstream, or closes it by hand."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--reset", action="store_true", help="close it; running servers hear of it within a second")

    def handle(self, *args: Any, **options: Any) -> None:
        circuit = breakers.reset(audit.shell_user()) if options["reset"] else breakers.state()
        self.stdout.write("  ".join(_told(circuit)))


def _told(circuit: Circuit) -> list[str]:
    told = [circuit.name, circuit.state, f"failed turns in a row: {circuit.failures}"]
    told += [f"last error: {circuit.last_error}"] if circuit.last_error else []
    told += [f"open since {circuit.opened_at:%Y-%m-%d %H:%M:%S}Z"] if circuit.opened_at else []
    return told + ([f"next try {circuit.next_probe_at:%H:%M:%S}Z"] if circuit.next_probe_at else [])
