"""Command lines as rules read them. Imports nothing of ours.

Nobody can tell from its text what a command will do. So there are two readings: a strict one, for rules that allow,
which takes one simple command and nothing that any shell could make more of; and a suspicious one, for rules that ask
or forbid, which looks at every part, behind every wrapper, and says when it cannot tell.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

# Separators, redirections, substitutions and escapes of POSIX shells, cmd.exe and PowerShell: inside quotes, too,
# because what quotes mean differs between them.
SPECIAL = frozenset(";&|<>()$`\\%^{}!")
SEPARATORS = ";&|()<>\n\r"
UNKNOWN = frozenset("$`*?[{%")  # a word with one of these becomes another word when it runs
WRAPPERS = frozenset(
    {
        *("sudo", "doas", "env", "nohup", "time", "nice", "ionice", "exec", "command", "builtin", "xargs", "stdbuf"),
        *("timeout", "setsid", "watch", "find", "eval", "busybox", "sh", "bash", "dash", "zsh", "ksh", "fish"),
        *("cmd", "powershell", "pwsh", "start", "call", "coproc", "if", "then", "else", "elif", "do", "while"),
        *("until", "!", "{"),
    }
)
OPAQUE = frozenset({"eval", "source", "."})
MAX_DEPTH = 4


class Match(IntEnum):
    """Whether a rule is about a call; MAYBE where nobody can tell."""

    NO = 0
    MAYBE = 1
    YES = 2


def simple(text: str) -> list[str] | None:
    """The words of one simple command; None when it is anything more, or may be."""
    if SPECIAL & set(text) or not text.isprintable():
        return None
    try:
        words = shlex.split(text)
    except ValueError:
        return None
    return words if words and "=" not in words[0] else None


def allows(text: str, prefix: str) -> bool:
    """Whether the command is nothing but one simple command that begins with the prefix, word by word."""
    words, wanted = simple(text), prefix.split()
    return words is not None and bool(wanted) and words[: len(wanted)] == wanted


@dataclass(frozen=True, slots=True)
class Part:
    """One command of a line; `anywhere`: another one may begin at any of its words."""

    words: tuple[str, ...]
    anywhere: bool = False

    def match(self, wanted: tuple[str, ...]) -> Match:
        starts = range(len(self.words)) if self.anywhere else range(1)
        return max((self._at(start, wanted) for start in starts), default=Match.NO)

    def _at(self, start: int, wanted: tuple[str, ...]) -> Match:
        words = self.words[start : start + len(wanted)]
        for place, (word, meant) in enumerate(zip(words, wanted, strict=False)):
            if UNKNOWN & set(word):
                return Match.MAYBE
            if (_program(word) if place == 0 else word.casefold()) != meant:
                return Match.NO
        return Match.YES if len(words) == len(wanted) else Match.NO


@dataclass(frozen=True, slots=True)
class Line:
    """A command line, read once for all rules."""

    parts: tuple[Part, ...]
    readable: bool

    def match(self, prefix: str) -> Match:
        """Whether any part of it begins with the prefix, however it is spelt."""
        first, *rest = prefix.split() or [""]
        wanted = (_program(first), *(word.casefold() for word in rest))
        found = max((part.match(wanted) for part in self.parts), default=Match.NO)
        return found if self.readable else max(found, Match.MAYBE)


def suspicious(text: str) -> Line:
    """All commands that may be in the text."""
    parts: list[Part] = []
    readable = True
    for spelling in dict.fromkeys((text, text.replace("\\", "/"), text.replace("^", ""))):
        readable = _read(spelling.replace("\\\n", " "), parts, MAX_DEPTH) and readable
    opaque = any(part.words and _program(part.words[0]) in OPAQUE for part in parts)
    return Line(tuple(dict.fromkeys(parts)), readable and not opaque)


def _read(text: str, parts: list[Part], depth: int) -> bool:
    """Adds the commands of the text; False when there may be others."""
    try:
        tokens = list(_tokens(text.replace("${IFS}", " ").replace("$IFS", " ").replace("`", "$(")))
        sure = True
    except ValueError:  # an open quote
        tokens, sure = text.replace('"', " ").replace("'", " ").split(), False
    for words in _split(tokens):
        while words and "=" in words[0] and words[0].partition("=")[0].isidentifier():
            words = words[1:]
        if not words:
            continue
        wrapped = _program(words[0]) in WRAPPERS
        parts.append(Part(tuple(words), wrapped))
        for word in words:
            nested = "$(" in word or (wrapped and any(char.isspace() or char in SEPARATORS for char in word))
            if nested and word != text:
                sure = (depth > 0 and _read(word.replace("$(", ";"), parts, depth - 1)) and sure
    return sure


def _tokens(text: str) -> Iterator[str]:
    lexer = shlex.shlex(text, posix=True, punctuation_chars=SEPARATORS)
    lexer.whitespace, lexer.commenters, lexer.whitespace_split = " \t", "", True
    yield from lexer


def _split(tokens: list[str]) -> Iterator[list[str]]:
    words: list[str] = []
    for token in tokens:
        if set(token) <= set(SEPARATORS):
            yield words
            words = []
        else:
            words.append(token)
    yield words


def _program(word: str) -> str:
    """The program that a word names, without its folder and ending."""
    return word.replace("\\", "/").rpartition("/")[2].casefold().removesuffix(".exe")
