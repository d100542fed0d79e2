"""How stored text is shown to people: always as text, and nothing in it hides or reorders itself. Imports nothing of
ours."""

from __future__ import annotations

import json
import re
import unicodedata
from datetime import datetime
from typing import Any

from django.utils import timezone
from django.utils.timesince import timesince
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

# Control characters but tab and newline, bidirectional marks and overrides, zero-width and tag characters, line
# separators, fillers that look like spaces, lone surrogates.
UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u115f\u1160\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff"
    "\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff\ud800-\udfff]"
)
JOINER = "\u200d"


def visible(value: object) -> str:
    """The same text with every character that shows nothing, or moves others, written out as its number."""
    text = str(value).replace("\r\n", "\n")
    return UNSEEN.sub(_written_out, text)


def _written_out(match: re.Match[str]) -> str:
    if match[0] == JOINER and _joins_emoji(match.string, match.start()):
        return JOINER
    return f"⟦U+{ord(match[0]):04X}⟧"


def _joins_emoji(text: str, at: int) -> bool:
    before, after = text[:at].rstrip("\ufe0f")[-1:], text[at + 1 : at + 2]
    return all(char and unicodedata.category(char) in ("So", "Sk") for char in (before, after))


def cut(text: str, limit: int, *, length: int | None = None) -> str:
    """At most `limit` characters, then how many are missing; `length` is the whole text's where `text` is a part."""
    missing = (len(text) if length is None else length) - limit
    if missing <= 0:
        return text
    more = ngettext("… {count} more character", "… {count} more characters", missing).format(count=missing)
    return f"{text[:limit]}\n{more}"


def pretty(value: Any, limit: int = 20_000) -> str:
    """JSON as people read it, of at most `limit` characters."""
    return visible(cut(json.dumps(value, ensure_ascii=False, indent=2, default=str), limit))


def pretty_if_json(text: str) -> str:
    """A tool's result: laid out when it is a JSON object or list, else as it is."""
    if text[:1] not in ("{", "["):
        return visible(text)
    try:
        return pretty(json.loads(text), limit=len(text) * 4)
    except (ValueError, RecursionError):
        return visible(text)


def arguments(value: Any) -> list[tuple[str, str]]:
    """A call's arguments, name by name; a text of several lines as those lines, everything else as JSON."""
    if not isinstance(value, dict):
        return [("", pretty(value))]
    return [(visible(name), _argument(part)) for name, part in value.items()]


def _argument(part: Any) -> str:
    if isinstance(part, str) and "\n" in part:
        return visible(cut(part, 20_000))
    return pretty(part)


def duration(seconds: float) -> str:
    """A length of time in the two units that matter, such as 350 ms, 1.2 s, 4 min 10 s."""
    if seconds < 1:
        return _("{count} ms").format(count=round(seconds * 1000))
    if seconds < 60:
        return _("{count} s").format(count=f"{seconds:.1f}")
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return _("{minutes} min {seconds} s").format(minutes=minutes, seconds=rest)
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return _("{hours} h {minutes} min").format(hours=hours, minutes=minutes)
    return _("{days} d {hours} h").format(days=hours // 24, hours=hours % 24)


def ago(moment: datetime) -> str:
    if (timezone.now() - moment).total_seconds() < 60:
        return _("just now")
    return _("{time} ago").format(time=timesince(moment, depth=1))
