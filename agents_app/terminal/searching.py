"""search_in_code. A pattern of the model may take for ever to match, so patterns run in a process that can be ended."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated

from pydantic import Field

from agents_app.terminal.folder import Folder, ToolFailed, read_regular
from agents_app.terminal.reading import BINARY_PROBE_BYTES, MAX_SCANNED, matches, walk
from agents_app.terminal.toolbox import tool

MAX_FILES = 10_000
MAX_BYTES = 64 * 1024 * 1024
MAX_FILE_BYTES = 1024 * 1024
MAX_LINE_CHARACTERS = 300
PATTERN_SECONDS = 20
PROJECT = Path(__file__).parents[2]
CHILD = "from agents_app.terminal.searching import answer_parent; answer_parent()"


@tool(reads_only=True)
def search_in_code(
    folder: Folder,
    /,
    query: Annotated[str, Field(min_length=1, max_length=1_000)],
    path: str = ".",
    file_pattern: str | None = None,
    case_sensitive: bool = False,
    regex: bool = False,
    max_results: Annotated[int, Field(ge=1, le=1_000)] = 50,
) -> str:
    start = folder.locate(path)
    if not start.exists():
        raise ToolFailed(f"{path!r} does not exist")
    files = list(islice(candidates(start, file_pattern), MAX_FILES))
    expression = _expression(query, regex=regex)
    find = _find_in_child if regex else find_lines
    found = find(files, str(folder.root), expression.pattern, 0 if case_sensitive else int(re.IGNORECASE), max_results)
    return "\n".join(found) or "(nothing found)"


def candidates(start: Path, file_pattern: str | None) -> Iterator[Path]:
    """Files at or below `start`; hidden ones and links are left out."""
    if start.is_file():
        yield start
        return
    for place, name in islice(walk(start, recursive=True, include_hidden=False), MAX_SCANNED):
        wanted = not name.endswith("/") and (not file_pattern or matches(Path(name), file_pattern))
        if wanted and not place.is_symlink():
            yield place


def find_lines(files: list[Path], root: str, pattern: str, flags: int, limit: int) -> list[str]:
    """`path:number: line` for the first `limit` lines that match, and a word about what was left out."""
    expression, budget, found = re.compile(pattern, flags), MAX_BYTES, list[str]()
    for place in files:
        text = _text(place)
        budget -= len(text)
        if budget < 0:
            return [*found, f"… stopped after {MAX_BYTES} bytes: name a path or a file pattern"]
        for number, line in enumerate(text.splitlines(), start=1):
            if expression.search(line):
                found.append(f"{place.relative_to(root).as_posix()}:{number}: {line.strip()[:MAX_LINE_CHARACTERS]}")
            if len(found) > limit:
                return [*found[:limit], f"… stopped after {limit} results"]
    return found


def answer_parent() -> None:
    """The child process: a request on standard input, the lines on standard output."""
    asked = json.load(sys.stdin)
    json.dump(find_lines([Path(name) for name in asked.pop("files")], **asked), sys.stdout)


def _find_in_child(files: list[Path], root: str, pattern: str, flags: int, limit: int) -> list[str]:
    asked = {"files": [str(place) for place in files], "root": root, "pattern": pattern, "flags": flags, "limit": limit}
    try:
        done = subprocess.run(  # noqa: S603  our own interpreter and our own code
            [sys.executable, "-c", CHILD],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            cwd=PROJECT,
            timeout=PATTERN_SECONDS,
            start_new_session=True,
            check=True,
        )
    except subprocess.TimeoutExpired as fault:
        raise ToolFailed(f"The pattern took longer than {PATTERN_SECONDS} seconds: use a simpler one") from fault
    except subprocess.CalledProcessError as fault:
        raise ToolFailed("The search failed") from fault
    found: list[str] = json.loads(done.stdout)
    return found


def _expression(query: str, *, regex: bool) -> re.Pattern[str]:
    try:
        return re.compile(query if regex else re.escape(query))
    except (re.error, OverflowError, RecursionError) as fault:
        raise ToolFailed(f"{query!r} is no regular expression: {fault}") from fault


def _text(place: Path) -> str:
    """What can be searched of a file: nothing of a binary, a huge or an unreadable one."""
    try:
        data = read_regular(place, MAX_FILE_BYTES)
    except (OSError, ToolFailed):
        return ""
    return "" if b"\0" in data[:BINARY_PROBE_BYTES] else data.decode("utf-8", "replace")
