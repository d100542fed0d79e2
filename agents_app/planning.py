"""What becomes of the calls in a model's answer: checked, decided by the policy, settled here or sent to the client.

Runs in the transaction that stores the outcome, by the rules that the session's lock has seen.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from agents_app import agents, tools
from agents_app.agents import Agent
from agents_app.llm_types import RequestedCall
from agents_app.policy import RuleSet
from agents_app.tools import Tool, ToolRefused
from sessions_app import strict_json
from sessions_app.conf import settings
from sessions_app.errors import MistakeLimit, RuntimeFault, SwitchLimit
from sessions_app.toolcalls import Plan, Planned

ODD_NAME = re.compile(r"[^A-Za-z0-9_-]")
FORBIDDEN = "Not executed, and not to be asked for again: a rule forbids it"
STOPPED = "Not executed: the turn was stopped."
TOO_EARLY = "Other calls of the same answer are still open. Finish when you have read their results."


@dataclass(slots=True)
class Counters:
    """What is bounded in a run; kept with it while it waits."""

    steps: int = 0
    switches: int = 0
    mistakes: int = 0


@dataclass(slots=True)
class Planner:
    """Plans one answer of one agent."""

    agent: Agent
    counters: Counters
    rules: RuleSet
    current: str = ""
    final: list[str] = field(default_factory=list)
    fault: RuntimeFault | None = None

    def plan(self, wanted: Sequence[RequestedCall], say: Callable[[RuntimeFault], str]) -> Plan:
        self.current = self.agent.type
        # What ends the turn is judged last: whether it may depends on the calls beside it.
        last = {"attempt_completion", "ask_followup_question"}
        calls: dict[int, Planned] = {}
        for index in sorted(range(len(wanted)), key=lambda i: wanted[i].name in last):
            going_out = any(call.answer is None for call in calls.values())
            calls[index] = self._one(wanted[index], going_out)
        planned = [calls[index] for index in range(len(wanted))]
        self._count_mistakes(planned)
        if self.fault is not None:
            planned = [_stopped(call) if call.answer is None else call for call in planned]
        text = "\n\n".join(self.final) if self.final else None
        said = say(self.fault) if self.fault else ""
        return Plan(planned, text, self.fault, said, vars_of(self.counters))

    def _one(self, wanted: RequestedCall, going_out: bool) -> Planned:
        arguments: Any = {}
        try:
            arguments = _parsed(wanted.arguments)
            checked = tools.check(self.agent, wanted.name, arguments)
            return self._allowed(wanted, tools.get(wanted.name), checked, going_out)
        except ToolRefused as refusal:
            kept = strict_json.clean(arguments) if isinstance(arguments, dict) else {}
            return Planned(wanted.id, _plain(wanted.name), kept, str(refusal), refused=True)

    def _allowed(self, wanted: RequestedCall, tool: Tool, arguments: dict[str, Any], going_out: bool) -> Planned:
        if tool.side == "client":
            return self._judged(wanted, tool, arguments)
        if tool.name == "switch_mode":
            return self._switch(wanted, tool, arguments)
        if tool.side == "control" and going_out:
            raise ToolRefused(TOO_EARLY)
        text = tool.run(**arguments) if tool.run else ""
        if tool.side == "control":
            self.final.append(text)
            text = "The user has been shown this."
        return Planned(wanted.id, tool.name, arguments, text)

    def _judged(self, wanted: RequestedCall, tool: Tool, arguments: dict[str, Any]) -> Planned:
        """What is forbidden never leaves: the model reads why, and it counts as a mistake."""
        verdict = self.rules.judge(tool, self.agent.type, arguments)
        refusal = f"{FORBIDDEN}: {verdict.reason}" if verdict.reason else f"{FORBIDDEN}."
        return Planned(
            wanted.id, tool.name, arguments,
            answer=refusal if verdict.forbidden else None,
            refused=verdict.forbidden,
            needs_approval=verdict.needs_approval,
            reason=verdict.reason,
            policy_version=verdict.version,
            expires_seconds=verdict.expires_seconds,
        )  # fmt: skip

    def _switch(self, wanted: RequestedCall, tool: Tool, arguments: dict[str, Any]) -> Planned:
        target = agents.resolve(arguments["mode"])
        if target is None or target == self.current:
            raise ToolRefused(f"You are the {self.current} already." if target else "There is no such agent.")
        if self.counters.switches >= settings.MAX_SWITCHES_PER_RUN:
            self.fault = SwitchLimit(limit=settings.MAX_SWITCHES_PER_RUN)
            raise ToolRefused(STOPPED)
        self.counters.switches += 1
        self.current = target
        reason = arguments.get("reason") or f"The {self.agent.type} handed over"
        return Planned(wanted.id, tool.name, arguments, f"Switched to {target}.", switch_to=target, reason=reason)

    def _count_mistakes(self, planned: Sequence[Planned]) -> None:
        """Refused calls in a row; a step without any starts the count anew."""
        refused = sum(call.refused for call in planned)
        self.counters.mistakes = self.counters.mistakes + refused if refused else 0
        if self.counters.mistakes > settings.MAX_MISTAKES_PER_RUN and self.fault is None:
            self.fault = MistakeLimit(limit=settings.MAX_MISTAKES_PER_RUN)


def vars_of(counters: Counters) -> dict[str, int]:
    return {"steps": counters.steps, "switches": counters.switches, "mistakes": counters.mistakes}


def _stopped(call: Planned) -> Planned:
    return Planned(call.call_id, call.name, call.arguments, STOPPED, refused=True)


def _parsed(text: str) -> Any:
    """The model's arguments; a key given twice counts as its last value, here and everywhere after."""
    if not text.strip():
        return {}
    try:
        return strict_json.loads(text)
    except ValueError as error:
        raise ToolRefused(f"The arguments are {error}. Send one JSON object.") from None


def _plain(name: str) -> str:
    """A name that providers take back: they refuse odd characters and more than 64 of them."""
    return ODD_NAME.sub("_", name)[:64] or "unknown"
