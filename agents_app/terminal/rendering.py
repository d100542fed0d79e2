"""Chunks of the server as text for a terminal. Pure: a chunk goes in, the text to write comes out."""

from __future__ import annotations

from typing import Any

from agents_app.terminal.palette import Palette
from agents_app.terminal.safe_text import one_line, visible

Frame = dict[str, Any]
STOPPED = "CANCELLED"
SUBJECTS = ("path", "source", "query", "command")


class Rendering:
    """Remembers what of the open message is shown, so that each character of it is shown once."""

    def __init__(self, palette: Palette) -> None:
        self.palette = palette
        self.shown = ""
        self.mid_line = False

    def chunk(self, frame: Frame) -> str:
        match frame.get("type"):
            case "assistant_message":
                return self._message(frame)
            case "agent_switched":
                return self.line(self.palette.paint("cyan", f"→ {switch_label(frame)}"))
            case "error":
                return self._error(frame)
            case "tool_call":
                return self.line(self.palette.paint("yellow", f"• {call_label(frame)}"))
        return ""

    def line(self, text: str) -> str:
        """`text`, which is safe already, on lines of its own."""
        return f"{self.line_end()}{text}\n"

    def line_end(self) -> str:
        """What ends a line that is open."""
        end = "\n" if self.mid_line else ""
        self.mid_line = False
        return end

    def _message(self, frame: Frame) -> str:
        whole = frame.get("content")
        if whole is None:
            fresh = text_of(frame, "token")
            self.shown += fresh
            return self._running(fresh)
        return self._closing(str(whole))

    def _closing(self, whole: str) -> str:
        """The closing frame repeats the whole text: what of it was never shown is shown now."""
        shown, self.shown = self.shown, ""
        start, rest = ("", whole[len(shown) :]) if whole.startswith(shown) else (self.line_end(), whole)
        text = start + self._running(rest)
        return text + self.line_end()

    def _running(self, text: str) -> str:
        if text:
            self.mid_line = not text.endswith("\n")
        return visible(text)

    def _error(self, frame: Frame) -> str:
        self.shown = ""
        said = visible(text_of(frame, "content") or text_of(frame, "error") or "The server reports an error.")
        code = one_line(text_of(frame, "code"))
        if code == STOPPED:
            return self.line(self.palette.paint("dim", f"■ {said}"))
        return self.line(
            self.palette.paint("red", f"✗ {said}") + (self.palette.paint("dim", f" [{code}]") if code else "")
        )


def text_of(frame: Frame, key: str) -> str:
    value = frame.get(key)
    return value if isinstance(value, str) else ""


def switch_label(frame: Frame) -> str:
    facts = frame.get("metadata")
    facts = facts if isinstance(facts, dict) else {}
    agent, reason = text_of(facts, "to_agent"), text_of(facts, "reason")
    if not agent:
        return one_line(text_of(frame, "content"))
    return one_line(agent) + (f": {one_line(reason)}" if reason else "")


def call_label(frame: Frame) -> str:
    """The tool and what it is about, on one line."""
    arguments = frame.get("arguments")
    arguments = arguments if isinstance(arguments, dict) else {}
    subject = next((str(arguments[key]) for key in SUBJECTS if key in arguments), "")
    return f"{one_line(text_of(frame, 'tool_name'))} {one_line(subject)}".strip()
