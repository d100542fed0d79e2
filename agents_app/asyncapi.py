"""The AsyncAPI document of the streams, generated from the models of what clients say and hear; GET /asyncapi.json."""

from __future__ import annotations

from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, models_json_schema
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response

from agents_app.asyncapi_messages import HEARD, JSON, LOG_HEARD, SAID, SOCKET_HEARD, SOCKET_SAID, Group
from agents_app.tools.declaration import PlainSchema
from sessions_app.api import RESTView
from sessions_app.conf import settings

SCHEMAS = "#/components/schemas/"
MESSAGES = "#/components/messages/"


# --- where they travel -------------------------------------------------------------------------------------------

SSE = (
    "Server-sent events, each `id: <cursor>` and `data: <the message as one line of ASCII JSON>`; a comment line when "
    "nothing was said for a while. The cursor goes into `Last-Event-ID` or `after` to read on from there. "
)
POST_TEXT = SSE + "The end of the body is the end of the turn. The same stands under /api/v1."
READ_TEXT = SSE + "Without a cursor: from now on. The same stands under /api/v1."
RETRY_TEXT = SSE + "409 while the turn still has an owner, or where there is nothing to retry."
SOCKET_TEXT = (
    "Many turns on one connection. Each chunk carries its `cursor`. Close codes: 4401 no key, 4404 no such session, "
    "1009 too large, 1013 try later. Browsers are let in by an operator's login and a matching Origin."
)
SESSION_ID: JSON = {"session_id": {"description": "The session's id, percent-encoded."}}
READING: JSON = {
    "type": "object",
    "properties": {
        "after": {"type": "string", "description": "A cursor; 0.0 for the whole log."},
        "follow": {"type": "boolean", "default": True, "description": "false: end with what is stored."},
        "events": {"enum": ["chunks", "all"], "default": "chunks", "description": "all: what has no chunk, too."},
    },
}


def _ref(target: str) -> JSON:
    return {"$ref": target}


def _channel(name: str, address: str, description: str, carried: list[str], **more: Any) -> JSON:
    parameters = {"parameters": SESSION_ID} if "{" in address else {}
    held = {message: _ref(MESSAGES + message) for message in carried}
    server = _ref(f"#/servers/{'websocket' if name == 'socket' else 'http'}")
    return {
        "address": address,
        "description": description,
        "servers": [server],
        **parameters,
        "messages": held,
        **more,
    }


def _channels() -> JSON:
    socket = {"ws": {"method": "GET", "bindingVersion": "0.1.0"}}
    chunks = list(HEARD)
    both = [*SAID, *SOCKET_SAID, *map(_on_socket, HEARD), *SOCKET_HEARD]
    return {
        "turn": _channel("turn", "/agent/message/stream", POST_TEXT, ["streamRequest", *chunks]),
        "log": _channel("log", "/sessions/{session_id}/stream", READ_TEXT, [*chunks, *LOG_HEARD]),
        "retry": _channel("retry", "/sessions/{session_id}/retry", RETRY_TEXT, ["retryRequest", *chunks]),
        "socket": _channel("socket", "/ws/{session_id}", SOCKET_TEXT, both, bindings=socket),
    }


def _on_socket(name: str) -> str:
    return f"{name}WithCursor"


def _of(channel: str, names: list[str]) -> JSON:
    """The channel and those of its messages that an operation has to do with."""
    return {
        "channel": _ref(f"#/channels/{channel}"),
        "messages": [_ref(f"#/channels/{channel}/messages/{name}") for name in names],
    }


def _http(method: str, **more: Any) -> JSON:
    return {"bindings": {"http": {"method": method, **more, "bindingVersion": "0.3.0"}}}


def _operations() -> JSON:
    """`receive` is what the runtime is told, `send` what it tells."""
    chunks = list(HEARD)
    said, heard = [*SAID, *SOCKET_SAID], [*map(_on_socket, HEARD), *SOCKET_HEARD]
    return {
        "sendMessage": {
            "action": "receive",
            "summary": "A message, answered with the chunks of its turn.",
            **_of("turn", ["streamRequest"]),
            "reply": _of("turn", chunks),
            **_http("POST"),
        },
        "readLog": {
            "action": "send",
            "summary": "A session's chunks from a cursor on, across turns.",
            **_of("log", [*chunks, *LOG_HEARD]),
            **_http("GET", query=READING),
        },
        "retryTurn": {
            "action": "receive",
            "summary": "The last turn again, after it failed, was cancelled or cut.",
            **_of("retry", ["retryRequest"]),
            "reply": _of("retry", chunks),
            **_http("POST"),
        },
        "say": {"action": "receive", "summary": "What a client says.", **_of("socket", said)},
        "hear": {"action": "send", "summary": "What a client hears.", **_of("socket", heard)},
    }


# --- the components ----------------------------------------------------------------------------------------------


def _schemas(
    models: list[type[BaseModel]], mode: JsonSchemaMode, generator: type[GenerateJsonSchema] = GenerateJsonSchema
) -> JSON:
    pairs: Any = [(model, mode) for model in models]
    return dict(models_json_schema(pairs, ref_template=SCHEMAS + "{model}", schema_generator=generator)[1]["$defs"])


def _models(*groups: Group) -> list[type[BaseModel]]:
    return [model for group in groups for model, _ in group.values()]


def _all_schemas() -> JSON:
    """Nulls are accepted from clients and never sent to them."""
    said = _schemas(_models(SAID, SOCKET_SAID), "validation")
    heard = _schemas(_models(HEARD, LOG_HEARD, SOCKET_HEARD), "serialization", PlainSchema)
    request = {
        "type": "object",
        "description": "The body of POST /agent/message/stream.",
        "required": ["session_id", "message"],
        "properties": {
            "session_id": {"type": "string", "minLength": 1, "maxLength": 255},
            "message": {"oneOf": [_ref(SCHEMAS + model.__name__) for model in _models(SAID)]},
        },
    }
    return {**said, **heard, "StreamRequest": request, "Cursor": {"type": "string", "description": "Opaque."}}


def _message(name: str, payload: JSON, examples: list[JSON], summary: str) -> JSON:
    shown = [{"name": f"{name}{number}", "payload": example} for number, example in enumerate(examples, 1)]
    return {"name": name, "summary": summary, "payload": payload, "examples": shown}


def _messages() -> JSON:
    found = {
        name: _message(name, _ref(SCHEMAS + model.__name__), examples, _summary(model))
        for group in (SAID, SOCKET_SAID, HEARD, LOG_HEARD, SOCKET_HEARD)
        for name, (model, examples) in group.items()
    }
    requests = [{"session_id": "demo", "message": example} for _, examples in SAID.values() for example in examples]
    found["streamRequest"] = _message(
        "streamRequest", _ref(SCHEMAS + "StreamRequest"), requests, "A message to a session."
    )
    found["retryRequest"] = {"name": "retryRequest", "summary": "No body.", "payload": {"type": "null"}}
    return found | {_on_socket(name): _with_cursor(name, *pair) for name, pair in HEARD.items()}


def _with_cursor(name: str, model: type[BaseModel], examples: list[JSON]) -> JSON:
    """The chunk as the WebSocket has it; what is no part of the log has no cursor."""
    cursor = {"type": "object", "properties": {"cursor": _ref(SCHEMAS + "Cursor")}}
    payload = {"allOf": [_ref(SCHEMAS + model.__name__), cursor]}
    placed = [{**example, "cursor": "13.5-0c0ffee"} for example in examples]
    return _message(_on_socket(name), payload, placed, _summary(model))


def _summary(model: type[BaseModel]) -> str:
    return " ".join((model.__doc__ or "").split())


def _server(protocol: str) -> JSON:
    address = {"default": "127.0.0.1:8001", "description": "Where `manage.py serve` listens."}
    security = [_ref("#/components/securitySchemes/key")]
    return {"host": "{address}", "protocol": protocol, "variables": {"address": address}, "security": security}


@cache
def document() -> JSON:
    """The whole document."""
    key = {"type": "httpApiKey", "name": "X-Internal-Auth", "in": "header"}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Agent runtime: streams",
            "version": settings.VERSION,
            "description": "What clients say and hear over SSE and WebSocket. REST is in /openapi.json.",
        },
        "defaultContentType": "application/json",
        "servers": {"http": _server("http"), "websocket": _server("ws")},
        "channels": _channels(),
        "operations": _operations(),
        "components": {"schemas": _all_schemas(), "messages": _messages(), "securitySchemes": {"key": key}},
    }


class AsyncDocument(RESTView):
    """The AsyncAPI document."""

    authentication_classes = ()
    permission_classes = (AllowAny,)
    schema = None

    def get(self, request: Request) -> Response:
        return Response(document())
