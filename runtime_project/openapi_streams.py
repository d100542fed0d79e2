"""The part of the OpenAPI document that REST framework cannot know: the streams, which are consumers."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from agents_app import frames, messages

REF = "#/components/schemas/{model}"
INBOUND: tuple[type[BaseModel], ...] = (
    messages.UserMessage,
    messages.ToolResult,
    messages.SwitchAgent,
    messages.HitlDecision,
)
OUTBOUND: tuple[type[BaseModel], ...] = (
    frames.AssistantMessage,
    frames.ToolCallChunk,
    frames.AgentSwitchedChunk,
    frames.ErrorChunk,
)


def schemas() -> dict[str, Any]:
    """The messages, the chunks, and the two unions of them."""
    ways = [(model, "validation") for model in INBOUND] + [(model, "serialization") for model in OUTBOUND]
    _, document = models_json_schema(ways, ref_template=REF)  # type: ignore[arg-type]
    request = {
        "type": "object",
        "required": ["session_id", "message"],
        "properties": {
            "session_id": {"type": "string", "minLength": 1, "maxLength": 255},
            "message": _one_of(INBOUND),
        },
    }
    return {**document["$defs"], "StreamRequest": request, "Chunk": _one_of(OUTBOUND)}


def _one_of(models: tuple[type[BaseModel], ...]) -> dict[str, Any]:
    names = {model.model_json_schema()["properties"]["type"]["const"]: model.__name__ for model in models}
    refs = {type_: REF.format(model=name) for type_, name in names.items()}
    return {
        "oneOf": [{"$ref": ref} for ref in refs.values()],
        "discriminator": {"propertyName": "type", "mapping": refs},
    }


def _message(**fields: Any) -> dict[str, Any]:
    return {"value": {"session_id": "demo", "message": fields}}


REQUESTS = {
    "user message": _message(type="user_message", content="Read README.md and sum it up"),
    "user message to an agent": _message(type="user_message", content="Design the schema", agent_type="architect"),
    "tool result": _message(type="tool_result", call_id="call_1", result="# Readme"),
    "tool error": _message(type="tool_result", call_id="call_1", error="no such file"),
    "switch": _message(type="switch_agent", agent_type="debug", reason="it crashes"),
    "approve": _message(type="hitl_decision", call_id="call_2", decision="approve"),
    "edit": _message(
        type="hitl_decision", call_id="call_2", decision="edit", modified_arguments={"path": "b.txt", "content": "b"}
    ),
    "reject": _message(type="hitl_decision", call_id="call_2", decision="reject", feedback="not there"),
}
FRAMES = {
    "an answer": (
        'id: 12.0-0c0ffee\ndata: {"type":"agent_switched","content":"Switched to ask: a question","metadata":'
        '{"from_agent":"orchestrator","to_agent":"ask","reason":"a question","confidence":"high"},"is_final":false}\n\n'
        'id: 13.5-0c0ffee\ndata: {"type":"assistant_message","token":"Hello","is_final":false}\n\n'
        'id: 15.0-0c0ffee\ndata: {"type":"assistant_message","token":"","content":"Hello","is_final":true}\n\n'
    ),
    "a tool call": (
        'id: 9.0-0c0ffee\ndata: {"type":"tool_call","call_id":"call_2","tool_name":"write_file","arguments":'
        '{"path":"a.txt","content":"a"},"requires_approval":true,"is_final":true}\n\n'
    ),
    "an error": (
        'data: {"type":"error","content":"The language model cannot be reached right now. Please try again.",'
        '"error":"The language model cannot be reached right now. Please try again.","code":"LLM_UNAVAILABLE",'
        '"is_final":true}\n\n'
    ),
}
STREAM = {
    "description": (
        "Server-sent events: `id: <cursor>` and `data: <one line of ASCII JSON, a Chunk>` each, comments while nothing "
        "happens. The end of the body is the end of the turn. What a person should read comes as an error chunk, "
        "always last, with status 200."
    ),
    "content": {
        "text/event-stream": {
            "schema": {"$ref": REF.format(model="Chunk")},
            "examples": {name: {"value": text} for name, text in FRAMES.items()},
        }
    },
}
SESSION_ID = {"name": "session_id", "in": "path", "required": True, "schema": {"type": "string"}}
READING = [
    SESSION_ID,
    {
        "name": "after",
        "in": "query",
        "description": "A cursor, or 0.0 for the whole log; neither this nor Last-Event-ID: from now on.",
        "schema": {"type": "string"},
    },
    {"name": "Last-Event-ID", "in": "header", "description": "As `after`.", "schema": {"type": "string"}},
    {
        "name": "follow",
        "in": "query",
        "description": "false ends the stream with the log.",
        "schema": {"type": "boolean", "default": True},
    },
    {
        "name": "events",
        "in": "query",
        "description": "all: also user messages, results, decisions and states of runs.",
        "schema": {"type": "string", "enum": ["chunks", "all"]},
    },
    {
        "name": "stream_mode",
        "in": "query",
        "description": "Text piece by piece or message by message; auto: as the session's own client has it.",
        "schema": {"type": "string", "enum": ["auto", "tokens", "messages"]},
    },
]
KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "The same message sent again with it is not run again; also `message_id` in the message.",
    "schema": {"type": "string", "maxLength": 255},
}
BODY = {
    "required": True,
    "content": {"application/json": {"schema": {"$ref": REF.format(model="StreamRequest")}, "examples": REQUESTS}},
}


def paths() -> dict[str, Any]:
    """The path items of the streams."""
    post = {"summary": "Send a message, hear its turn", "parameters": [KEY], "requestBody": BODY}
    read = {"summary": "Read a session's stream from a cursor, across turns", "parameters": READING}
    retry = {"summary": "Run the interrupted or failed turn again", "parameters": [SESSION_ID]}
    found: dict[str, Any] = {}
    for root in ("", "/api/v1"):
        found[f"{root}/agent/message/stream"] = {"post": {**post, "responses": {"200": STREAM}}}
        found[f"{root}/sessions/{{session_id}}/stream"] = {"get": {**read, "responses": {"200": STREAM}}}
        found[f"{root}/sessions/{{session_id}}/retry"] = {"post": {**retry, "responses": {"200": STREAM}}}
    return found
