"""Text of others made safe to print: no escape sequence and no invisible sign of a model reaches the terminal."""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

UNSAFE_CATEGORIES = {"Cc", "Cf", "Cs", "Zl", "Zp"}
# Emoji and several scripts are spelt with the two joiners; on their own they move nothing.
JOINERS = {"\u200c", "\u200d"}
CONTROL_PICTURES = 0x2400


def visible(text: str, *, keep: str = "\n\t") -> str:
    """The same text with every control, direction and format character shown as a sign for it."""
    text = re.sub(r"\r(?=\n|\Z)", "", text)
    if text.isprintable():
        return text
    return "".join(_sign(char) if is_unsafe(char) and char not in keep else char for char in text)


def one_line(text: str, limit: int = 200) -> str:
    """`text` safe, on one line, and cut at `limit` characters."""
    line = visible(" ".join(text[: limit * 4].split()), keep="")
    return line if len(line) <= limit else line[: limit - 1] + "…"


def json_visible(value: Any, *, indent: int | None = 2) -> str:
    """JSON that reads back as `value`, with everything invisible written as an escape."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return "".join(json.dumps(char)[1:-1] if is_unsafe(char) and char != "\n" else char for char in text)


def is_unsafe(char: str) -> bool:
    return not char.isprintable() and char not in JOINERS and unicodedata.category(char) in UNSAFE_CATEGORIES


def _sign(char: str) -> str:
    code = ord(char)
    if code < 0x20:
        return chr(CONTROL_PICTURES + code)
    return "␡" if code == 0x7F else f"<U+{code:04X}>"
