"""A person at the terminal client, for tests: what they type, and what they see."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

from agents_app.terminal.conversation import Conversation
from agents_app.terminal.folder import Folder
from agents_app.terminal.link import Inbox, Link
from agents_app.terminal.palette import Palette
from agents_app.terminal.screen import Screen
from tests.agents_app.terminal_server import KEY, ScriptedServer


class Keys:
    """A keyboard that types what the test laid out; a function is called for its answer."""

    def __init__(self, *answers: str | Callable[[], str], interactive: bool = True) -> None:
        self.interactive = interactive
        self._answers = iter(answers)
        self.prompts: list[str] = []

    def answer(self, prompt: str) -> str:
        self.prompts.append(prompt.strip())
        answer = next(self._answers)
        return answer if isinstance(answer, str) else answer()

    message = answer


class Desk:
    """A person in front of the client: what is on the screen, and the conversation."""

    def __init__(self, url: str, folder: Path, keys: Keys, *, key: str = KEY, session: str = "a session/ü"):
        self.paper, self.keys = io.StringIO(), keys
        self.server = ScriptedServer()
        inbox: Inbox = SimpleQueue()
        self.link = Link(url, key, session, inbox, first_delay=0.01)
        screen = Screen(self.paper, Palette(enabled=False))
        self.conversation = Conversation(self.link, inbox, screen, keys, Folder(folder))

    @property
    def screen(self) -> str:
        return self.paper.getvalue()
