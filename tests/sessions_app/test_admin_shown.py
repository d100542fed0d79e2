"""Text as the admin shows it: nothing hides, nothing reorders, nothing grows without end."""

from __future__ import annotations

import unicodedata
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone, translation
from hypothesis import given
from hypothesis import strategies as st

from sessions_app import events
from sessions_app.admin import shown, timeline

BIDI = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("plain\ttext\nof two lines", "plain\ttext\nof two lines"),
        ("dos\r\nlines", "dos\nlines"),
        ("over\rwritten", "over⟦U+000D⟧written"),
        ("photo_\u202egnp.exe", "photo_⟦U+202E⟧gnp.exe"),
        ("\u2066isolated\u2069", "⟦U+2066⟧isolated⟦U+2069⟧"),
        ("zero\u200bwidth", "zero⟦U+200B⟧width"),
        ("\x1b[31mred", "⟦U+001B⟧[31mred"),
        ("nul\x00", "nul⟦U+0000⟧"),
        ("line\u2028separator", "line⟦U+2028⟧separator"),
        ("tag\U000e0041", "tag⟦U+E0041⟧"),
        ("half \ud800", "half ⟦U+D800⟧"),
        ("👨\u200d👩\u200d👧 ❤\ufe0f\u200d🔥", "👨\u200d👩\u200d👧 ❤\ufe0f\u200d🔥"),
        ("a\u200db", "a⟦U+200D⟧b"),
        ("ё й е\u0301", "ё й е\u0301"),
        (None, "None"),
    ],
)
def test_hidden_characters_are_written_out_and_letters_are_left_alone(text: object, seen: str) -> None:
    assert shown.visible(text) == seen


@given(st.text())
def test_no_text_keeps_a_character_that_moves_or_hides_others(text: str) -> None:
    seen = shown.visible(text)
    assert not [char for char in seen if unicodedata.bidirectional(char) in BIDI]
    assert not [char for char in seen if unicodedata.category(char) in ("Cc", "Cs") and char not in "\n\t"]


def test_a_long_text_ends_with_how_much_is_missing() -> None:
    assert shown.cut("abcdef", 6) == "abcdef"
    assert shown.cut("abcdefg", 6) == "abcdef\n… 1 more character"
    assert shown.cut("abc", 3, length=1003) == "abc\n… 1000 more characters"


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        ({"path": "a.py"}, [("path", '"a.py"')]),
        ({"content": "one\ntwo"}, [("content", "one\ntwo")]),
        ({"line": 5, "text": "5"}, [("line", "5"), ("text", '"5"')]),
        ({"\u202ekey": None}, [("⟦U+202E⟧key", "null")]),
        ("{broken", [("", '"{broken"')]),
        ({}, []),
    ],
)
def test_arguments_are_shown_by_name_and_texts_apart_from_numbers(value: Any, seen: list[tuple[str, str]]) -> None:
    assert shown.arguments(value) == seen


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ('{"a":1}', '{\n  "a": 1\n}'),
        ("{not json", "{not json"),
        ("plain", "plain"),
        ("[" * 100_000, "[" * 100_000),
        ("", ""),
    ],
)
def test_a_result_is_laid_out_only_when_it_is_json(text: str, seen: str) -> None:
    assert shown.pretty_if_json(text) == seen


@pytest.mark.parametrize(
    ("seconds", "seen"),
    [
        (0, "0 ms"), (0.35, "350 ms"), (1.24, "1.2 s"), (59.9, "59.9 s"), (60, "1 min 0 s"), (250, "4 min 10 s"),
        (7_500, "2 h 5 min"), (90_000, "1 d 1 h"),
    ],
)  # fmt: skip
def test_lengths_of_time_are_read_in_two_units(seconds: float, seen: str) -> None:
    assert shown.duration(seconds) == seen


def test_moments_are_told_by_how_long_ago_they_were() -> None:
    assert shown.ago(timezone.now()) == "just now"
    assert shown.ago(timezone.now() - timedelta(hours=2, minutes=5)) == "2\xa0hours ago"
    with translation.override("ru"):
        assert shown.ago(timezone.now() - timedelta(hours=2, minutes=5)) == "2\xa0часа назад"


def test_every_event_of_the_log_has_words() -> None:
    types = {value for name, value in vars(events).items() if name.isupper() and isinstance(value, str)}
    assert types - set(timeline.WORDS) == set()
    assert timeline.words("Newer\u202e") == ("Newer⟦U+202E⟧", "quiet")


@pytest.mark.parametrize(
    ("data", "seen"),
    [
        ({"from_agent": "debug", "to_agent": "coder", "reason": "a\nfix"}, "debug → coder · a fix"),
        ({"tool_name": "write_file", "decision": "approve", "who": "ivan"}, "write_file · approve · ivan"),
        ({"agent": "coder", "duration_ms": 1200}, "coder · 1.2 s"),
        ({"error": "\u202eevil"}, "⟦U+202E⟧evil"),
        ({}, ""),
        ([1], ""),
    ],
)
def test_an_event_is_told_in_a_few_words(data: Any, seen: str) -> None:
    assert timeline.detail(data) == seen
