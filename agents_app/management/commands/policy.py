"""`manage.py policy`: the approval rules and their versions shown, compared, moved, rolled back, and tried out."""

from __future__ import annotations

import json
import sys
from difflib import unified_diff
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from agents_app.policy import RuleSet
from agents_app.rehearsal import Report, rehearse
from agents_app.terminal.safe_text import one_line
from sessions_app import audit, policies, strict_json
from sessions_app.models import PolicyVersion, RuleAction
from sessions_app.policies import PolicyInvalid, Rules, VersionNotFound

SHOWN, EXAMPLES = 50, 3
CONDITIONS = ("agent", "paths", "commands", "argument", "expression", "expires_seconds", "valid_until")


class Command(BaseCommand):
    help = "Shows, compares, exports, imports, rolls back and tries approval rules."

    def add_arguments(self, parser: CommandParser) -> None:
        commands = parser.add_subparsers(dest="command", required=True)
        listing = commands.add_parser("list", help="the versions, newest first")
        listing.add_argument("--limit", type=int, default=SHOWN, help="at most so many (default: %(default)s)")
        show = commands.add_parser("show", help="the rules of a version")
        show.add_argument("number", nargs="?", type=int, help="the newest when left out")
        diff = commands.add_parser("diff", help="what changed from one version to another")
        diff.add_argument("old", type=int)
        diff.add_argument("new", nargs="?", type=int, help="the newest when left out")
        rollback = commands.add_parser("rollback", help="make the rules what they were, as a new version")
        rollback.add_argument("number", type=int)
        export = commands.add_parser("export", help="the rules of a version as JSON")
        export.add_argument("number", nargs="?", type=int, help="the newest when left out")
        bring = commands.add_parser("import", help="replace all rules by those of a JSON file")
        bring.add_argument("file", help="as export writes it; - reads standard input")
        bring.add_argument("--note", default="", help="why; kept with the version")
        rehearsal = commands.add_parser("try", help="judge the stored calls again, and change nothing")
        rehearsal.add_argument("--file", default="", help="with these rules; the newest version's when left out")
        rehearsal.add_argument("--days", type=int, default=7, help="calls of so many days (default: %(default)s)")

    def handle(self, *args: Any, **options: Any) -> None:
        acts = {
            "list": self._list, "show": self._show, "diff": self._diff, "rollback": self._rollback,
            "export": self._export, "import": self._import, "try": self._try,
        }  # fmt: skip
        try:
            acts[options["command"]](options)
        except (PolicyInvalid, VersionNotFound) as problem:
            raise CommandError(str(problem)) from None

    def _list(self, options: dict[str, Any]) -> None:
        for one in PolicyVersion.objects.order_by("-number")[: max(options["limit"], 0)]:
            parts = [str(one.number), f"{one.created_at:%Y-%m-%d %H:%M:%S}Z", f"{len(one.rules)} rules"]
            self.stdout.write("  ".join([*parts, one_line(one.who), one_line(one.note)]).rstrip())

    def _show(self, options: dict[str, Any]) -> None:
        for rule in policies.version(options["number"]).rules:
            self.stdout.write(_line(rule))

    def _diff(self, options: dict[str, Any]) -> None:
        old, new = policies.version(options["old"]), policies.version(options["new"])
        before, after = ([_line(rule) for rule in one.rules] for one in (old, new))
        names = f"version {old.number}", f"version {new.number}"
        for line in unified_diff(before, after, *names, lineterm="", n=1):
            self.stdout.write(line)

    def _rollback(self, options: dict[str, Any]) -> None:
        made = policies.restore(options["number"], who=audit.shell_user())
        self.stdout.write(f"The rules are those of version {options['number']}, as version {made.number}.")

    def _export(self, options: dict[str, Any]) -> None:
        self.stdout.write(json.dumps(policies.version(options["number"]).rules, ensure_ascii=False, indent=2))

    def _import(self, options: dict[str, Any]) -> None:
        made = policies.replace(self._read(options["file"]), who=audit.shell_user(), note=options["note"])
        self.stdout.write(f"{len(made.rules)} rules, version {made.number}.")

    def _try(self, options: dict[str, Any]) -> None:
        if options["days"] < 1:
            raise CommandError("--days must be 1 or more.")
        given: Rules = self._read(options["file"]) if options["file"] else policies.version().rules
        report = rehearse(RuleSet.of(policies.plain(policies.validated(given))), days=options["days"])
        for line in told(report):
            self.stdout.write(line)

    def _read(self, file: str) -> Any:
        try:
            text = sys.stdin.read() if file == "-" else Path(file).read_text()
            return strict_json.loads(text)
        except (OSError, ValueError) as error:
            raise CommandError(f"{file}: {error}") from None


def _line(rule: dict[str, Any]) -> str:
    """A rule in one line: its place, what it does, for which calls, and why."""
    where = [f"{name}={one_line(str(rule[name]).replace(chr(10), ' | '), 200)}" for name in CONDITIONS if rule[name]]
    if rule["expires_seconds"] == 0:
        where.append("expires_seconds=0")
    off = "" if rule["enabled"] else " (off)"
    reason = f"  # {one_line(rule['reason'])}" if rule["reason"] else ""
    return f"{rule['order']:>5} {rule['action']:<6} {'  '.join([one_line(rule['pattern']), *where])}{off}{reason}"


def told(report: Report) -> list[str]:
    """The report in plain lines."""
    lines = [
        f"{report.calls} calls of the last {report.days} days{' (the newest; there are more)' if report.cut else ''}."
    ]
    lines.append(f"These rules would have asked {_counts(report, would_be=True)}.")
    lines.append(f"In fact: asked {_counts(report, would_be=False)}.")
    for one in report.changed():
        lines.append(f"{one.tool}: {one.count} x {one.was.value} -> {one.would_be.value}")
        for example in one.examples[:EXAMPLES]:
            reason = f"  # {one_line(example.reason)}" if example.reason else ""
            lines.append(
                f"    {one_line(example.session_id, 60)} {one_line(example.call_id, 40)} "
                f"{one_line(example.arguments, 160)}{reason}"
            )
    return lines


def _counts(report: Report, *, would_be: bool) -> str:
    counted = report.would_be if would_be else report.was
    asked, allowed, forbidden = (counted[act] for act in (RuleAction.ASK, RuleAction.ALLOW, RuleAction.FORBID))
    return f"{asked} times, allowed {allowed}, forbidden {forbidden}"
