"""The program: opens a session, reads the person's lines, carries out what begins with a slash."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from queue import SimpleQueue

from agents_app.terminal import commands
from agents_app.terminal.conversation import Conversation, Left
from agents_app.terminal.folder import Folder
from agents_app.terminal.keyboard import Keyboard
from agents_app.terminal.link import Link
from agents_app.terminal.rest import Json, Rest, RestFailed
from agents_app.terminal.screen import Screen

ENDED_WELL, ENDED_IN_ERROR, INTERRUPTED = 0, 1, 130


@dataclass(frozen=True, slots=True)
class Server:
    url: str
    key: str


class Chat:
    """One session is open at a time; `close` ends the connection."""

    def __init__(self, server: Server, screen: Screen, keyboard: Keyboard, folder: Folder, agent: str = "") -> None:
        self.server, self.screen, self.keyboard, self.folder = server, screen, keyboard, folder
        self.rest = Rest(server.url, server.key)
        self.session_id = ""
        self._agent = agent
        self._link: Link | None = None

    def open(self, session_id: str | None = None) -> None:
        """Leaves the session that is open, if any, and opens this one, or a new one. LinkRefused if it cannot."""
        if self._link is not None:
            self._link.close()
        self.session_id = session_id or f"chat-{uuid.uuid4().hex[:12]}"
        inbox = SimpleQueue()  # type: ignore[var-annotated]  # filled by the link, see its Inbox
        self._link = Link(self.server.url, self.server.key, self.session_id, inbox)
        self.conversation = Conversation(self._link, inbox, self.screen, self.keyboard, self.folder)
        self.conversation.opened()

    def close(self) -> None:
        if self._link is not None:
            self._link.close()
        self.rest.close()

    def once(self, text: str) -> int:
        try:
            if self._say(text):
                return ENDED_WELL
        except Left:
            return INTERRUPTED
        return INTERRUPTED if self.conversation.stopped else ENDED_IN_ERROR

    def loop(self, *, known_session: bool = False) -> int:
        """Until /quit, the end of the input, or Ctrl-C at the prompt; the exit code of the last turn for a pipe."""
        ended_well = True
        try:
            if known_session:
                self.take_up_pending()
            while True:
                self._room()
                line = self.keyboard.message("> ")
                if line.strip():
                    ended_well = self._line(line)
        except (EOFError, commands.Quit):
            self.screen.fresh_line()
        except (KeyboardInterrupt, Left):
            self.screen.line()
            return ENDED_WELL if self.keyboard.interactive else INTERRUPTED
        return ENDED_WELL if ended_well or self.keyboard.interactive else ENDED_IN_ERROR

    def _room(self) -> None:
        """What a person types stands apart from what was answered."""
        self.screen.fresh_line()
        if self.keyboard.interactive:
            self.screen.line()

    def take_up_pending(self) -> None:
        """Decisions that an earlier connection of this session left open."""
        try:
            waiting = self.rest.pending_approvals(self.session_id)
        except RestFailed:
            return
        if waiting:
            self.screen.note(f"{len(waiting)} calls of this session wait for your decision")
            self.conversation.take_up([as_call(item) for item in waiting])

    def _line(self, line: str) -> bool:
        if line.startswith("/") and not line.startswith("//"):
            return commands.run(self, line)
        return self._say(line.removeprefix("/") if line.startswith("//") else line)

    def _say(self, text: str) -> bool:
        agent, self._agent = self._agent, ""
        return self.conversation.say(text, **({"agent_type": agent} if agent else {}))


def as_call(approval: Json) -> Json:
    return {
        "type": "tool_call",
        "call_id": approval.get("call_id"),
        "tool_name": approval.get("tool_name"),
        "arguments": approval.get("arguments") or {},
        "requires_approval": True,
    }
