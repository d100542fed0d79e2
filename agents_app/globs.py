"""Path globs for rules: matched in linear time by RE2, whatever the glob and the path are. Imports `paths`, `commands`.

A path that a rule is to allow must be a clean one. A path that a rule is about to ask for or to forbid is taken in
every way that some disk could read it.
"""

from __future__ import annotations

import posixpath
import unicodedata
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import re2

from agents_app import paths
from agents_app.commands import Match


@dataclass(frozen=True, slots=True)
class PathGlob:
    """`*` within a segment, `**` for any number of segments, `?`, `[abc]`; a folder's glob means the folder, too."""

    exact: Any
    loose: Any
    below_anything: Any

    @classmethod
    def of(cls, text: str) -> PathGlob:
        plain, folded = _expression(text), _expression(text.casefold())
        return cls(_compiled(plain), _compiled(folded), _compiled(f"(?:.*/)?{folded}"))

    def allows(self, path: str) -> bool:
        """Whether this very path matches; never one that has to be interpreted."""
        clean = strict(path)
        return clean is not None and self.exact.fullmatch(clean) is not None

    def suspects(self, path: str) -> Match:
        """Whether any reading of the path matches."""
        for spelling in dict.fromkeys((path, unquote(path))):
            text, anywhere = _reading(spelling)
            if (self.below_anything if anywhere else self.loose).fullmatch(text) is not None:
                return Match.YES
        return Match.NO if strict(path) is not None else Match.MAYBE


def strict(path: str) -> str | None:
    """The clean path below the project's root, which is "" itself; None for any other."""
    if path.strip("/") in (".", "") and not path.startswith("/"):
        return ""
    try:
        return paths.normalise(path.removesuffix("/"))
    except paths.PathRefused:
        return None


def _reading(path: str) -> tuple[str, bool]:
    """The path with its detours taken, its case folded, and whether it may lie anywhere: its root is unknown."""
    text = unicodedata.normalize("NFKC", path).replace("\\", "/")
    drive, colon, rest = text.partition(":")
    if colon and len(drive) == 1:
        text = f"/{rest}"
    segments = [segment.partition(":")[0].rstrip(". ") or segment[:2] for segment in text.split("/")]
    normal = posixpath.normpath("/".join(segments)) if any(segments) else "."
    anywhere = normal.startswith(("/", "..", "~"))
    return ("" if normal == "." else normal.lstrip("/").casefold()), anywhere


def _expression(glob: str) -> str:
    segments = [segment for segment in glob.strip().split("/") if segment not in ("", ".")]
    found, first = "", True
    for place, segment in enumerate(segments):
        last = place == len(segments) - 1
        if segment == "**":
            if first:
                found += ".*" if last else "(?:[^/]+/)*"
            else:
                found += "(?:/.*)?" if last else "(?:/[^/]+)*"
            continue
        found += _segment(segment) if first else f"/{_segment(segment)}"
        first = False
    return found


def _segment(text: str) -> str:
    found, place = "", 0
    while place < len(text):
        char = text[place]
        end = text.find("]", place + 2)
        if char == "[" and end > 0:
            inner = text[place + 1 : end]
            negated = inner[0] in "!^"
            found += f"[{'^/' if negated else ''}{_class(inner[negated:])}]"
            place = end
        else:
            found += {"*": "[^/]*", "?": "[^/]"}.get(char) or re2.escape(char)
        place += 1
    return found


def _class(inner: str) -> str:
    return "".join(char if char == "-" else re2.escape(char) for char in inner)


def _compiled(expression: str) -> Any:
    options = re2.Options()
    options.log_errors, options.never_capture, options.dot_nl = False, True, True
    return re2.compile(expression, options)


def problem(glob: str) -> str:
    """Why no path can match this glob, or "": what `paths.normalise` refuses in a path, and a range that is none."""
    try:
        paths.normalise(glob)
        PathGlob.of(glob)
    except paths.PathRefused as refusal:
        return str(refusal)
    except re2.error:
        return "it holds a range that is none"
    return ""
