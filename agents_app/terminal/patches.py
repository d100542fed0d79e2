"""Unified diffs, applied to one text. Pure; line numbers are a hint, the context lines decide."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from agents_app.terminal.folder import ToolFailed

HEAD = re.compile(r"@@ -(\d+)(?:,\d+)? \+\d+(?:,\d+)? @@")


@dataclass(slots=True)
class Hunk:
    start: int
    old: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)


def applied(text: str, diff: str) -> str:
    """`text` with every hunk of `diff` applied, or ToolFailed: never half of them."""
    newline = "\r\n" if "\r\n" in text else "\n"
    lines, shift = text.replace("\r\n", "\n").split("\n"), 0
    for number, hunk in enumerate(hunks(diff), start=1):
        at = _place(lines, hunk, hunk.start - 1 + shift)
        if at is None:
            raise ToolFailed(f"Hunk {number} does not fit: the file's lines differ from the diff's")
        lines[at : at + len(hunk.old)] = hunk.new
        shift += len(hunk.new) - len(hunk.old)
    return newline.join(lines)


def hunks(diff: str) -> list[Hunk]:
    found: list[Hunk] = []
    for line in _body(diff):
        if head := HEAD.match(line):
            found.append(Hunk(start=int(head[1])))
        elif not found:
            raise ToolFailed("The diff starts with something other than '@@ -line,count +line,count @@'")
        elif not line.startswith("\\"):
            _add(found[-1], line)
    if not found:
        raise ToolFailed("The diff is empty")
    return found


def _body(diff: str) -> Iterator[str]:
    """The lines from the first hunk on, without the file names before it."""
    lines = diff.replace("\r\n", "\n").removesuffix("\n").split("\n")
    preamble = ("--- ", "+++ ", "diff ", "index ")
    while lines and lines[0].startswith(preamble):
        lines.pop(0)
    yield from lines if any(lines) else []


def _add(hunk: Hunk, line: str) -> None:
    sign, rest = line[:1] or " ", line[1:]
    if sign not in " +-":
        raise ToolFailed(f"A line of the diff starts with neither space, + nor -: {line[:80]!r}")
    if sign != "+":
        hunk.old.append(rest)
    if sign != "-":
        hunk.new.append(rest)


def _place(lines: list[str], hunk: Hunk, expected: int) -> int | None:
    """Where the hunk's old lines stand, the place nearest to the expected one first."""
    if not hunk.old:
        return min(max(expected + 1, 0), len(lines))
    places = range(len(lines) - len(hunk.old) + 1)
    fits = (at for at in places if lines[at : at + len(hunk.old)] == hunk.old)
    return min(fits, key=lambda at: abs(at - expected), default=None)
