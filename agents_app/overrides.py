"""What operators may set for an agent over what the code says: whether it fits the code, and what comes of it.

The same judgement refuses a form and leaves out of what is stored what does not fit any more. Imports agents, tools.

    fitted = overrides.fit(agents.defined("coder"), {"temperature": 0.2, "tools": ["read_file"]})
    fitted.agent, fitted.misfits
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from difflib import unified_diff
from typing import Any

from django.utils.translation import gettext as _

from agents_app import globs, llm, tools
from agents_app.agents import Agent
from agents_app.paths import PathRefused, check_characters
from agents_app.tools import Tool
from agents_app.tools.declaration import CONTROL, UNSTORABLE
from sessions_app.agent_versions import PARTS
from sessions_app.conf import settings
from sessions_app.models import ORCHESTRATOR

MAX_PROMPT_CHARACTERS, MAX_PROMPT_LINES = 50_000, 2_000
MAX_FILE_RULES, MAX_RULE_CHARACTERS = 100, 500
MAX_MODEL_CHARACTERS = 255
MAX_TEMPERATURE = 2.0
UNFIT = object()  # instead of a value: the code's stays
NOWHERE = ("..",)  # a rule that no path matches

Judged = tuple[Any, list[str]]  # the value as far as it fits, and what does not


@dataclass(slots=True)
class Fitted:
    """The agent with the overrides that fit; `misfits` says of the others, by part, what was left out and why."""

    agent: Agent
    misfits: dict[str, list[str]] = field(default_factory=dict)


def fit(agent: Agent, told: Any) -> Fitted:
    """`agent` is the code's; `told` is anything that a database can hold. Raises nothing."""
    values: dict[str, Any] = {}
    misfits: dict[str, list[str]] = {}
    for part, value in told.items() if isinstance(told, Mapping) else ():
        judge = JUDGES.get(part)
        kept, wrong = judge(agent, value) if judge else (UNFIT, [_("There is no such part.")])
        if kept is not UNFIT:
            values[part] = kept
        if wrong:
            misfits[str(part)] = wrong
    return Fitted(replace(agent, **values), misfits)


def open_parts(agent: Agent) -> tuple[str, ...]:
    """What may be set for it. The orchestrator routes and answers; it has no tools, and so it writes nothing."""
    return tuple(part for part in PARTS if agent.type != ORCHESTRATOR or part not in ("tools", "file_rules"))


def choosable() -> list[Tool]:
    """The tools that an agent may be given or not. Those that steer the turn are the code's: prompts and turns count
    on them."""
    return [tool for tool in tools.all_tools() if tool.side != CONTROL]


def fixed_tools(agent: Agent) -> tuple[str, ...]:
    return tuple(name for name in agent.tools if name not in {tool.name for tool in choosable()})


def chosen_tools(agent: Agent) -> list[str]:
    """The agent's tools as an override has them."""
    return [name for name in agent.tools if name not in fixed_tools(agent)]


# --- the judgement, part by part ---------------------------------------------------------------------------------


def _prompt(agent: Agent, value: Any) -> Judged:
    if not isinstance(value, str) or not value.strip():
        return UNFIT, [_("An agent without a prompt does not know who it is.")]
    if len(value) > MAX_PROMPT_CHARACTERS or value.count("\n") >= MAX_PROMPT_LINES:
        limits = {"characters": MAX_PROMPT_CHARACTERS, "lines": MAX_PROMPT_LINES}
        return UNFIT, [_("It may have {characters} characters and {lines} lines at most.").format(**limits)]
    if UNSTORABLE.search(value):
        return UNFIT, [_("It holds NUL or broken characters.")]
    return value, []


def _tools(agent: Agent, value: Any) -> Judged:
    if agent.type == ORCHESTRATOR:
        return UNFIT, [_("The orchestrator has no tools: it routes.")]
    if not isinstance(value, list):
        return fixed_tools(agent), [_("It is no list.")]
    known = {tool.name for tool in choosable()}
    names = [name for name in value if isinstance(name, str) and name in known]
    wrong = [_not_to_be_given(name) for name in value if name not in names]
    wrong += [_("The tool {name} is there twice.").format(name=name) for name, n in Counter(names).items() if n > 1]
    return (*dict.fromkeys(names), *fixed_tools(agent)), wrong


def _not_to_be_given(name: Any) -> str:
    if any(name == tool.name for tool in tools.all_tools()):
        return _("{name} steers the turn: the code says who has it.").format(name=name)
    return _("There is no tool {name}.").format(name=tools.shown(name))


def _file_rules(agent: Agent, value: Any) -> Judged:
    """Where none of the rules can be read, nothing may be written: the code's could allow more than was meant."""
    if agent.type == ORCHESTRATOR:
        return UNFIT, [_("The orchestrator has no tools: it routes.")]
    if not isinstance(value, list) or not all(isinstance(rule, str) for rule in value):
        return NOWHERE, [_("It is no list.")]
    if len(value) > MAX_FILE_RULES or any(len(rule) > MAX_RULE_CHARACTERS for rule in value):
        limits = {"rules": MAX_FILE_RULES, "characters": MAX_RULE_CHARACTERS}
        return NOWHERE, [_("There may be {rules} rules of {characters} characters at most.").format(**limits)]
    problems = {rule: globs.problem(rule) for rule in value}
    wrong = [
        _("No path can match {rule}: {why}.").format(rule=tools.shown(rule), why=_(why))
        for rule, why in problems.items()
        if why
    ]
    good = tuple(rule for rule, why in problems.items() if not why)
    return good or (NOWHERE if wrong else ()), wrong


def _model(agent: Agent, value: Any) -> Judged:
    if not isinstance(value, str) or not value or len(value) > MAX_MODEL_CHARACTERS:
        return UNFIT, [_("A model's name has 1 to {limit} characters.").format(limit=MAX_MODEL_CHARACTERS)]
    try:
        check_characters(value)
    except PathRefused:
        return UNFIT, [_("It holds a control character.")]
    if any(char.isspace() for char in value):
        return UNFIT, [_("A model's name has no spaces.")]
    if not settings.LLM_PROXY_URL and not llm.is_demo(value):
        told = _("No model's address is set (AGENT_RUNTIME__LLM_PROXY_URL): there is only {name}, which is built in.")
        return UNFIT, [told.format(name=llm.DEMO_MODEL)]
    return value, []


def _temperature(agent: Agent, value: Any) -> Judged:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_TEMPERATURE:
        return UNFIT, [_("It is a number from 0 to {limit}.").format(limit=f"{MAX_TEMPERATURE:g}")]
    return float(value), []


JUDGES: dict[Any, Callable[[Agent, Any], Judged]] = {
    "prompt": _prompt, "tools": _tools, "file_rules": _file_rules, "model": _model, "temperature": _temperature,
}  # fmt: skip


# --- two versions beside each other ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a comparison: `sign` is "+", "-", " ", or "@" where some are left out."""

    sign: str
    text: str


@dataclass(frozen=True, slots=True)
class Difference:
    part: str
    lines: list[Line]


def differences(agent: Agent, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Difference]:
    """What differs between two sets of overrides, part by part; what one leaves to the code is compared as the code
    has it now."""
    found = []
    for part in PARTS:
        before, after = (_lines(agent, part, told) for told in (old, new))
        if before != after:
            found.append(Difference(part, _compared(before, after, whole=part != "prompt")))
    return found


def _lines(agent: Agent, part: str, told: Mapping[str, Any]) -> list[str]:
    value = told[part] if part in told else _own(agent, part)
    if part in ("tools", "file_rules"):
        return sorted(map(str, value)) if isinstance(value, list) else [str(value)]
    return str("" if value is None else value).splitlines()


def _own(agent: Agent, part: str) -> Any:
    if part == "tools":
        return chosen_tools(agent)
    return list(agent.file_rules) if part == "file_rules" else getattr(agent, part)


def _compared(before: list[str], after: list[str], *, whole: bool) -> list[Line]:
    lines = list(unified_diff(before, after, lineterm="", n=len(before) if whole else 2))[2:]
    found = [Line(line[0], line if line[0] == "@" else line[1:]) for line in lines]
    return [line for line in found if line.sign != "@"] if whole else found


__all__ = ["Difference", "Fitted", "Line", "choosable", "differences", "fit", "open_parts"]
