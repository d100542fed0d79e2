"""The agents: one file each, found by importing this folder. Imports `tools` and `conf` only.

An agent's file is called like its type and defines `AGENT = Agent(...)`; `problems` is the system check for them all.
What operators have set over the code comes in by `apply`, from `definitions`.
"""

from __future__ import annotations

import pkgutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Literal

from agents_app import tools
from sessions_app.conf import settings

__all__ = ["Agent", "apply", "available", "defined", "everyone", "get", "problems", "resolve", "types"]

MAX_TYPE_LENGTH = 32  # what the database's columns hold


@dataclass(frozen=True, slots=True)
class Agent:
    """Who answers: a prompt, the tools it may use, and globs for the paths it may write (none given: any path).
    `mode` says where it is offered: with several agents, with a single one, or always; `rank` orders the lists.
    Without a temperature the provider's own applies, which is what some models insist on; without a model, the
    installation's. `version` is that of the operators' overrides in it, None for the code's definition alone."""

    type: str
    name: str
    description: str
    prompt: str
    tools: tuple[str, ...] = ()
    file_rules: tuple[str, ...] = ()
    temperature: float | None = None
    aliases: tuple[str, ...] = ()
    mode: Literal["multi", "single", "always"] = "multi"
    rank: int = 100
    model: str = ""
    version: int | None = None


@cache
def _by_file() -> dict[str, Agent | None]:
    names = [found.name for found in pkgutil.iter_modules(__path__) if not found.name.startswith("_")]
    return {name: getattr(import_module(f"{__name__}.{name}"), "AGENT", None) for name in names}


@cache
def _found() -> tuple[Agent, ...]:
    return tuple(sorted(filter(None, _by_file().values()), key=lambda agent: (agent.rank, agent.type)))


@cache
def _by_type() -> dict[str, Agent]:
    return {agent.type: agent for agent in _found()}


@cache
def _of_mode(mode: str) -> tuple[Agent, ...]:
    return tuple(agent for agent in _found() if agent.mode in (mode, "always"))


_applied: Mapping[str, Agent] = {}


def apply(instead: Mapping[str, Agent]) -> None:
    """From here on these are the agents of their types, in this process."""
    global _applied
    _applied = instead


def get(agent_type: str) -> Agent:
    """The agent of this type, also one that the current mode does not offer: old sessions name it. Else KeyError."""
    return _applied.get(agent_type) or defined(agent_type)


def defined(agent_type: str) -> Agent:
    """As `get`, by the code alone."""
    return _by_type()[agent_type]


def everyone() -> list[Agent]:
    """Those of every mode, as the code defines them."""
    return list(_found())


def available() -> list[Agent]:
    """Those of the current mode, the orchestrator first."""
    return [_applied.get(agent.type) or agent for agent in _of_mode("multi" if settings.MULTI_AGENT_MODE else "single")]


def types() -> tuple[str, ...]:
    """The types of those available."""
    return _types_of_mode("multi" if settings.MULTI_AGENT_MODE else "single")


@cache
def _types_of_mode(mode: str) -> tuple[str, ...]:
    return tuple(agent.type for agent in _of_mode(mode))


def resolve(name: str) -> str | None:
    """The type that a client means by this name or alias; None where there is none in the current mode."""
    if name in types():
        return name
    return next((agent.type for agent in available() if name in agent.aliases), None)


def problems() -> list[str]:
    """What is wrong with the agents found and the tools they and the settings name; empty when all is well."""
    files = [
        f"agents_app/agents/{name}.py must define AGENT with the type {name!r}."
        for name, agent in _by_file().items()
        if agent is None or agent.type != name
    ]
    known = Counter(tool.name for tool in tools.all_tools())
    strange = [f"More than one tool is called {name!r}." for name, times in known.items() if times > 1]
    strange += [f"CLIENT_TOOLS names the unknown tool {name!r}." for name in settings.CLIENT_TOOLS if name not in known]
    return [*files, *complaints(_found()), *strange]


def complaints(agents: Sequence[Agent]) -> list[str]:
    """What is wrong with these agents, in themselves and together."""
    names = Counter(name for agent in agents for name in {agent.type, *agent.aliases})
    clashes = [f"More than one agent is called {name!r}." for name, times in names.items() if times > 1]
    return clashes + [complaint for agent in agents for complaint in _own_complaints(agent)]


def _own_complaints(agent: Agent) -> list[str]:
    known = {tool.name for tool in tools.all_tools()}
    who = f"Agent {agent.type!r}"
    found = [f"{who} names the unknown tool {name!r}." for name in agent.tools if name not in known]
    found += [f"{who} names the tool {name!r} twice." for name, times in Counter(agent.tools).items() if times > 1]
    found += [f"{who} has no {part}." for part in ("name", "description", "prompt") if not getattr(agent, part).strip()]
    if not 0 < len(agent.type) <= MAX_TYPE_LENGTH:
        found.append(f"{who} must have a type of 1 to {MAX_TYPE_LENGTH} characters.")
    return found
