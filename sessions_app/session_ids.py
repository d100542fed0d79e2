"""What a session may be called. Imports nothing of ours."""

from __future__ import annotations

import unicodedata

MAX_CHARACTERS = 255
SLASH = "\udc2f"  # an encoded slash, while a route is looked for: what no id holds and no path decodes to


def from_path(text: str) -> str:
    """The id that a part of a routed path names."""
    return text.replace(SLASH, "/")


def is_session_id(text: str) -> bool:
    """Any non-empty text without control characters (C0, DEL, C1) and lone surrogates: no database refuses it."""
    if not 0 < len(text) <= MAX_CHARACTERS:
        return False
    if text.isascii():  # as nearly all are: there, what cannot be printed is a control character
        return text.isprintable()
    return all(unicodedata.category(letter) not in ("Cc", "Cs") for letter in text)
