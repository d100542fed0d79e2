"""Colours, or none: NO_COLOR, TERM=dumb, a pipe and --plain are respected."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TextIO

CODES = {"red": "31", "green": "32", "yellow": "33", "cyan": "36", "bold": "1", "dim": "2"}


@dataclass(frozen=True, slots=True)
class Palette:
    enabled: bool

    @classmethod
    def of(cls, stream: TextIO, *, plain: bool) -> Palette:
        asked_for_none = plain or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        return cls(enabled=not asked_for_none and stream.isatty())

    def paint(self, style: str, text: str) -> str:
        return f"\x1b[{CODES[style]}m{text}\x1b[0m" if self.enabled and text else text
