"""What our own lines of the log are made of, and what all lines of a moment have in common. Imports nothing of ours:
the log is set up before all else."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any


class Line(dict[str, Any]):
    """An event with its fields, as a logger's message: `log.info(Line(event="turn", outcome="completed"))`. A dict of
    anybody else's is text."""


_common: ContextVar[Mapping[str, Any]] = ContextVar("common", default={})  # noqa: B039  nobody changes it


def are_about(**fields: Any) -> None:
    """From here on lines bear these fields and no others: those of this context, and of the tasks begun in it."""
    _common.set(fields)


def common() -> Mapping[str, Any]:
    """The fields that a line of this moment bears beside its own."""
    return _common.get()
