"""`manage.py agents`: what is set for the agents over the code, listed, shown, compared and rolled back."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from agents_app import agents, definitions, overrides
from agents_app.terminal.safe_text import one_line
from sessions_app import agent_versions, audit
from sessions_app.agent_versions import ChangedMeanwhile, VersionNotFound
from sessions_app.models import AgentVersion

SHOWN = 50


class Command(BaseCommand):
    help = "Lists, shows, compares and rolls back what operators have set for the agents over the code."

    def add_arguments(self, parser: CommandParser) -> None:
        commands = parser.add_subparsers(dest="command", required=True)
        listing = commands.add_parser("list", help="all agents, or the versions of one")
        listing.add_argument("agent", nargs="?", help="its versions, newest first")
        show = commands.add_parser("show", help="what a version sets, as JSON")
        show.add_argument("agent")
        show.add_argument("number", nargs="?", type=int, help="the newest when left out")
        diff = commands.add_parser("diff", help="what a version changed, or two differ in")
        diff.add_argument("agent")
        diff.add_argument("old", nargs="?", type=int, help="the one before when left out; 0: the code")
        diff.add_argument("new", nargs="?", type=int, help="the newest when left out")
        restore = commands.add_parser("restore", help="make an agent what it was, as a new version")
        restore.add_argument("agent")
        restore.add_argument("number", type=int, help="0: the code's definition")

    def handle(self, *args: Any, **options: Any) -> None:
        acts = {"list": self._list, "show": self._show, "diff": self._diff, "restore": self._restore}
        try:
            acts[options["command"]](options)
        except (VersionNotFound, ChangedMeanwhile) as problem:
            raise CommandError(str(problem)) from None
        except KeyError as unknown:
            raise CommandError(f"There is no agent {unknown} in the code.") from None

    def _list(self, options: dict[str, Any]) -> None:
        if options["agent"]:
            for one in agent_versions.of(options["agent"])[:SHOWN]:
                self.stdout.write(_line(one))
            return
        newest = agent_versions.newest()
        for agent in agents.everyone():
            told = _line(newest[agent.type]) if agent.type in newest else "as in the code"
            self.stdout.write(f"{agent.type:<14}{told}")
        for note in definitions.misfits():
            self.stdout.write(f"note: {note}")

    def _show(self, options: dict[str, Any]) -> None:
        one = agent_versions.version(options["agent"], options["number"])
        self.stdout.write(json.dumps(one.overrides, ensure_ascii=False, indent=2))

    def _diff(self, options: dict[str, Any]) -> None:
        own = agents.defined(options["agent"])
        new = agent_versions.version(own.type, options["new"])
        for one in overrides.differences(own, self._old(options, new), agent_versions.told(new)):
            self.stdout.write(f"{one.part}:")
            for line in one.lines:
                self.stdout.write(f"  {line.sign if line.sign != '@' else ''}{one_line(line.text, 500)}")

    def _old(self, options: dict[str, Any], new: AgentVersion) -> dict[str, Any]:
        if options["old"] is None:
            before = agent_versions.before(new)
            return agent_versions.told(before)
        return agent_versions.told(agent_versions.version(new.agent, options["old"]) if options["old"] else None)

    def _restore(self, options: dict[str, Any]) -> None:
        own, who = agents.defined(options["agent"]), audit.shell_user()
        if options["number"]:
            made = agent_versions.restore(own.type, options["number"], who=who)
        else:
            made = agent_versions.save(own.type, {}, who=who, note="As in the code")
        self.stdout.write(f"{own.type} is that again, as version {made.number}." if made else "Nothing has changed.")


def _line(one: AgentVersion) -> str:
    parts = ", ".join(one_line(str(part)) for part in agent_versions.told(one)) or "as in the code"
    told = [str(one.number), f"{one.created_at:%Y-%m-%d %H:%M:%S}Z", one_line(one.who), parts, one_line(one.note)]
    return "  ".join(told).rstrip()
