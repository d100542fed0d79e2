"""The tools that this client has: found by name, their arguments checked, run in the folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import ConfigDict, ValidationError, validate_call

from agents_app.terminal.folder import Folder, ToolFailed

MAX_RESULT_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class LocalTool:
    run: Callable[..., str]
    reads_only: bool


_tools: dict[str, LocalTool] = {}


def tool(*, reads_only: bool = False) -> Callable[[Callable[..., str]], Callable[..., str]]:
    """Makes a function `(folder, **arguments) -> result for the model` a tool of its own name."""

    def register(function: Callable[..., str]) -> Callable[..., str]:
        checked = validate_call(config=ConfigDict(arbitrary_types_allowed=True))(function)
        _tools[function.__name__] = LocalTool(run=checked, reads_only=reads_only)
        return function

    return register


def knows(name: str) -> bool:
    return name in _tools


def reads_only(name: str) -> bool:
    return name in _tools and _tools[name].reads_only


def run(folder: Folder, name: str, arguments: dict[str, Any]) -> str:
    """The result's text; ToolFailed says why there is none."""
    if name not in _tools:
        raise ToolFailed(f"This client has no tool {name!r}")
    try:
        result = _tools[name].run(folder, **arguments)
    except ValidationError as fault:
        raise ToolFailed(_complaints(fault)) from fault
    data = result.encode("utf-8", "replace")  # a file's name may be no text
    if len(data) > MAX_RESULT_BYTES:
        raise ToolFailed(f"The result is larger than {MAX_RESULT_BYTES} bytes: ask for less of it")
    return data.decode()


def _complaints(fault: ValidationError) -> str:
    listed = fault.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in listed)
