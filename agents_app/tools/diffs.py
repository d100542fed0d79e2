"""Which files a unified diff names. A client may trust the headers of a diff more than the path beside it."""

from __future__ import annotations

from itertools import pairwise

GIT_HEADERS = ("rename from ", "rename to ", "copy from ", "copy to ", "Index: ", "*** ")
NOTHING = "/dev/null"


def touches_only(diff: str, path: str) -> bool:
    """Whether every file header of the diff names this path, or it has none."""
    lines = diff.replace("\r", "\n").split("\n")
    commands = [line for line in lines if line.startswith("diff ")]
    return all(command == f"diff --git a/{path} b/{path}" for command in commands) and all(
        name in (path, NOTHING) for name in _named(lines)
    )


def _named(lines: list[str]) -> list[str]:
    names = [_bare(line[len(mark) :]) for line in lines for mark in GIT_HEADERS if line.startswith(mark)]
    for old, new in pairwise(line for line in lines if line):
        if old.startswith("--- ") and new.startswith("+++ "):
            names += [_bare(old[4:]), _bare(new[4:])]
    return names


def _bare(name: str) -> str:
    """Without the time stamp that diff writes and the a/ or b/ that git does."""
    plain = name.split("\t")[0].strip()
    return plain[2:] if plain.startswith(("a/", "b/")) else plain
