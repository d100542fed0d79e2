"""What the AsyncAPI document shows: the models of what clients say and hear, each with examples. Imports the models."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, WithJsonSchema

from agents_app import frames, messages

JSON = dict[str, Any]
Group = dict[str, tuple[type[BaseModel], list[JSON]]]
# Null where nothing runs: a cancel that found nothing, a switch.
RunId = Annotated[str | None, WithJsonSchema({"type": "string"})]


# --- what only the WebSocket has ---------------------------------------------------------------------------------


class Cancel(BaseModel):
    """Stops the active turn, else the oldest that waits; answered with an ack."""

    type: Literal["cancel"]
    message_id: str | None = None


class Resume(BaseModel):
    """Asks for the session's log from a cursor on, and for all that follows; `0.0` is its beginning."""

    type: Literal["resume"]
    after: str


class Ack(BaseModel):
    """The message is stored; `message_id` is there when the message had one."""

    type: Literal["ack"]
    message_id: str | None = None
    run_id: RunId = None
    cursor: str | None = None


class End(BaseModel):
    """The message's turn, or its part of it, has ended."""

    type: Literal["end"]
    run_id: RunId = None
    cursor: str | None = None


# --- the messages, each with examples ----------------------------------------------------------------------------

SAID: Group = {
    "userMessage": (
        messages.UserMessage,
        [
            {"type": "user_message", "content": "Read README.md and sum it up"},
            {"type": "user_message", "content": "Design the schema", "agent_type": "architect", "message_id": "m-1"},
        ],
    ),
    "toolResult": (
        messages.ToolResult,
        [
            {"type": "tool_result", "call_id": "call_1", "result": "# Readme"},
            {"type": "tool_result", "call_id": "call_1", "error": "no such file"},
        ],
    ),
    "switchAgent": (messages.SwitchAgent, [{"type": "switch_agent", "agent_type": "debug", "reason": "it crashes"}]),
    "hitlDecision": (
        messages.HitlDecision,
        [
            {"type": "hitl_decision", "call_id": "call_2", "decision": "approve"},
            {"type": "hitl_decision", "call_id": "call_2", "decision": "edit", "modified_arguments": {"path": "b.txt"}},
            {"type": "hitl_decision", "call_id": "call_2", "decision": "reject", "feedback": "not there"},
        ],
    ),
}
SOCKET_SAID: Group = {
    "cancel": (Cancel, [{"type": "cancel"}]),
    "resume": (Resume, [{"type": "resume", "after": "13.5-0c0ffee"}, {"type": "resume", "after": "0.0"}]),
}
STOPPED = "The language model cannot be reached right now. Please try again."
HEARD: Group = {
    "assistantMessage": (
        frames.AssistantMessage,
        [
            {"type": "assistant_message", "token": "Hello", "is_final": False},
            {"type": "assistant_message", "token": "", "content": "Hello, world", "is_final": True},
        ],
    ),
    "toolCall": (
        frames.ToolCallChunk,
        [
            {
                "type": "tool_call",
                "call_id": "call_2",
                "tool_name": "write_file",
                "arguments": {"path": "a.txt", "content": "a"},
                "requires_approval": True,
                "is_final": True,
            }
        ],
    ),
    "agentSwitched": (
        frames.AgentSwitchedChunk,
        [
            {
                "type": "agent_switched",
                "content": "Switched to ask: a question",
                "metadata": {
                    "from_agent": "orchestrator",
                    "to_agent": "ask",
                    "reason": "a question",
                    "confidence": "high",
                },
                "is_final": False,
            }
        ],
    ),
    "error": (
        frames.ErrorChunk,
        [{"type": "error", "content": STOPPED, "error": STOPPED, "code": "LLM_UNAVAILABLE", "is_final": True}],
    ),
}
# Only for those who ask a session's log for `events=all`.
LOG_HEARD: Group = {
    "event": (
        frames.EventChunk,
        [
            {
                "type": "event",
                "event_type": "MessageReceived",
                "seq": 3,
                "at": "2026-01-31T12:00:00+00:00",
                "run_id": "7",
                "content": "Read README.md and sum it up",
                "data": {"role": "user"},
            }
        ],
    ),
}
SOCKET_HEARD: Group = {
    "ack": (Ack, [{"type": "ack", "message_id": "m-1", "run_id": "7", "cursor": "6.0-0c0ffee"}]),
    "end": (End, [{"type": "end", "run_id": "7", "cursor": "15.0-0c0ffee"}]),
}
