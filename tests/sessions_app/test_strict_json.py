"""JSON from strangers: what is taken, what is refused, what is written out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions_app import strict_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**40), 10**40) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("aб\x00\u2028", max_size=3), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(VALUES)
def test_what_is_written_is_read_back(value: Any) -> None:
    text = strict_json.dumps(value)
    assert text.isascii()
    assert len(text.splitlines()) == 1
    assert strict_json.loads(text.encode()) == strict_json.loads(strict_json.dumps_text(value)) == value
    assert strict_json.dumps_bytes(value) == text.encode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"{} {}",
        b"NaN",
        b"[Infinity]",
        b"-Infinity",
        b"1e999",
        b"-1e999",
        b"1" * 400,
        b"1" * 5000,
        b"12345678901234567890e300",
        b'"\\ud800"',
        b'"\\udc00\\ud800"',
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b"\xef\xbb\xbf{}",
        b"'text'",
        b"[1,]",
        b"[" * 201 + b"]" * 201,
        b"[" * 100_000,
        b'{"a":' * 201 + b"1" + b"}" * 201,
        "\ud800",
    ],
    ids=lambda body: repr(body[:12]),
)
def test_what_is_no_strict_json_is_refused_in_a_line(body: bytes | str) -> None:
    with pytest.raises(ValueError) as caught:
        strict_json.loads(body)
    assert 0 < len(str(caught.value)) < 200
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b"123456789012345678901234567890", 123456789012345678901234567890),
        (b"-9223372036854775809", -(2**63) - 1),
        (b"18446744073709551616", 2**64),
        (b'{"a": 1, "a": 2}', {"a": 2}),
        (b'"12345678901234567890123"', "12345678901234567890123"),
        (b"0.12345678901234567890123", 0.12345678901234567890123),
        (b'"\\ud83d\\ude42"', "🙂"),
        (b" null ", None),
    ],
)
def test_what_is_read_is_exact(body: bytes, value: Any) -> None:
    assert strict_json.loads(body) == value
    assert type(strict_json.loads(body)) is type(value)


def test_two_hundred_levels_are_read() -> None:
    assert json.dumps(strict_json.loads(b"[" * 200 + b"]" * 200)) == "[" * 200 + "]" * 200
    assert strict_json.loads(b"[" + b"[]," * 300 + b"[]]") == [[]] * 301


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_what_is_no_json_is_not_written(number: float) -> None:
    for write in (strict_json.dumps, strict_json.dumps_text):
        with pytest.raises(ValueError):
            write([number])


@pytest.mark.parametrize(
    ("value", "cleaned"),
    [
        ("a\x00b", "a\\u0000b"),
        ({"k\x00": ["\x00", {"x": "\x00"}], "n": 1}, {"k\\u0000": ["\\u0000", {"x": "\\u0000"}], "n": 1}),
        ([None, 1.5, True, "\x00"], [None, 1.5, True, "\\u0000"]),
    ],
)
def test_nul_is_written_out(value: Any, cleaned: Any) -> None:
    assert strict_json.clean(value) == cleaned


def texts(value: Any) -> list[str]:
    """Every string in a value, keys too."""
    if isinstance(value, dict):
        return texts([*value.keys(), *value.values()])
    if isinstance(value, list):
        return [text for item in value for text in texts(item)]
    return [value] if isinstance(value, str) else []


@given(VALUES)
def test_clean_returns_the_same_object_when_there_is_no_nul(value: Any) -> None:
    cleaned = strict_json.clean(value)
    assert (cleaned is value) == (not any("\x00" in text for text in texts(value)))
    assert not any("\x00" in text for text in texts(cleaned))
