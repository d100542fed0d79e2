"""The person's screen: writes rendered chunks and notes at once, and takes back a passing hint."""

from __future__ import annotations

from typing import TextIO

from agents_app.terminal.palette import Palette
from agents_app.terminal.rendering import Frame, Rendering
from agents_app.terminal.safe_text import visible

ERASE_LINE = "\r\x1b[K"


class Screen:
    def __init__(self, stream: TextIO, palette: Palette) -> None:
        self.stream = stream
        self.palette = palette
        self.rendering = Rendering(palette)
        self._hinting = False

    def chunk(self, frame: Frame) -> None:
        self._write(self.rendering.chunk(frame))

    def line(self, text: str = "") -> None:
        """A line of our own or of others: made safe here, before the colour goes on."""
        self._write(self.rendering.line(visible(text)))

    def painted(self, style: str, text: str) -> None:
        self._write(self.rendering.line(self.palette.paint(style, visible(text))))

    def note(self, text: str) -> None:
        self.painted("dim", text)

    def failure(self, text: str) -> None:
        self.painted("red", f"✗ {text}")

    def fresh_line(self) -> None:
        """Ends a line that was left open, for a prompt to come."""
        self._write(self.rendering.line_end())

    def hint(self, text: str) -> None:
        """Shown until anything else is written; only where lines can be taken back."""
        if self.palette.enabled and not self._hinting and not self.rendering.mid_line:
            self.stream.write(self.palette.paint("dim", text))
            self.stream.flush()
            self._hinting = True

    def _write(self, text: str) -> None:
        if self._hinting:
            self.stream.write(ERASE_LINE)
            self._hinting = False
        self.stream.write(text)
        self.stream.flush()
