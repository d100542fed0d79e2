"""The tools agents may call: one file a family, one function a tool. Imports `paths` and `conf` only.

A tool is a function whose signature is its JSON schema and whose docstring is its description for the model. Tools
executed by the client have no body of their own; tools executed here return the text that the model reads.
"""

from __future__ import annotations

import pkgutil
from functools import cache, lru_cache
from importlib import import_module
from typing import Any, Protocol

from agents_app import paths
from agents_app.tools import diffs
from agents_app.tools.declaration import Tool, ToolRefused, shown
from sessions_app.conf import settings

__all__ = ["Tool", "ToolRefused", "all_tools", "check", "get", "offered", "openai_schema", "schemas", "shown"]


class Caller(Protocol):
    """What has to be known of the agent that calls."""

    @property
    def tools(self) -> tuple[str, ...]: ...

    @property
    def file_rules(self) -> tuple[str, ...]: ...


@cache
def _found() -> tuple[Tool, ...]:
    modules = [import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
    return tuple(value for module in modules for value in vars(module).values() if isinstance(value, Tool))


@cache
def _by_name() -> dict[str, Tool]:
    return {tool.name: tool for tool in _found()}


def all_tools() -> list[Tool]:
    """Every tool that the families declare; two of one name are a mistake that `agents.problems` reports."""
    return list(_found())


def get(name: str) -> Tool:
    """The tool of this name, or KeyError."""
    return _by_name()[name]


def offered(agent: Caller) -> list[Tool]:
    """The agent's tools in its own order, without those that the client has not been said to know."""
    return list(_offered_of(agent.tools, tuple(settings.CLIENT_TOOLS)))


@lru_cache(100)
def _offered_of(names: tuple[str, ...], of_client: tuple[str, ...]) -> tuple[Tool, ...]:
    known = (_by_name()[name] for name in names if name in _by_name())
    return tuple(tool for tool in known if not tool.on_request or tool.name in of_client)


def schemas(agent: Caller) -> list[dict[str, Any]]:
    """The agent's tools as a model is told of them. Others get the same list: it must not be changed."""
    return _schemas_of(agent.tools, tuple(settings.CLIENT_TOOLS))


@lru_cache(100)
def _schemas_of(names: tuple[str, ...], of_client: tuple[str, ...]) -> list[dict[str, Any]]:
    return [openai_schema(tool) for tool in _offered_of(names, of_client)]


def openai_schema(tool: Tool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.schema}
    return {"type": "function", "function": function}


def check(agent: Caller, name: str, arguments: object) -> dict[str, Any]:
    """The arguments as they may be sent: valid, with the schema's defaults, paths under file rules normalised.

    Raises ToolRefused, and nothing else whatever the model sent, with the text that the model is to read.
    """
    tool = _offered(agent, name)
    valid = tool.validated(arguments)
    return _within_rules(tool, valid, agent.file_rules) if tool.writes and agent.file_rules else valid


def _offered(agent: Caller, name: str) -> Tool:
    tools = {tool.name: tool for tool in offered(agent)}
    if name in tools:
        return tools[name]
    problem = "is not yours to use" if name in _by_name() else "does not exist"
    yours = ", ".join(tools) or "none"
    raise ToolRefused(f"The tool {shown(name)} {problem}. Your tools: {yours}.")


def _within_rules(tool: Tool, arguments: dict[str, Any], rules: tuple[str, ...]) -> dict[str, Any]:
    written = {field: _writable(field, arguments[field], rules) for field in tool.path_fields if field in arguments}
    if "diff" in arguments and not diffs.touches_only(arguments["diff"], written["path"]):
        raise ToolRefused("Refused: the diff names other files than path.")
    return arguments | written


def _writable(field: str, path: str, rules: tuple[str, ...]) -> str:
    try:
        clean = paths.normalise(path)
    except paths.PathRefused as refusal:
        raise ToolRefused(f"Refused {field} {path[:200]!a}: {refusal}.") from None
    if not paths.matches(clean, rules):
        raise ToolRefused(f"Refused {field} {clean[:200]!a}: you may only write {', '.join(rules)}.")
    return clean
