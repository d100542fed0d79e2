"""The person's keyboard: messages with a history, answers without one."""

from __future__ import annotations

import contextlib
import sys
from typing import Protocol


class Keyboard(Protocol):
    """Both raise EOFError when there is no more, and KeyboardInterrupt on Ctrl-C."""

    interactive: bool

    def message(self, prompt: str) -> str: ...

    def answer(self, prompt: str) -> str: ...


class TypedKeyboard:
    """A terminal with line editing; or, where either side is a pipe, plain lines without prompts."""

    def __init__(self) -> None:
        self.interactive = sys.stdin.isatty() and sys.stdout.isatty()
        if self.interactive:
            _edit_lines()

    def message(self, prompt: str) -> str:
        """A line; one that ends in a backslash goes on in the next."""
        text = self._line(prompt)
        while text.endswith("\\"):
            text = f"{text[:-1]}\n{self._line('. ')}"
        if self.interactive and text.strip():
            _remember(text)
        return text

    def answer(self, prompt: str) -> str:
        return self._line(prompt).strip()

    def _line(self, prompt: str) -> str:
        line = input(prompt) if self.interactive else sys.stdin.readline()
        if not line and not self.interactive:
            raise EOFError
        return line.rstrip("\r\n").encode("utf-8", "replace").decode()


class NoKeyboard:
    """Nobody is there to ask: `--once`."""

    interactive = False

    def message(self, prompt: str) -> str:
        raise EOFError

    answer = message


def _edit_lines() -> None:
    with contextlib.suppress(ImportError):
        import readline

        readline.set_auto_history(False)


def _remember(text: str) -> None:
    with contextlib.suppress(ImportError):
        import readline

        readline.add_history(text.replace("\n", " "))
