"""JSON from strangers, read strictly, and JSON for everybody, written in ASCII. Imports nothing of ours.

What passes `loads` can be stored and sent on: no NaN, no infinity, no lone surrogate, no broken UTF-8, no depth that
breaks the next reader. Integers stay exact up to 308 digits, beyond is refused.
"""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

MAX_DEPTH = 200
# orjson turns integers beyond 64 bits into floats; the smallest of them has 19 digits.
LONG_NUMBER = re.compile(rb"[0-9]{19}")
_COMPACT = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
NUL, WRITTEN_NUL, WRITTEN_NUL_BYTES = "\x00", "\\u0000", b"\\u0000"


def loads(body: bytes | bytearray | memoryview | str) -> Any:
    """The value of a JSON text; raises ValueError with a short reason that is fit for the sender."""
    raw = _as_bytes(body)
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"not valid JSON: {error.msg} at position {error.pos}") from None
    _check_depth(raw, value)
    return json.loads(raw) if LONG_NUMBER.search(raw) else value


def _as_bytes(body: bytes | bytearray | memoryview | str) -> bytes:
    if isinstance(body, str):
        try:
            return body.encode()
        except UnicodeEncodeError:
            raise ValueError("not valid JSON: a lone surrogate") from None
    return bytes(body)


def _check_depth(raw: bytes, value: Any) -> None:
    if raw.count(b"[") + raw.count(b"{") <= MAX_DEPTH:
        return
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [child for item in level for child in _children(item)]
        if not level:
            return
    raise ValueError(f"not accepted: nested deeper than {MAX_DEPTH} levels")


def _children(item: Any) -> list[Any]:
    """The containers directly inside a value."""
    inside = item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
    return [child for child in inside if isinstance(child, dict | list)]


def dumps(value: Any) -> str:
    """Compact, ASCII only (readers split lines at U+2028 and the like); raises ValueError for NaN and infinity."""
    return _COMPACT.encode(value)


def dumps_text(value: Any) -> str:
    """JSON for a model to read: its letters as they are. What `loads` gave always passes."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def dumps_bytes(value: Any) -> bytes:
    return dumps(value).encode("ascii")


def canonical(value: Any) -> bytes:
    """One text for a value however it was stored: keys in order, whole numbers as integers (PostgreSQL turns 1e2 into
    100, and -0.0 into 0), ASCII."""
    return json.dumps(_plain_numbers(value), sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def _plain_numbers(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _plain_numbers(item) for key, item in value.items()}
    return [_plain_numbers(item) for item in value] if isinstance(value, list) else value


def clean(value: Any) -> Any:
    """The same value, NUL characters written out as the six characters \\u0000: PostgreSQL stores none anywhere.

    Returns the very same object when there is none.
    """
    try:
        if WRITTEN_NUL_BYTES not in orjson.dumps(value):
            return value
    except TypeError:  # beyond what orjson writes: long numbers, half characters, other types
        pass
    return _clean(value)


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace(NUL, WRITTEN_NUL) if NUL in value else value
    if isinstance(value, dict):
        cleaned = {_clean(key): _clean(item) for key, item in value.items()}
        return value if _same_pairs(value, cleaned) else cleaned
    if isinstance(value, list):
        items = [_clean(item) for item in value]
        return value if all(new is old for new, old in zip(items, value, strict=True)) else items
    return value


def _same_pairs(before: dict[Any, Any], after: dict[Any, Any]) -> bool:
    pairs = zip(before.items(), after.items(), strict=False)
    return len(before) == len(after) and all(old[0] is new[0] and old[1] is new[1] for old, new in pairs)
