"""What a client hears: the closed set of chunks, their cursors, and their bytes for SSE and WebSocket.

A chunk is made from a stored event, so that a later reader hears the same story as the live one. The models describe
the chunks for the documents and the tests; the bytes are written by hand, once for all readers of a moment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii
from typing import Any, Literal

from pydantic import BaseModel

from sessions_app import events, strict_json
from sessions_app.errors import CursorInvalid, RuntimeFault
from sessions_app.models import Event, Session

KEEPALIVE = b": keepalive\n\n"


class AssistantMessage(BaseModel):
    """A piece of the answer (`token`), or its closing frame with the whole text in `content`."""

    type: Literal["assistant_message"]
    token: str
    content: str | None = None
    is_final: bool


class ToolCallChunk(BaseModel):
    """A call for the client to execute, or to have approved first."""

    type: Literal["tool_call"]
    call_id: str
    tool_name: str
    arguments: dict[str, Any]
    requires_approval: bool
    is_final: Literal[True]


class SwitchDetails(BaseModel):
    from_agent: str
    to_agent: str
    reason: str
    confidence: str


class AgentSwitchedChunk(BaseModel):
    """Another agent has taken over; `content` says so for people."""

    type: Literal["agent_switched"]
    content: str
    metadata: SwitchDetails
    is_final: bool


class ErrorChunk(BaseModel):
    """Something a person should read; always the last frame."""

    type: Literal["error"]
    content: str
    error: str
    code: str
    metadata: dict[str, Any] | None = None
    is_final: Literal[True]


Chunk = AssistantMessage | ToolCallChunk | AgentSwitchedChunk | ErrorChunk


# --- cursors -----------------------------------------------------------------------------------------------------


def cursor_text(seq: int, offset: int, tag: str) -> str:
    return f"{seq}.{offset}-{tag}"


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """A position in a session's log: the last event received, and the characters of the message open there."""

    seq: int = 0
    offset: int = 0

    def write(self, tag: str) -> str:
        return cursor_text(self.seq, self.offset, tag)

    @classmethod
    def parse(cls, text: object, session: Session) -> Cursor:
        """Raises CursorInvalid for garbage, another session's cursor, and one of the future."""
        if text == "0.0":
            return cls()
        position, _, tag = str(text).partition("-")
        seq, _, offset = position.partition(".")
        plain = seq.isascii() and seq.isdigit() and offset.isascii() and offset.isdigit() and len(position) < 32
        if not isinstance(text, str) or not plain or tag != session.cursor_tag or int(seq) > session.last_seq:
            raise CursorInvalid(cursor=str(text)[:64])
        return cls(int(seq), int(offset))


# --- frames ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)  # one is made for each token: frozen, it would take three times as long
class Frame:
    """One chunk as JSON text, with the cursor after it; none for what is not part of the log."""

    json: str
    cursor: str = ""

    def sse(self) -> bytes:
        own = f"id: {self.cursor}\ndata: {self.json}\n\n" if self.cursor else f"data: {self.json}\n\n"
        return own.encode("ascii")

    def websocket(self) -> str:
        return f'{self.json[:-1]},"cursor":"{self.cursor}"}}' if self.cursor else self.json


def delta_json(text: str) -> str:
    return f'{{"type":"assistant_message","token":{encode_basestring_ascii(text)},"is_final":false}}'


def delta(text: str, cursor: str) -> Frame:
    return Frame(delta_json(text), cursor)


def delta_sse(text: str, cursor: str) -> bytes:
    """`delta(text, cursor).sse()` in one go, since there is one for each token."""
    token = encode_basestring_ascii(text)
    own = f'id: {cursor}\ndata: {{"type":"assistant_message","token":{token},"is_final":false}}\n\n'
    return own.encode("ascii")


def closing(text: str, *, is_final: bool, whole: bool, cursor: str) -> Frame:
    """The frame that ends a message; `whole` for readers that had no deltas of it."""
    token = text if whole else ""
    chunk = {"type": "assistant_message", "token": token, "content": text, "is_final": is_final}
    return Frame(strict_json.dumps(chunk), cursor)


def error(fault: RuntimeFault, said: str) -> Frame:
    """A refusal that is not part of the log."""
    told = {"metadata": fault.metadata} if fault.metadata else {}
    return Frame(strict_json.dumps({**_error(fault.code, said), **told}))


def end(run_id: int | None, cursor: str = "") -> Frame:
    """Tells a WebSocket that a turn, or its part of it, has ended."""
    return Frame(strict_json.dumps({"type": "end", **_run(run_id)}), cursor)


def ack(run_id: int | None, message_id: str | None, cursor: str) -> Frame:
    """Tells a WebSocket that its message is stored."""
    known = {"message_id": message_id} if message_id is not None else {}
    return Frame(strict_json.dumps({"type": "ack", **known, **_run(run_id)}), cursor)


def _run(run_id: int | None) -> dict[str, str]:
    return {} if run_id is None else {"run_id": str(run_id)}


def _error(code: str, text: str) -> dict[str, Any]:
    return {"type": "error", "content": text, "error": text, "code": code, "is_final": True}


def switched(told: dict[str, Any]) -> dict[str, Any]:
    """The agent_switched chunk; also for a switch to the agent that is current, which is not recorded."""
    return {
        "type": "agent_switched",
        "content": f"Switched to {told['to_agent']}" + (f": {told['reason']}" if told["reason"] else ""),
        "metadata": {key: told[key] for key in ("from_agent", "to_agent", "reason", "confidence")},
        "is_final": told["is_final"],
    }


def _tool_call(told: dict[str, Any]) -> dict[str, Any]:
    kept = {key: told[key] for key in ("call_id", "tool_name", "arguments", "requires_approval")}
    return {"type": "tool_call", **kept, "is_final": True}


FAILURES = frozenset({events.TASK_FAILED, events.TASK_CANCELLED, events.TASK_INTERRUPTED})
CALLS = frozenset({events.TOOL_CALL_REQUESTED, events.TOOL_CALL_RELEASED})
WITH_CHUNK = FAILURES | CALLS | {events.AGENT_SWITCHED}  # beside the messages'


def chunk_of(event: Event) -> dict[str, Any] | None:
    """The chunk of an event other than a message's end; None for what clients do not hear of."""
    if event.type == events.AGENT_SWITCHED:
        return switched(event.data)
    if event.type in CALLS:
        return _tool_call(event.data)
    if event.type in FAILURES:
        return _error(event.data["code"], event.data["text"])
    return None


class EventChunk(BaseModel):
    """What has no chunk of its own, for those who ask for `events=all`; a person's message has its text beside it."""

    type: Literal["event"]
    event_type: str
    seq: int
    at: str
    run_id: str | None = None
    content: str | None = None
    data: dict[str, Any]


def _plain_event(event: Event) -> dict[str, Any]:
    said = {"content": event.message.content} if event.type == events.MESSAGE_RECEIVED and event.message else {}
    at = event.at.isoformat()
    return {
        "type": "event", "event_type": event.type, "seq": event.seq, "at": at, **_run(event.run_id), **said,
        "data": event.data,
    }  # fmt: skip


def event_frame(event: Event, cursor: str, *, everything: bool = False) -> Frame | None:
    everything = everything and event.type != events.NOTE_ADDED  # operators write those to each other
    chunk = chunk_of(event) or (_plain_event(event) if everything else None)
    return chunk_frame(chunk, cursor) if chunk else None


def sse(frames: Sequence[Frame]) -> bytes:
    return frames[0].sse() if len(frames) == 1 else b"".join([frame.sse() for frame in frames])


def chunk_frame(chunk: dict[str, Any], cursor: str) -> Frame:
    return Frame(strict_json.dumps(chunk), cursor)


def cursor_at(session: Session, seq: int) -> str:
    """The cursor after an event, where no message is open."""
    return Cursor(seq).write(session.cursor_tag)
