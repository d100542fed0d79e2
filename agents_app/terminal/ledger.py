"""What was said to the server and what is still to come for it. Pure: no socket, no screen.

A message that was not acknowledged is sent again after a dropped connection, with the same id, so it counts once. An
`end` may be lost with a connection, so a closing frame ends everything acknowledged as well; and one that overtook its
acknowledgement (another reader of the same log told it) counts when that comes. The `end` of what a closing frame has
ended is still to come, maybe after the next message was said: it is nobody else's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Message = dict[str, Any]
CANCEL = "cancel"


@dataclass(slots=True)
class Entry:
    message: Message
    run_id: Any = None
    acknowledged: bool = False
    stale: bool = False


class Ledger:
    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._overtaken: list[Any] = []
        self._owed: list[Any] = []

    @property
    def waiting(self) -> bool:
        """Something is still to come for what was sent."""
        return bool(self._entries)

    @property
    def engaged(self) -> bool:
        """Something is surely still to come; what the last connection took with it no longer counts."""
        return any(not entry.stale for entry in self._entries)

    def sent(self, message: Message) -> None:
        if not self._entries:
            self._overtaken.clear()
        self._entries.append(Entry(message))

    def acknowledged(self, frame: Message) -> None:
        for entry in self._entries:
            if not entry.acknowledged and entry.message["message_id"] == frame.get("message_id"):
                entry.acknowledged, entry.run_id = True, frame.get("run_id")
                if entry.message["type"] == CANCEL:
                    self._entries.remove(entry)
                elif entry.run_id in self._overtaken:
                    self._overtaken.remove(entry.run_id)
                    self._entries.remove(entry)
                return

    def ended(self, frame: Message) -> None:
        """The turn of the oldest message of this run has ended, or its part of it."""
        if frame.get("run_id") in self._owed:
            self._owed.remove(frame.get("run_id"))
            return
        of_run = [entry for entry in self._entries if entry.acknowledged and entry.run_id == frame.get("run_id")]
        if of_run:
            self._entries.remove(of_run[0])
        elif self._unacknowledged():
            self._overtaken.append(frame.get("run_id"))

    def closed(self) -> None:
        """A frame that closes a turn came: what was acknowledged has all it gets, and nothing is left to cancel."""
        self._owed += [entry.run_id for entry in self._entries if entry.acknowledged and not entry.stale]
        self._entries = [entry for entry in self._unacknowledged() if entry.message["type"] != CANCEL]

    def failed(self) -> Message | None:
        """An error came: the refusal of what is not acknowledged yet (returned), else the end of the turn."""
        refusable = [entry for entry in self._unacknowledged() if entry.message["type"] != CANCEL]
        if not refusable:
            self.closed()
            return None
        self._entries.remove(refusable[0])
        return refusable[0].message

    def reconnected(self) -> list[Message]:
        """The messages to send again, in their order."""
        self._owed.clear()
        for entry in self._entries:
            entry.stale = entry.acknowledged
        return [entry.message for entry in self._unacknowledged()]

    def _unacknowledged(self) -> list[Entry]:
        return [entry for entry in self._entries if not entry.acknowledged]
