"""What our own lines of the log are made of. Imports nothing: the log is set up before all else."""

from __future__ import annotations

from typing import Any


class Line(dict[str, Any]):
    """An event with its fields, as a logger's message: `log.info(Line(event="turn", outcome="completed"))`. A dict of
    anybody else's is text."""
