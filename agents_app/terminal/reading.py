"""Tools that only read: they run without asking, inside the folder, bounded in entries and bytes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from wcmatch import glob

from agents_app.terminal.folder import Folder, ToolFailed, failures_named
from agents_app.terminal.toolbox import tool

MAX_ENTRIES = 2_000
MAX_SCANNED = 100_000
BINARY_PROBE_BYTES = 8_192
WIDE_ENCODINGS = ("utf-16", "utf_16", "utf16", "utf-32", "utf_32", "utf32")
# Folders that are never walked into: large, and nobody's source.
UNWALKED = {".git", ".hg", ".svn", "node_modules", "__pycache__", ".venv", "venv", ".mypy_cache", ".ruff_cache", ".tox"}
GLOB_FLAGS = glob.GLOBSTAR | glob.DOTGLOB | glob.MATCHBASE


@tool(reads_only=True)
def read_file(
    folder: Folder, /, path: str, encoding: str = "utf-8", start_line: int | None = None, end_line: int | None = None
) -> str:
    text = decoded(folder.read(path), path, encoding)
    if start_line is None and end_line is None:
        return text
    return _lines(text, start_line or 1, end_line)


@tool(reads_only=True)
def list_files(
    folder: Folder,
    /,
    path: str = ".",
    recursive: bool = False,
    include_hidden: bool = False,
    pattern: str | None = None,
) -> str:
    start = folder.locate(path)
    if not start.is_dir():
        raise ToolFailed(f"{path!r} is not a folder")
    with failures_named(path):
        found = islice(walk(start, recursive=recursive, include_hidden=include_hidden), MAX_SCANNED)
        names = [name for place, name in found if pattern is None or matches(place.relative_to(start), pattern)]
    more = f"\n… and {len(names) - MAX_ENTRIES} more" if len(names) > MAX_ENTRIES else ""
    return "\n".join(names[:MAX_ENTRIES]) + more or "(nothing)"


def walk(start: Path, *, recursive: bool, include_hidden: bool) -> Iterator[tuple[Path, str]]:
    """Entries below `start` in order, each with its name: a folder ends in a slash; links are not followed."""
    for base, folders, files in os.walk(start):
        shown = [name for name in folders + files if include_hidden or not name.startswith(".")]
        for name in sorted(shown):
            place = Path(base, name)
            yield place, place.relative_to(start).as_posix() + ("/" if name in folders else "")
        folders[:] = sorted(name for name in folders if name in shown and name not in UNWALKED and recursive)


def matches(relative: Path, pattern: str) -> bool:
    """Whether a glob means this path; one without a slash is about the last part of the path."""
    return bool(glob.globmatch(relative.as_posix(), pattern, flags=GLOB_FLAGS))


def decoded(data: bytes, path: str, encoding: str = "utf-8") -> str:
    if b"\0" in data[:BINARY_PROBE_BYTES] and not encoding.lower().startswith(WIDE_ENCODINGS):
        raise ToolFailed(f"{path!r} is a binary file of {len(data)} bytes")
    try:
        return data.decode(encoding)
    except UnicodeError as fault:
        raise ToolFailed(f"{path!r} is not {encoding} text: name its encoding") from fault
    except LookupError as fault:
        raise ToolFailed(f"There is no text encoding {encoding!r}") from fault


def _lines(text: str, first: int, last: int | None) -> str:
    lines = text.removesuffix("\n").split("\n")
    if first < 1 or first > len(lines) or (last is not None and last < first):
        raise ToolFailed(f"No lines {first} to {last or 'the end'}: the file has {len(lines)}")
    return "\n".join(lines[first - 1 : last])
