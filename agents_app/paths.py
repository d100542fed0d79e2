"""Paths as models write them: what no path may hold, and which paths an agent with file rules may write.

Imports nothing of ours. Nothing here touches a disk: the client resolves links and keeps to its own workspace.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from wcmatch import glob

MAX_PATH_LENGTH = 4096
# Rules allow, so they match exactly: `*.md` is not `X.MD`, on every platform. `**` also means "no folder at all".
RULE_FLAGS = glob.GLOBSTAR | glob.DOTGLOB | glob.CASE | glob.FORCEUNIX
HIDDEN_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})
REORDERING = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})
PERCENT_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")


class PathRefused(ValueError):
    """The text is no path that may be used here; says why, without repeating it."""


def check_characters(path: str) -> str:
    """The path itself, without control characters, line separators or text-direction overrides: those would let it
    mean one thing to the person who approves it and another to the disk."""
    for char in path:
        if unicodedata.category(char) in HIDDEN_CATEGORIES or unicodedata.bidirectional(char) in REORDERING:
            raise PathRefused("it holds a control character")
    return path


def normalise(path: str) -> str:
    """A clean path below the project's root: relative, `/` between segments, no `.` or `..` left.

    Stricter than any one file system, so that no client can read it as another file: backslashes, drives and
    streams (`:`), percent-escapes, `~`, and segments that Windows would trim are refused, also in full-width letters.
    """
    if len(path) > MAX_PATH_LENGTH:
        raise PathRefused(f"it is longer than {MAX_PATH_LENGTH} characters")
    check_characters(path)
    _segments(unicodedata.normalize("NFKC", path))
    segments = [segment for segment in _segments(path) if segment != "."]
    if not segments:
        raise PathRefused("it names no file")
    return "/".join(segments)


def matches(path: str, rules: Iterable[str]) -> bool:
    """Whether a normalised path matches one of the globs, segment by segment."""
    return any(glob.globmatch(path, rule, flags=RULE_FLAGS) for rule in rules)


def _segments(path: str) -> list[str]:
    if path.startswith(("/", "~")):
        raise PathRefused("it must be relative to the project's root")
    if "\\" in path or ":" in path:
        raise PathRefused("it must use / between segments, and neither \\ nor :")
    if PERCENT_ESCAPE.search(path):
        raise PathRefused("it must be written plainly, without percent-escapes")
    segments = path.split("/")
    for segment in segments:
        _check_segment(segment)
    return segments


def _check_segment(segment: str) -> None:
    if not segment:
        raise PathRefused("it holds an empty segment")
    if segment == "..":
        raise PathRefused("it holds a .. segment")
    if segment != "." and segment.endswith((".", " ")):
        raise PathRefused("no segment may end with a dot or a space")
