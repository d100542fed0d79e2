"""How many sockets and streams one address may hold open: more are refused as each endpoint does, none is forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from agents_app import connections
from tests import talk
from tests.conftest import RunningServer
from tests.listening import Listening, Socket, following, posting
from tests.model_server import Gate, ModelServer, text, tool_calls

READ = '{"path": "a.txt"}'


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as one:
        yield one


@pytest.fixture
def full(client: httpx.Client, model: ModelServer, server: RunningServer, settings: Any, stack: ExitStack) -> Listening:
    """Three are open: a socket, a log that is followed, and a turn; its gate is not opened."""
    model.reply(tool_calls([("call_1", "read_file", READ)]))
    talk.say(client, "s", "Go", agent_type="coder")
    settings.MAX_SOCKETS_PER_ADDRESS = 3
    stack.enter_context(Socket(server.websocket_url, "s"))
    log = stack.enter_context(following(client, "s", "0.0"))
    log.until(lambda heard: len(heard.calls) == 1)
    model.reply(text("One ", Gate()))
    turn = stack.enter_context(posting(client, "turn", "Go", agent_type="coder"))
    turn.until(lambda heard: heard.tokens == "One ")
    return log


def test_one_too_many_is_refused_as_its_endpoint_does(
    full: Listening, client: httpx.Client, server: RunningServer
) -> None:
    heard = talk.say(client, "new", "Привет, как дела?")
    assert heard.types == ["error"]
    assert heard.error is not None
    assert heard.error["code"] == "TOO_MANY_SOCKETS"
    assert "соединений" in heard.error["content"]
    body = {"session_id": "new", "message": {"type": "user_message", "content": "Go"}}
    for answer in (
        client.post(f"/api/v1{talk.PATH}", json=body),
        client.get("/sessions/s/stream"),
        client.post("/sessions/s/retry"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (429, "TOO_MANY_SOCKETS")
        assert int(answer.headers["retry-after"]) > 0
    with Socket(server.websocket_url, "s") as socket:
        assert socket.closed() == 1013
    assert client.get("/sessions/new").status_code == 404  # what reads and what ends is not counted
    assert talk.result(client, "s", "call_1", "ok").contents == ["Hello world"]  # and what a call waits for is let in


def test_who_hangs_up_makes_room(full: Listening, client: httpx.Client, server: RunningServer) -> None:
    full.hang_up()
    for _ in range(500):
        if not sum(connections._open.values()) > 2:
            break
        client.get("/health")
    assert talk.say(client, "new", "Go", agent_type="coder").contents == ["Hello world"]


def test_zero_is_no_limit(client: httpx.Client, model: ModelServer, server: RunningServer, settings: Any) -> None:
    settings.MAX_SOCKETS_PER_ADDRESS = 0
    with Socket(server.websocket_url, "s"), Socket(server.websocket_url, "s") as socket:
        socket.say("Go", agent_type="coder")
        assert socket.turn().contents == ["Hello world"]
