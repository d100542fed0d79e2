"""What reaches the terminal of what others wrote."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents_app.terminal.palette import Palette
from agents_app.terminal.rendering import Rendering
from agents_app.terminal.safe_text import is_unsafe, json_visible, one_line, visible
from agents_app.terminal.screen import Screen

PLAIN = Palette(enabled=False)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Hello, мир", "Hello, мир"),
        ("a\n\tb", "a\n\tb"),
        ("\x1b[31mred\x1b[0m", "␛[31mred␛[0m"),
        ("\x1b]0;title\x07", "␛]0;title␇"),
        ("\x9b2J", "<U+009B>2J"),
        ("back\x08\x7f", "back␈␡"),
        ("over\rwritten", "over␍written"),
        ("windows\r\nlines\r", "windows\nlines"),
        ("\u202egnp.exe", "<U+202E>gnp.exe"),
        ("\u2066a\u2069 \u200f", "<U+2066>a<U+2069> <U+200F>"),
        ("in\u200bvisible\ufeff", "in<U+200B>visible<U+FEFF>"),
        ("\u2028\u2029", "<U+2028><U+2029>"),
        ("\U000e0041", "<U+E0041>"),
        ("\ud800", "<U+D800>"),
        ("👩\u200d💻 é 中", "👩\u200d💻 é 中"),
        ("no\u00a0break", "no\u00a0break"),
    ],
)
def test_control_direction_and_invisible_characters_are_shown_as_signs(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(st.text())
def test_nothing_unsafe_is_left_and_everything_can_be_encoded(text: str) -> None:
    shown = visible(text)
    assert not any(is_unsafe(char) for char in shown if char not in "\n\t")
    shown.encode()


@given(st.recursive(st.text() | st.integers() | st.none(), lambda inner: st.dictionaries(st.text(), inner)))
def test_json_for_people_reads_back_as_it_was_and_hides_nothing(value: object) -> None:
    text = json_visible(value)
    assert json.loads(text) == value
    assert not any(is_unsafe(char) for char in text if char != "\n")


def test_a_label_stays_on_one_line_and_is_cut() -> None:
    assert one_line("a\n b\x1b\u2028c") == "a b␛ c"
    assert one_line("x" * 300) == "x" * 199 + "…"


def rendered(*frames: dict[str, object], palette: Palette = PLAIN) -> str:
    rendering = Rendering(palette)
    return "".join(rendering.chunk(frame) for frame in frames)


def delta(token: str) -> dict[str, object]:
    return {"type": "assistant_message", "token": token, "is_final": False}


def closing(text: str, *, token: str = "", is_final: bool = True) -> dict[str, object]:
    return {"type": "assistant_message", "token": token, "content": text, "is_final": is_final}


SWITCH = {
    "type": "agent_switched",
    "content": "Switched",
    "metadata": {"from_agent": "orchestrator", "to_agent": "coder", "reason": "it is code"},
}
ERROR = {"type": "error", "content": "It broke", "error": "It broke", "code": "LLM_ERROR", "is_final": True}


@pytest.mark.parametrize(
    ("frames", "shown"),
    [
        ([delta("Hel"), delta("lo"), closing("Hello")], "Hello\n"),
        ([delta("Hello\n"), closing("Hello\n")], "Hello\n"),
        ([closing("Whole", token="Whole")], "Whole\n"),
        ([delta("Hel"), closing("Hello")], "Hello\n"),
        ([delta("Other"), closing("Hello")], "Other\nHello\n"),
        ([closing("")], ""),
        ([delta("one"), closing("one", is_final=False), delta("two"), closing("two")], "one\ntwo\n"),
        ([SWITCH, delta("Hi")], "→ coder: it is code\nHi"),
        ([delta("Hi"), SWITCH], "Hi\n→ coder: it is code\n"),
        ([{"type": "agent_switched", "content": "Now debug"}], "→ Now debug\n"),
        ([delta("half"), ERROR], "half\n✗ It broke [LLM_ERROR]\n"),
        ([delta("half"), ERROR, closing("new")], "half\n✗ It broke [LLM_ERROR]\nnew\n"),
        ([{"type": "error"}], "✗ The server reports an error.\n"),
        ([{"type": "error", "content": "Stopped.", "code": "CANCELLED"}], "■ Stopped.\n"),
        ([{"type": "tool_call", "tool_name": "read_file", "arguments": {"path": "a.md"}}], "• read_file a.md\n"),
        ([{"type": "tool_call", "tool_name": "x", "arguments": None}], "• x\n"),
        ([{"type": "of the future"}, {}], ""),
        ([{"type": "assistant_message", "token": 5}], ""),
    ],
)
def test_chunks_become_text_once(frames: list[dict[str, object]], shown: str) -> None:
    assert rendered(*frames) == shown


@given(st.text(st.characters(exclude_categories=["C", "Z"])), st.lists(st.integers(0, 40)))
def test_however_the_text_is_cut_it_is_shown_once(text: str, cuts: list[int]) -> None:
    places = sorted({0, *(cut % (len(text) + 1) for cut in cuts)})
    pieces = [text[start:end] for start, end in zip(places, [*places[1:], None], strict=True)]
    assert rendered(*map(delta, pieces[:-1]), closing(text)).rstrip("\n") == text


HOSTILE = "\x1b]52;c;aGk=\x07\u202e"


@pytest.mark.parametrize(
    "frame",
    [
        delta(HOSTILE),
        closing(HOSTILE),
        {"type": "error", "content": HOSTILE, "code": HOSTILE},
        {"type": "agent_switched", "metadata": {"to_agent": HOSTILE, "reason": HOSTILE}},
        {"type": "agent_switched", "content": HOSTILE},
        {"type": "tool_call", "tool_name": HOSTILE, "arguments": {"path": HOSTILE}},
    ],
)
def test_no_field_of_a_chunk_carries_an_escape_sequence_to_the_terminal(frame: dict[str, object]) -> None:
    shown = rendered(frame)
    assert shown
    assert not any(is_unsafe(char) for char in shown if char != "\n")


def test_colours_are_ours_alone() -> None:
    shown = rendered(ERROR | {"content": "\x1b[0mIt broke"}, palette=Palette(enabled=True))
    assert shown.startswith("\x1b[31m✗ ␛[0mIt broke\x1b[0m")


class Teletype(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "environment", "plain", "coloured"),
    [
        (Teletype(), {"TERM": "xterm"}, False, True),
        (Teletype(), {"TERM": "xterm"}, True, False),
        (Teletype(), {"TERM": "dumb"}, False, False),
        (Teletype(), {"TERM": "xterm", "NO_COLOR": "1"}, False, False),
        (Teletype(), {"TERM": "xterm", "NO_COLOR": ""}, False, True),
        (io.StringIO(), {"TERM": "xterm"}, False, False),
    ],
)
def test_colours_only_where_they_are_wanted(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, environment: dict[str, str], plain: bool, coloured: bool
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert Palette.of(stream, plain=plain).enabled is coloured


def test_a_hint_is_taken_back_by_whatever_comes_next() -> None:
    stream = Teletype()
    screen = Screen(stream, Palette(enabled=True))
    screen.hint("…")
    screen.hint("…")
    screen.chunk(delta("Hi"))
    screen.hint("never in the middle of a line")
    assert stream.getvalue() == "\x1b[2m…\x1b[0m\r\x1b[KHi"


def test_a_prompt_begins_on_a_line_of_its_own() -> None:
    stream = io.StringIO()
    screen = Screen(stream, PLAIN)
    screen.hint("not on a pipe")
    screen.chunk(delta("Hi"))
    screen.fresh_line()
    screen.fresh_line()
    screen.failure("\x1bno")
    assert stream.getvalue() == "Hi\n✗ ␛no\n"
