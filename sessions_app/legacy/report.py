"""What a taking over did, or would do. Imports nothing of ours."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

DELETED_THERE, DELETED_HERE = "sessions that were deleted there", "sessions that were deleted here"
STRANGERS = "sessions that exist here already and were not taken over"
CONTINUED = "sessions that were continued here: what is new there was left out"
UNCHANGED = "sessions without anything new"
NO_CALL = "approvals whose call is not there"


@dataclass(slots=True)
class Report:
    """What was, or would be, taken over: counts by name, and the rows that could not be."""

    taken: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    repairs: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)

    def refuse(self, table: str, row_id: Any, why: str) -> None:
        self.bad.append(f"{table} {row_id!r}: {why}")
