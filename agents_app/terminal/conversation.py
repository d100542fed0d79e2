"""One session's conversation: says things, follows the turn, carries out the calls, until nothing more is to come."""

from __future__ import annotations

import uuid
from collections import deque
from contextlib import suppress
from queue import Empty
from typing import Any

from agents_app.terminal import changing, reading, searching, shell, toolbox  # noqa: F401  they bring the tools
from agents_app.terminal.approval import Approval
from agents_app.terminal.folder import Folder, ToolFailed
from agents_app.terminal.interrupts import Interrupts
from agents_app.terminal.keyboard import Keyboard
from agents_app.terminal.ledger import CANCEL, Ledger
from agents_app.terminal.link import TOO_BIG, Frame, Inbox, Kind, Link, Notice
from agents_app.terminal.rendering import text_of
from agents_app.terminal.screen import Screen

REPEATABLE = {"assistant_message", "agent_switched"}
INTERRUPTED = Notice(Kind.INTERRUPTED)
DECLINED = "The user did not allow this call."
CONNECTING = "connection lost, connecting again …"
OUTPUT_LINES = 10


class LinkRefused(Exception):
    """The server will not have us, or is not there."""


class Left(Exception):
    """Ctrl-C a second time: the person leaves, the cancel may still be under way."""


class Conversation:
    def __init__(self, link: Link, inbox: Inbox, screen: Screen, keyboard: Keyboard, folder: Folder) -> None:
        self.link, self.inbox, self.screen, self.folder = link, inbox, screen, folder
        self.approval = Approval(screen, keyboard, folder)
        self.ledger = Ledger()
        self.calls: deque[Frame] = deque()
        self._decided: dict[str, Any] = {}
        self._answered: set[str] = set()
        self._seen: set[str] = set()
        self._failed = self._cancelling = False
        self._connection, self._down = 0, False
        self._interrupts = Interrupts(lambda: inbox.put(INTERRUPTED))

    @property
    def stopped(self) -> bool:
        """Whether the person has stopped the last turn."""
        return self._cancelling

    def opened(self) -> None:
        """Waits for the connection; LinkRefused says why there is none."""
        while self._connection == 0:
            self._take(self.inbox.get())

    def say(self, text: str, **fields: str) -> bool:
        """A message of the person, followed to the end of its turn; whether it ended well."""
        return self.turn({"type": "user_message", "role": "user", "content": text, **fields})

    def switch(self, agent: str) -> bool:
        return self.turn({"type": "switch_agent", "agent_type": agent, "reason": "User requested"})

    def turn(self, message: Frame) -> bool:
        with self._interrupts.queued():
            self._catch_up()
            self._send(message)
            return self._follow()

    def take_up(self, calls: list[Frame]) -> bool:
        """Calls that wait for a decision since an earlier connection."""
        with self._interrupts.queued():
            self._catch_up()
            self.calls.extend(calls)
            return self._follow()

    def _catch_up(self) -> None:
        """What came while nobody looked is shown; what the link did meanwhile is old news."""
        self._failed = self._cancelling = False
        self._seen.clear()
        with suppress(Empty):
            while True:
                item = self.inbox.get_nowait()
                if isinstance(item, dict) or item.kind is Kind.REFUSED:
                    self._take(item)
                elif item.kind is not Kind.INTERRUPTED:
                    self._joined(item)
        if self._down:
            self.screen.note(CONNECTING)

    def _follow(self) -> bool:
        while self.ledger.waiting or self.calls:
            try:
                self._listen()
                if self.calls:
                    self._handle(self.calls.popleft())
            except KeyboardInterrupt:
                self.screen.line()
                self._interrupted()
        return not (self._failed or self._cancelling)

    def _listen(self) -> None:
        """Takes what comes until there is a call to carry out, or nothing to wait for."""
        while self.ledger.engaged or (self.ledger.waiting and not self.calls):
            if self.inbox.empty():
                self.screen.hint("… Ctrl-C stops it")
            self._take(self.inbox.get())

    def _send(self, message: Frame) -> None:
        message = {**message, "message_id": str(uuid.uuid4())}
        self.ledger.sent(message)
        self.link.send(message, self._connection)

    # --- what comes in

    def _take(self, item: Frame | Notice) -> None:
        if isinstance(item, Notice):
            self._noticed(item)
        elif item.get("type") == "ack":
            self.ledger.acknowledged(item)
        elif item.get("type") == "end":
            self.ledger.ended(item)
        elif item.get("type") == "tool_call":
            self._called(item)
        elif item.get("type") == "error":
            self._refused_or_failed(item)
        elif not self._repeated(item):
            self.screen.chunk(item)
            if item.get("is_final"):
                self.ledger.closed()

    def _noticed(self, notice: Notice) -> None:
        match notice.kind:
            case Kind.REFUSED:
                raise LinkRefused(notice.text)
            case Kind.INTERRUPTED:
                self._interrupted()
            case Kind.LOST:
                self._lost(notice.code)
            case Kind.CONNECTED:
                self._joined(notice)
            case Kind.RESUMED:
                self.screen.note("connected again")
                self._joined(notice)
                self._say_again()

    def _joined(self, notice: Notice) -> None:
        """Where the link stands: on a connection, or between two."""
        self._down = notice.kind is Kind.LOST
        self._connection = notice.connection or self._connection

    def _lost(self, code: int) -> None:
        self.screen.note(CONNECTING)
        if code == TOO_BIG and (message := self.ledger.failed()):
            self.screen.failure("The message was too big for the server.")
            self._failed = True
            if message["type"] == "tool_result" and "error" not in message:
                self._answer(message["call_id"], error="The result was too big to be sent.")

    def _say_again(self) -> None:
        for message in self.ledger.reconnected():
            self.link.send(message, self._connection)

    def _repeated(self, frame: Frame) -> bool:
        """A frame that a message said twice brought a second time; every frame has a cursor of its own."""
        cursor = frame.get("cursor")
        if frame.get("type") not in REPEATABLE or not isinstance(cursor, str):
            return False
        known = cursor in self._seen
        self._seen.add(cursor)
        return known

    def _refused_or_failed(self, frame: Frame) -> None:
        self.screen.chunk(frame)
        refused = self.ledger.failed()
        if refused is None:
            self.calls.clear()
        if refused and refused.get("decision") == "edit":
            self.calls.appendleft(self._decided.pop(refused["call_id"])[0])
        else:
            self._failed = True

    def _interrupted(self) -> None:
        if self._cancelling:
            raise Left
        self._cancelling = True
        self.calls.clear()
        self.screen.note("stopping … (Ctrl-C again leaves)")
        self._send({"type": CANCEL})

    # --- calls

    def _called(self, call: Frame) -> None:
        """Kept until its turn comes; one that is done, decided or kept already is a repetition."""
        call_id = text_of(call, "call_id")
        waiting = any(kept["call_id"] == call_id for kept in self.calls)
        decided = bool(call.get("requires_approval")) and call_id in self._decided
        if call_id and not (waiting or decided or call_id in self._answered):
            self.calls.append({**call, "arguments": call.get("arguments") or {}})

    def _handle(self, call: Frame) -> None:
        name, call_id, arguments = text_of(call, "tool_name"), call["call_id"], call["arguments"]
        agreed = call_id in self._decided and self._decided[call_id][1] == arguments
        if not agreed:
            self.screen.chunk(call)
        if not toolbox.knows(name):
            self._answer(call_id, error=f"This client has no tool {name!r}.")
        elif call.get("requires_approval"):
            self._decide(call)
        elif agreed or toolbox.reads_only(name) or self._confirmed(name, arguments):
            self._run(call_id, name, arguments)
        else:
            self._answer(call_id, error=DECLINED)

    def _confirmed(self, name: str, arguments: dict[str, Any]) -> bool:
        with self._interrupts.breaking_off():
            return self.approval.confirm(name, arguments)

    def _decide(self, call: Frame) -> None:
        with self._interrupts.breaking_off():
            decision = self.approval.decide(call["tool_name"], call["arguments"])
        final = call["arguments"] if decision.modified_arguments is None else decision.modified_arguments
        self._decided[call["call_id"]] = (call, final)
        if decision.decision == "reject":
            self._answered.add(call["call_id"])
        self._send(decision.message(call["call_id"]))

    def _run(self, call_id: str, name: str, arguments: dict[str, Any]) -> None:
        try:
            with self._interrupts.breaking_off():
                result = toolbox.run(self.folder, name, arguments)
        except ToolFailed as fault:
            self.screen.note(f"  ✗ {fault}")
            self._answer(call_id, error=str(fault))
        else:
            for line in outcome(name, result):
                self.screen.note(f"  {line}")
            self._answer(call_id, result=result)

    def _answer(self, call_id: str, **outcome: str) -> None:
        self._answered.add(call_id)
        self._send({"type": "tool_result", "call_id": call_id, **outcome})


def outcome(name: str, result: str) -> list[str]:
    """A result in a few lines: the end of a command's output, otherwise how much it was."""
    lines = result.rstrip("\n").split("\n")
    if name == "execute_command":
        return lines[:1] + lines[1:][-OUTPUT_LINES:]
    return lines if len(lines) == 1 and not toolbox.reads_only(name) else [f"{len(lines)} lines"]
