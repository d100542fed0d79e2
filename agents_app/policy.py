"""What becomes of a tool call: it goes out, waits for a person, or is forbidden. Imports sessions_app's rules, `tools`,
`globs` and `commands`.

The rules are read once a version: a call is judged by the version that its session's lock has seen, in its own
transaction, so that a change made in any process counts from the next call on, everywhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

from django.utils import timezone
from django.utils.dateparse import parse_datetime

from agents_app import commands, globs
from agents_app.commands import Match
from agents_app.globs import PathGlob
from agents_app.tools import Tool
from agents_app.tools.diffs import touches_only
from sessions_app.models import PolicyVersion, RuleAction, Session
from sessions_app.models.policy import expression_of, lines_of

# (order, pattern, action, reason): what a new database begins with.
DEFAULT_RULES = [
    (10, "write_file", RuleAction.ASK, "Writes a file"),
    (20, "delete_file", RuleAction.ASK, "Deletes a file"),
    (30, "move_file", RuleAction.ASK, "Moves or renames a file"),
    (40, "create_directory", RuleAction.ASK, "Creates a directory"),
    (50, "execute_command", RuleAction.ASK, "Runs a command"),
    (60, "apply_diff", RuleAction.ASK, "Changes a file"),
]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of one call, and by which version of the rules."""

    action: RuleAction
    reason: str = ""
    version: int | None = None
    expires_seconds: int | None = None

    @property
    def needs_approval(self) -> bool:
        return self.action == RuleAction.ASK

    @property
    def forbidden(self) -> bool:
        return self.action == RuleAction.FORBID


@dataclass(frozen=True, slots=True)
class Call:
    """A call as rules see it; its command line is read once."""

    tool: Tool
    agent: str
    arguments: Mapping[str, Any]
    line: commands.Line | None

    @classmethod
    def of(cls, tool: Tool, agent: str, arguments: Mapping[str, Any]) -> Call:
        command = arguments.get("command")
        return cls(tool, agent, arguments, commands.suspicious(command) if isinstance(command, str) else None)

    @property
    def paths(self) -> list[str]:
        return [path for name in self.tool.path_fields if isinstance(path := self.arguments.get(name), str)]

    def only_touches_its_paths(self) -> bool:
        """A client may trust the headers of a diff more than the path beside it."""
        diff = self.arguments.get("diff")
        return not isinstance(diff, str) or all(touches_only(diff, path) for path in self.paths)

    def text_of(self, argument: str) -> str | None:
        value = self.arguments.get(argument)
        return value if isinstance(value, str) or value is None else json.dumps(value, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a version, ready to be asked."""

    pattern: str
    agent: str
    paths: tuple[PathGlob, ...]
    commands: tuple[str, ...]
    argument: str
    expression: Any
    action: RuleAction
    reason: str
    expires_seconds: int | None
    valid_until: datetime | None

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Rule:
        action = RuleAction(told["action"])
        # What is to be allowed may not hide a second line behind a dot.
        expression = expression_of(told["expression"], dot_matches_newline=action != RuleAction.ALLOW)
        return cls(
            pattern=told["pattern"],
            agent=told["agent"],
            paths=tuple(PathGlob.of(line) for line in lines_of(told["paths"])),
            commands=tuple(lines_of(told["commands"])),
            argument=told["argument"],
            expression=expression,
            action=action,
            reason=told["reason"],
            expires_seconds=told["expires_seconds"],
            valid_until=parse_datetime(told["valid_until"]) if told["valid_until"] else None,
        )

    def match(self, call: Call, now: datetime) -> Match:
        """Whether the rule is about this call. One that allows is so only without any doubt."""
        if self.valid_until is not None and self.valid_until <= now:
            return Match.NO
        if not fnmatchcase(call.tool.name, self.pattern) or not fnmatchcase(call.agent, self.agent or "*"):
            return Match.NO
        if self.action == RuleAction.ALLOW:
            return Match.YES if self._surely_allows(call) else Match.NO
        return min(self._about_paths(call), self._about_command(call), self._about_argument(call))

    # --- allow: every condition, of every part, for sure ---

    def _surely_allows(self, call: Call) -> bool:
        if self.paths and not (call.paths and all(self._allows_path(path) for path in call.paths)):
            return False
        if self.paths and not call.only_touches_its_paths():
            return False
        narrow = bool(self.commands) or self.argument == "command"
        if narrow and not (self.paths or all(globs.strict(path) is not None for path in call.paths)):
            return False
        command = call.arguments.get("command")
        text = command if isinstance(command, str) else ""
        if self.commands and not any(commands.allows(text, prefix) for prefix in self.commands):
            return False
        if self.argument == "command" and commands.simple(text) is None:
            return False
        return self._about_argument(call) == Match.YES

    def _allows_path(self, path: str) -> bool:
        return any(glob.allows(path) for glob in self.paths)

    # --- ask, forbid: any part that may be meant ---

    def _about_paths(self, call: Call) -> Match:
        if not self.paths:
            return Match.YES
        found = max((glob.suspects(path) for glob in self.paths for path in call.paths), default=Match.NO)
        return found if call.only_touches_its_paths() else max(found, Match.MAYBE)

    def _about_command(self, call: Call) -> Match:
        if not self.commands:
            return Match.YES
        line = call.line
        return max((line.match(prefix) for prefix in self.commands), default=Match.NO) if line else Match.NO

    def _about_argument(self, call: Call) -> Match:
        if not self.argument:
            return Match.YES
        text = call.text_of(self.argument)
        return Match.YES if text is not None and self.expression.fullmatch(text) is not None else Match.NO


@dataclass(frozen=True, slots=True)
class RuleSet:
    """The rules of one version, in their order; expired and disabled ones do not count."""

    version: int | None
    rules: tuple[Rule, ...]

    @classmethod
    def of(cls, told: Iterable[Mapping[str, Any]], version: int | None = None) -> RuleSet:
        return cls(version, tuple(Rule.of(one) for one in told if one["enabled"]))

    def judge(self, tool: Tool, agent: str, arguments: Mapping[str, Any]) -> Verdict:
        """The first rule that is about the call decides; without one, the tool's own default does. Only what the
        client executes is judged.

        Where a rule that asks or forbids may be meant, and nobody can tell, a person is asked at the least.
        """
        if tool.side != "client":
            return Verdict(RuleAction.ALLOW)
        call, now = Call.of(tool, agent, arguments), timezone.now()
        doubt: Rule | None = None
        for rule in self.rules:
            found = rule.match(call, now)
            if found == Match.YES:
                if doubt is not None and rule.action == RuleAction.ALLOW:
                    break
                return self._verdict(tool, rule)
            doubt = doubt or (rule if found == Match.MAYBE else None)
        if doubt is not None:
            return self._asks(tool, doubt)
        return Verdict(RuleAction.ASK if tool.dangerous else RuleAction.ALLOW, tool.reason, self.version)

    def _verdict(self, tool: Tool, rule: Rule) -> Verdict:
        if rule.action == RuleAction.ASK:
            return self._asks(tool, rule)
        return Verdict(rule.action, rule.reason, self.version)

    def _asks(self, tool: Tool, rule: Rule) -> Verdict:
        return Verdict(RuleAction.ASK, rule.reason or tool.reason, self.version, rule.expires_seconds)


NO_RULES = RuleSet(None, ())
_known = NO_RULES


def at(version: int | None) -> RuleSet:
    """The rules of a version; read from the database when it is not the one that was asked for last."""
    global _known
    if version is None:
        return NO_RULES
    known = _known
    if known.version != version:
        told = PolicyVersion.objects.values_list("rules", flat=True).get(number=version)
        known = _known = RuleSet.of(told, version)
    return known


def for_session(session: Session) -> RuleSet:
    """The rules that a locked session is judged by."""
    return at(session.policy_version)  # type: ignore[attr-defined]


def forget() -> None:
    """Read the rules again before the next call."""
    global _known
    _known = NO_RULES


__all__ = ["Call", "Rule", "RuleSet", "Verdict", "at", "for_session", "forget"]
