"""The AsyncAPI document tells the truth: what clients are sent fits it, and what it shows them is accepted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema  # type: ignore[import-untyped]
import pytest

from agents_app import messages
from agents_app.asyncapi import document
from agents_app.asyncapi_messages import SAID
from tests import talk
from tests.conftest import RunningServer
from tests.listening import Socket
from tests.model_server import ModelServer, status, text, tool_calls, verdict
from tests.stream_truth import Listener

JSON = dict[str, Any]
READ = ("a", "read_file", '{"path": "a.py"}')
WRITE = ("b", "write_file", '{"path": "b.py", "content": ""}')


def fits(value: JSON, schema: JSON) -> None:
    whole = {**schema, "components": document()["components"]}
    jsonschema.Draft202012Validator(whole).validate(value)


def looked_up(ref: str) -> JSON:
    found: Any = document()
    for part in ref.removeprefix("#/").split("/"):
        found = found[part]
    return dict(found)


def any_of(operation: JSON) -> JSON:
    """What an operation may carry: exactly one of its messages."""
    named = [looked_up(looked_up(message["$ref"])["$ref"]) for message in operation["messages"]]
    return {"oneOf": [message["payload"] for message in named]}


def sent(name: str) -> JSON:
    """What clients hear by this operation."""
    operation = document()["operations"][name]
    return any_of(operation.get("reply", operation))


def refs(value: Any) -> Iterator[str]:
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from refs(item)
    if isinstance(value, dict) and "$ref" in value:
        yield value["$ref"]


def test_the_document_is_public(server: RunningServer) -> None:
    answer = httpx.get(f"{server.url}/asyncapi.json", headers={"Accept": "text/html"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json() == document()
    assert answer.json()["asyncapi"] == "3.0.0"


def test_everything_it_refers_to_is_there() -> None:
    found = list(refs(document()))
    assert len(found) > 80
    for ref in found:
        looked_up(ref)


def test_every_example_fits_its_message() -> None:
    checked = 0
    for message in document()["components"]["messages"].values():
        for example in message.get("examples", ()):
            fits(example["payload"], message["payload"])
            checked += 1
    assert checked > 25


@pytest.mark.parametrize("example", [example for _, examples in SAID.values() for example in examples])
def test_every_message_it_shows_is_accepted(example: JSON) -> None:
    assert messages.parse(example).type == example["type"]


def test_an_answer_of_every_kind_fits(client: httpx.Client, model: ModelServer) -> None:
    me = Listener(client)
    model.route(verdict("coder"))
    model.reply(tool_calls([READ, WRITE], text="Looking."))
    model.reply(text("Done, as you wished"))
    model.reply(status(400))
    heard = [me.say("Compare"), me.result("a", "x"), me.decide("b", "approve"), me.result("b", "y")]
    heard += [me.say("Again"), me.switch("debug"), me.result("nobody", "z")]
    spoken = [frame for one in heard for frame in one.frames]
    assert {frame["type"] for frame in spoken} == {"assistant_message", "tool_call", "agent_switched", "error"}
    for frame in spoken:
        fits(frame, sent("sendMessage"))
    for frame in me.told_again():
        fits(frame, sent("readLog"))
    everything = talk.parse(client.get("/sessions/s1/stream?after=0.0&follow=false&events=all").content)
    assert {"MessageReceived", "ToolCallCompleted"} <= {frame["event_type"] for frame in everything.of("event")}
    for frame in everything.frames:
        fits(frame, sent("readLog"))


def test_a_retried_turn_fits(client: httpx.Client, model: ModelServer) -> None:
    me = Listener(client)
    model.reply(status(400))
    model.reply(text("Better now"))
    me.say("Try", agent_type="ask")
    answer = client.post("/sessions/s1/retry")
    frames = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    assert frames
    for frame in frames:
        fits(httpx.Response(200, text=frame).json(), sent("retryTurn"))


def test_what_a_socket_hears_fits(server: RunningServer, model: ModelServer) -> None:
    model.route(verdict("coder"))
    model.reply(tool_calls([WRITE]))
    with Socket(server.websocket_url, "s1") as socket:
        socket.say("Write", message_id="m-1")
        socket.until(lambda frame: frame["type"] == "end")
        for message in ({"type": "cancel"}, {"type": "cancel", "message_id": "m-2"}, {"type": "nonsense"}):
            socket.send(message)
        socket.until(lambda frame: frame["type"] == "error")
        socket.send({"type": "switch_agent", "agent_type": "ask"})
        socket.until(lambda frame: frame["type"] == "end" and "run_id" not in frame)
        socket.send({"type": "resume", "after": "0.0"})
        socket.until(lambda frame: frame.get("content") == "Switched to ask: User requested")
    assert {"ack", "end", "tool_call", "agent_switched", "error"} <= {frame["type"] for frame in socket.frames}
    for frame in socket.frames:
        fits(frame, sent("hear"))


def test_nothing_else_fits() -> None:
    for frame in ({"type": "done"}, {"type": "error"}, {"type": "assistant_message", "token": None, "is_final": True}):
        with pytest.raises(jsonschema.ValidationError):
            fits(frame, sent("hear"))
