"""What the person says to a call: approve, edit or reject, after seeing all of what would run."""

from __future__ import annotations

import difflib
import json
import os
import shlex
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agents_app.terminal.folder import Folder, ToolFailed
from agents_app.terminal.keyboard import Keyboard
from agents_app.terminal.reading import decoded
from agents_app.terminal.rendering import Frame
from agents_app.terminal.safe_text import json_visible, one_line
from agents_app.terminal.screen import Screen

Arguments = dict[str, Any]
SHOWN_LINES = 40
DIFF_CHARACTERS = 200_000
NOBODY = "Nobody was at the keyboard to approve it."


@dataclass(frozen=True, slots=True)
class Decision:
    decision: str
    feedback: str = ""
    modified_arguments: Arguments | None = None

    def message(self, call_id: str) -> Frame:
        said = {"type": "hitl_decision", "call_id": call_id, "decision": self.decision}
        if self.feedback:
            said["feedback"] = self.feedback
        return said if self.modified_arguments is None else {**said, "modified_arguments": self.modified_arguments}


class Approval:
    def __init__(self, screen: Screen, keyboard: Keyboard, folder: Folder) -> None:
        self.screen, self.keyboard, self.folder = screen, keyboard, folder

    def decide(self, tool_name: str, arguments: Arguments) -> Decision:
        """Asks until there is an answer; no answer (end of input) is a rejection."""
        if not self.keyboard.interactive:
            self.screen.note("  rejected: there is nobody to ask")
            return Decision("reject", NOBODY)
        cut = self._show(tool_name, arguments)
        while True:
            match self._ask(
                f"  approve, edit or reject{', or view all' if cut else ''}? [a/e/r{'/v' if cut else ''}] "
            ):
                case "a" | "approve":
                    return Decision("approve")
                case "e" | "edit":
                    if (edited := edit(arguments, self._ask, self.screen.failure)) is not None:
                        return Decision("edit", modified_arguments=edited)
                case "r" | "reject" | "":
                    return Decision("reject", self._ask("  why? (may be empty) "))
                case "v" | "view":
                    self._show(tool_name, arguments, limit=None)

    def confirm(self, tool_name: str, arguments: Arguments) -> bool:
        """Yes or no to a call that the server sends without asking, and that is not for reading alone."""
        if not self.keyboard.interactive:
            self.screen.note("  not run: there is nobody to ask")
            return False
        self._show(tool_name, arguments, limit=None)
        return self._ask("  run it here? [y/n] ").lower() in {"y", "yes"}

    def _ask(self, prompt: str) -> str:
        self.screen.fresh_line()
        try:
            return self.keyboard.answer(prompt)
        except EOFError:
            return ""

    def _show(self, tool_name: str, arguments: Arguments, limit: int | None = SHOWN_LINES) -> bool:
        """Whether something was left out."""
        lines = described(arguments, self._before(tool_name, arguments))
        for line in lines[:limit]:
            self.screen.painted(_style(line), f"  │ {line}")
        cut = limit is not None and len(lines) > limit
        if cut:
            self.screen.note(f"  │ … {len(lines) - SHOWN_LINES} more lines")
        return cut

    def _before(self, tool_name: str, arguments: Arguments) -> str | None:
        """The text that write_file would replace, where a comparison says more than the whole."""
        path = arguments.get("path")
        if tool_name != "write_file" or not isinstance(path, str):
            return None
        try:
            return decoded(self.folder.read(path), path)
        except ToolFailed:
            return None


def described(arguments: Arguments, before: str | None = None) -> list[str]:
    """Every argument on lines for people; `content` as a diff against `before` where there is such a text."""
    lines = []
    for key, value in arguments.items():
        if key == "content" and before is not None and isinstance(value, str):
            lines += _changes(before, value)
        elif isinstance(value, str) and "\n" in value:
            lines += [f"{one_line(key)}:", *(f"    {line}" for line in value.split("\n"))]
        else:
            shown = value if isinstance(value, str) else json_visible(value, indent=None)
            lines.append(f"{one_line(key)}: {shown}")
    return lines


def edit(arguments: Arguments, ask: Callable[[str], str], complain: Callable[[str], None]) -> Arguments | None:
    """The arguments as the person changed them; None when nothing usable came of it."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    try:
        text = _in_editor(editor, json_visible(arguments)) if editor else ask("  arguments as JSON: ")
        edited = json.loads(text)
    except (OSError, ValueError, RecursionError, subprocess.CalledProcessError) as fault:
        complain(f"Not edited: {fault}")
        return None
    if not isinstance(edited, dict):
        complain("Not edited: the arguments are a JSON object")
        return None
    return None if edited == arguments else edited


def _in_editor(editor: str, text: str) -> str:
    with tempfile.NamedTemporaryFile("w+", suffix=".json", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        subprocess.run([*shlex.split(editor), file.name], check=True)  # noqa: S603  the person's own editor
        with open(file.name, encoding="utf-8") as saved:  # some editors replace the file
            return saved.read()


def _changes(before: str, after: str) -> list[str]:
    if len(before) + len(after) > DIFF_CHARACTERS:
        return ["content:", *(f"    {line}" for line in after.split("\n"))]
    if before == after:
        return ["content: (unchanged)"]
    found = difflib.unified_diff(before.split("\n"), after.split("\n"), "now", "then", lineterm="", n=2)
    return ["content, as changes to the file:", *(f"    {line}" for line in found)]


def _style(line: str) -> str:
    return "green" if line.startswith("    +") else "red" if line.startswith("    -") else "bold"
