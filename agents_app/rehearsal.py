"""A rule set tried against the stored calls: what would have been asked, allowed, forbidden. Changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta

from django.db.models import Q
from django.utils import timezone

from agents_app import tools
from agents_app.policy import RuleSet, Verdict
from agents_app.tools import Tool
from sessions_app import strict_json
from sessions_app.models import RuleAction, ToolCall, ToolCallState

CHUNK_ROWS = 500
MAX_CALLS = 50_000
MAX_EXAMPLES = 20
EXAMPLE_CHARACTERS = 160


@dataclass(frozen=True, slots=True)
class Example:
    """One call that would have fared otherwise."""

    session_pk: int
    session_id: str
    call_id: str
    agent: str
    arguments: str
    reason: str


@dataclass(slots=True)
class Difference:
    """Calls of one tool that went one way, and would have gone another."""

    tool: str
    was: RuleAction
    would_be: RuleAction
    count: int = 0
    examples: list[Example] = field(default_factory=list)


@dataclass(slots=True)
class Report:
    """What the rules would have done with `calls` calls, beside what was done; `differences` are those from what other
    rules would have done, `by_now`, where it was asked for."""

    days: int
    calls: int = 0
    was: Counter[RuleAction] = field(default_factory=Counter)
    by_now: Counter[RuleAction] = field(default_factory=Counter)
    would_be: Counter[RuleAction] = field(default_factory=Counter)
    differences: dict[tuple[str, RuleAction, RuleAction], Difference] = field(default_factory=dict)
    cut: bool = False

    def add(self, call: ToolCall, verdict: Verdict, now: RuleAction | None = None) -> None:
        was, would_be = _was(call), verdict.action
        self.calls += 1
        self.was[was] += 1
        self.would_be[would_be] += 1
        if now is not None:
            self.by_now[now] += 1
        beside = now or was
        if beside == would_be:
            return
        key = (call.name, beside, would_be)
        difference = self.differences.setdefault(key, Difference(*key))
        difference.count += 1
        if len(difference.examples) < MAX_EXAMPLES:
            shown = strict_json.dumps_text(call.arguments)[:EXAMPLE_CHARACTERS]
            difference.examples.append(
                Example(call.session_id, call.session.session_id, call.call_id, call.agent, shown, verdict.reason)
            )

    def changed(self) -> list[Difference]:
        """The most frequent first."""
        return sorted(self.differences.values(), key=lambda one: (-one.count, one.tool, one.was, one.would_be))


def rehearse(rules: RuleSet, *, days: int, beside: RuleSet | None = None) -> Report:
    """Judges the newest calls of so many days again, as they were asked for: before anybody edited them. What differs
    is told from what was done in fact, or from what the rules `beside` would have done."""
    report = Report(days)
    for call, tool in _judged_calls(days):
        if report.calls == MAX_CALLS:
            report.cut = True
            break
        approval = getattr(call, "approval", None)
        call.arguments = approval.arguments if approval is not None else call.arguments
        verdict = rules.judge(tool, call.agent, call.arguments)
        now = beside.judge(tool, call.agent, call.arguments).action if beside else None
        report.add(call, verdict, now)
    return report


def _judged_calls(days: int) -> Iterator[tuple[ToolCall, Tool]]:
    """The stored calls that a policy has judged, or would have: no others were ever to go out."""
    known = {tool.name: tool for tool in tools.all_tools() if tool.side == "client"}
    judged = Q(policy_version__isnull=False) | ~Q(state=ToolCallState.REFUSED)
    since = timezone.now() - timedelta(days=days)
    rows = ToolCall.objects.filter(judged, requested_at__gte=since, name__in=known).order_by("-pk")
    columns = ("name", "agent", "call_id", "arguments", "state", "requires_approval", "policy_version")
    wanted = rows.select_related("session", "approval").only(*columns, "session__session_id", "approval__arguments")
    for call in wanted.iterator(chunk_size=CHUNK_ROWS):
        yield call, known[call.name]


def _was(call: ToolCall) -> RuleAction:
    if call.state == ToolCallState.REFUSED:
        return RuleAction.FORBID
    return RuleAction.ASK if call.requires_approval else RuleAction.ALLOW
