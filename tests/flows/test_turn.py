"""A person's message becomes a streamed, stored turn."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from django.db import connection

from agents_app.batching import batcher
from agents_app.delivering import courier
from agents_app.supervisor import supervisor
from sessions_app import database
from tests import talk
from tests.conftest import RunningServer
from tests.model_server import Gate, ModelServer, strict, text, verdict


def test_first_message_is_routed_and_answered(client: httpx.Client, model: ModelServer) -> None:
    model.route(verdict("ask"))
    model.reply(text("Hello there, friend"))
    heard = talk.say(client, "s1", "What is a lease?")
    assert heard.types[0] == "agent_switched"
    assert heard.frames[0]["metadata"]["to_agent"] == "ask"
    assert heard.frames[0]["is_final"] is False
    assert heard.tokens == "Hello there, friend"
    assert heard.contents == ["Hello there, friend"]
    assert [frame["is_final"] for frame in heard.frames] == [False] * (len(heard.frames) - 1) + [True]
    assert len(set(heard.cursors)) == len(heard.cursors) == len(heard.frames)


def test_history_shows_what_was_streamed(client: httpx.Client, model: ModelServer) -> None:
    model.reply(text("Stored text"))
    talk.say(client, "s1", "Tell me")
    story = talk.history(client, "s1")
    assert [(m["role"], m["content"]) for m in story["messages"]] == [("user", "Tell me"), ("assistant", "Stored text")]
    assert story["message_count"] == 2
    assert story["current_agent"] == "coder"


def test_first_token_leaves_while_the_model_still_writes(client: httpx.Client, model: ModelServer) -> None:
    gate = Gate()
    model.reply(text("Early ", gate, "late"))
    body = {"session_id": "s1", "message": {"type": "user_message", "content": "go", "agent_type": "ask"}}
    seen = ""
    with client.stream("POST", talk.PATH, json=body) as answer:
        for piece in answer.iter_text():
            seen += piece
            if "Early" in seen and "late" not in seen:
                assert "late" not in seen
                gate.open()
    assert talk.parse(seen.encode()).tokens == "Early late"


def test_second_message_stays_with_the_agent_and_sends_a_valid_history(
    client: httpx.Client, model: ModelServer
) -> None:
    model.route(verdict("debug"))
    talk.say(client, "s1", "It crashes")
    heard = talk.say(client, "s1", "Still crashes")
    assert "agent_switched" not in heard.types
    last = model.requests[-1].body
    assert strict(last["messages"]) == []
    assert [m["role"] for m in last["messages"]] == ["system", "user", "assistant", "user"]
    assert last["tools"]


@pytest.mark.parametrize("turns", [1, 40])
def test_statements_of_a_plain_turn_do_not_grow(
    client: httpx.Client, server: RunningServer, model: ModelServer, turns: int
) -> None:
    talk.say(client, "s1", "hello", agent_type="ask")
    for _ in range(turns):
        talk.say(client, "s1", "again")
    with Counted(server) as statements:
        talk.say(client, "s1", "count me")
    assert 0 < len(statements) <= 12, "\n".join(statements)


def test_statements_of_a_routed_turn(client: httpx.Client, server: RunningServer, model: ModelServer) -> None:
    client.post("/sessions", json={"session_id": "s1"})
    with Counted(server) as statements:
        talk.say(client, "s1", "count me")
    assert 0 < len(statements) <= 18, "\n".join(statements)


class Counted:
    """Collects the statements of all the server's database threads, the ends of transactions left out. What a process
    does once a second, turn or no turn, stands still meanwhile."""

    def __init__(self, server: RunningServer) -> None:
        self.server = server
        self.statements: list[str] = []

    def __enter__(self) -> list[str]:
        self._everywhere(lambda: connection.execute_wrappers.append(self._note))
        self.statements.clear()
        return self.statements

    def __exit__(self, *_: object) -> None:
        self._everywhere(lambda: connection.execute_wrappers.clear())

    def _note(self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        if not sql.startswith(("BEGIN", "COMMIT", "ROLLBACK")):
            self.statements.append(sql)
        return execute(sql, params, many, context)

    def _everywhere(self, action: Callable[[], None]) -> None:
        barrier = threading.Barrier(database.READERS)

        def together() -> None:
            barrier.wait(30)
            action()

        async def run() -> None:
            for once_a_second in (supervisor._ticking, courier._looking, batcher._task):
                assert once_a_second is not None
                once_a_second.cancel()
            await database.write("", action)
            await asyncio.gather(*(database.read(together) for _ in range(database.READERS)))

        asyncio.run_coroutine_threadsafe(run(), self.server.loop).result(30)
