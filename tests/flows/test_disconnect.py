"""A turn belongs to the server: whoever hangs up, and whenever, the story is complete and can be read on."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from sessions_app.models import Run
from tests import talk
from tests.conftest import KEY, RunningServer
from tests.listening import following, posting, same_story, sending, stored, truth
from tests.model_server import Gate, ModelServer, Reply, hang_before_head, strict, text, tool_calls

WRITE = '{"path": "a.txt", "content": "x"}'
CALLS = [("call_1", "write_file", WRITE), ("call_2", "read_file", '{"path": "a.txt"}')]


def leave_after(client: httpx.Client, frames: int, gates: Sequence[Gate] = (), **fields: Any) -> None:
    """Posts a message, reads so many frames, a gate opened after each, and is gone."""
    with posting(client, "s", "Go", **fields) as answer:
        answer.begun()
        for count in range(1, frames + 1):
            answer.until(lambda heard, count=count: len(heard.frames) >= count)  # type: ignore[misc]
            if 1 < count < frames:
                gates[count - 2].open()
        answer.hang_up()


@pytest.mark.parametrize("frames", range(7))
def test_the_answer_is_stored_wherever_its_reader_left(
    client: httpx.Client, server: RunningServer, model: ModelServer, frames: int
) -> None:
    gates = [Gate() for _ in range(6)]
    model.reply(text(*[part for index, gate in enumerate(gates) for part in (f"word{index} ", gate)]))
    leave_after(client, frames, gates)
    for gate in gates:
        gate.open()
    server.idle()
    assert truth(client, "s")[-1]["content"] == "word0 word1 word2 word3 word4 word5 "
    assert Run.objects.get().state == "completed"
    assert client.get("/events/metrics/session/s").json()["successful_requests"] == 1
    talk.say(client, "s", "Next")
    assert strict(model.requests[-1].body["messages"]) == []


@pytest.mark.parametrize("frames", range(3))
def test_calls_and_approvals_are_there_wherever_their_reader_left(
    client: httpx.Client, server: RunningServer, model: ModelServer, frames: int
) -> None:
    gate = Gate()
    reply = tool_calls(CALLS, "Writing.")
    model.reply(Reply([*reply.parts[:1], gate, *reply.parts[1:]]))
    leave_after(client, min(frames, 2), agent_type="coder")
    gate.open()
    server.idle()
    [waiting] = client.get("/sessions/s/pending-approvals").json()["pending_approvals"]
    assert (waiting["call_id"], waiting["arguments"]["content"]) == ("call_1", "x")
    assert [call["call_id"] for call in stored(client, "s").calls] == ["call_1", "call_2"]
    assert len(truth(client, "s")[-1]["tool_calls"]) == 2
    assert talk.result(client, "s", "call_2", "content").frames == []
    assert talk.result(client, "s", "call_1", "written").contents == ["Hello world"]
    truth(client, "s")


def test_a_reader_of_the_result_may_leave_too(client: httpx.Client, server: RunningServer, model: ModelServer) -> None:
    gate = Gate()
    model.reply(tool_calls(CALLS[:1]), text("Do", gate, "ne"))
    talk.say(client, "s", "Go", agent_type="coder")
    with sending(client, "s", {"type": "tool_result", "call_id": "call_1", "result": "ok"}) as answer:
        answer.until(lambda heard: heard.tokens == "Do")
        answer.hang_up()
    gate.open()
    server.idle()
    assert truth(client, "s")[-1]["content"] == "Done"


def test_who_leaves_while_routing_is_answered(client: httpx.Client, server: RunningServer, model: ModelServer) -> None:
    reply = hang_before_head()
    model.route(reply)
    with posting(client, "s", "Go") as answer:
        assert reply.before_head is not None
        assert reply.before_head.reached.wait(30)
        answer.hang_up()
    reply.before_head.open()
    server.idle()
    assert truth(client, "s")[-1]["content"] == "Hello world"


@pytest.mark.parametrize("reads", [True, False])
def test_who_leaves_at_once_is_answered_or_was_never_heard(
    client: httpx.Client, server: RunningServer, model: ModelServer, reads: bool
) -> None:
    """The request is whole, and its sender gone with the first byte of the answer, or before it."""
    client.post("/sessions", json={"session_id": "s"})
    where = urlsplit(server.url)
    message = {"type": "user_message", "content": "Go", "agent_type": "ask"}
    body = json.dumps({"session_id": "s", "message": message}).encode()
    head = f"POST {talk.PATH} HTTP/1.1\r\nHost: x\r\nX-Internal-Auth: {KEY}\r\nContent-Length: {len(body)}\r\n\r\n"
    for _ in range(5):
        with socket.create_connection((where.hostname, where.port)) as link:
            link.sendall(head.encode() + body)
            if reads:
                link.recv(1)
        server.idle()
    talk.say(client, "s", "Last", agent_type="ask")
    server.idle()
    rows = [row["content"] for row in truth(client, "s")]
    assert rows[1::2] == ["Hello world"] * (len(rows) // 2)
    assert rows.count("Go") == 5 if reads else rows.count("Go") <= 5


# --- the log -----------------------------------------------------------------------------------------------------


def test_the_log_tells_every_turn_as_it_was_told(client: httpx.Client, model: ModelServer) -> None:
    model.reply(tool_calls(CALLS, "Writing."), text("Done"), text("cut", finish="length"))
    heard = talk.say(client, "s", "Go")
    for said in (
        talk.result(client, "s", "call_2", 1),
        talk.decide(client, "s", "call_1", "approve"),
        talk.result(client, "s", "call_1", 2),
        talk.send(client, "s", {"type": "switch_agent", "agent_type": "ask"}),
        talk.say(client, "s", "Again"),
    ):
        heard.frames += said.frames
    same_story(heard, stored(client, "s"))
    truth(client, "s")


def test_without_following_the_body_ends_with_the_log(client: httpx.Client, model: ModelServer) -> None:
    gate = Gate()
    model.reply(text("one ", gate, "two"))
    with posting(client, "s", "Go", agent_type="ask") as answer:
        answer.until(lambda heard: heard.tokens == "one ")
        assert stored(client, "s").tokens == "one "
        gate.open()
        answer.ended()
    assert stored(client, "s").contents == ["one two"]
    last = stored(client, "s").cursors[-1]
    assert stored(client, "s", last).frames == []


def test_without_a_cursor_it_is_heard_from_now_on(client: httpx.Client, model: ModelServer) -> None:
    gate = Gate()
    talk.say(client, "s", "before", agent_type="ask")
    model.reply(text("one ", gate, "two"))
    with posting(client, "s", "Go") as answer:
        answer.until(lambda heard: heard.tokens == "one ")
        with following(client, "s") as log:
            log.begun()
            gate.open()
            heard = log.until(lambda heard: len(heard.contents) == 1)
            assert (heard.tokens, heard.contents) == ("two", ["one two"])


def test_a_log_stays_open_across_turns(client: httpx.Client, model: ModelServer) -> None:
    client.post("/sessions", json={"session_id": "s"})
    with following(client, "s", "0.0") as log:
        for number in range(3):
            talk.say(client, "s", str(number), agent_type="ask")
            log.until(lambda heard, number=number: len(heard.contents) == number + 1)  # type: ignore[misc]
        assert not log.over
        same_story(stored(client, "s"), log.heard)


def test_the_last_event_id_counts_before_the_query(client: httpx.Client, model: ModelServer) -> None:
    heard = talk.say(client, "s", "Go", agent_type="ask")
    answer = client.get(
        "/sessions/s/stream?follow=false&after=0.0", headers={"Last-Event-ID": heard.cursors[-1]}
    )  # fmt: skip
    assert answer.content == b""


def test_v1_has_the_same_log(client: httpx.Client, model: ModelServer) -> None:
    talk.say(client, "s", "Go", agent_type="ask")
    answer = client.get("/api/v1/sessions/s/stream?after=0.0&follow=false")
    same_story(stored(client, "s"), talk.parse(answer.content))


def test_a_quiet_log_is_kept_alive_by_comments(client: httpx.Client, model: ModelServer, settings: Any) -> None:
    settings.KEEPALIVE_SECONDS = 1
    client.post("/sessions", json={"session_id": "s"})
    with following(client, "s") as log:
        log.until(lambda heard: heard.comments >= 1)


def test_readers_that_come_and_go_hear_the_same(client: httpx.Client, model: ModelServer) -> None:
    client.post("/sessions", json={"session_id": "s"})
    gates = [Gate() for _ in range(5)]
    model.reply(text(*[part for index, gate in enumerate(gates) for part in (f"word{index} ", gate)]))
    with posting(client, "s", "Go", agent_type="ask") as answer:
        seen, cursor = "", "0.0"
        for index, gate in enumerate(gates):
            with following(client, "s", cursor) as log:
                heard = log.until(lambda heard, index=index: f"word{index} " in heard.tokens)  # type: ignore[misc]
                seen += heard.tokens
                cursor = heard.cursors[-1]
            gate.open()
        whole = answer.ended()
    assert seen + stored(client, "s", cursor).tokens == whole.tokens
    truth(client, "s")


def test_a_deleted_sessions_log_ends(client: httpx.Client, model: ModelServer) -> None:
    talk.say(client, "s", "Go", agent_type="ask")
    with following(client, "s") as log:
        log.begun()
        client.delete("/sessions/s")
        log.ended(5)


# --- speed -------------------------------------------------------------------------------------------------------


@contextmanager
def lazy(server: RunningServer, path: str) -> Iterator[Iterator[str]]:
    """A reader that takes nothing until it is asked to, with little room on its way."""
    room = httpx.HTTPTransport(socket_options=[(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)])
    with (
        httpx.Client(base_url=server.url, headers={"X-Internal-Auth": KEY}, transport=room, timeout=20) as one,
        one.stream("GET", path) as answer,
    ):
        yield answer.iter_text()


def test_a_slow_reader_holds_up_nobody_and_misses_nothing(
    client: httpx.Client, server: RunningServer, model: ModelServer
) -> None:
    client.post("/sessions", json={"session_id": "s"})
    words = [f"{number:05d} " + "x" * 500 + " " for number in range(7000)]
    whole = "".join(words)
    model.reply(text(*words))
    with lazy(server, "/sessions/s/stream?after=0.0") as pieces:
        heard = talk.say(client, "s", "Go", agent_type="ask")
        assert heard.tokens == whole
        assert heard.contents == [whole]
        data = ""
        while not data.endswith('"is_final":true}\n\n'):
            data += next(pieces)
    slow = talk.parse(data.encode())
    assert slow.tokens == whole
    assert slow.contents == [whole]
    truth(client, "s")


def test_what_waits_for_a_slow_reader_is_bounded() -> None:
    from agents_app import live

    inbox = live.Inbox()
    for number in range(5000):
        inbox.push(live.Delta(1, number * 100, "x" * 100))
    items, lost = inbox.take()
    assert lost
    assert sum(len(item.text) for item in items if isinstance(item, live.Delta)) <= live.MAX_WAITING_CHARACTERS
    assert inbox.take() == ([], False)


def test_all_events_are_told_to_those_who_ask(client: httpx.Client, model: ModelServer) -> None:
    talk.say(client, "s1", "hello there", agent_type="ask")
    log = talk.parse(client.get("/sessions/s1/stream?after=0.0&follow=false&events=all").content)
    told = [frame["event_type"] for frame in log.of("event")]
    assert {"SessionCreated", "MessageReceived", "TaskStarted", "TaskCompleted"} <= set(told)
    assert [frame.get("content") for frame in log.of("event") if frame["event_type"] == "MessageReceived"] == [
        "hello there"
    ]
    assert log.contents == [talk.history(client, "s1")["messages"][-1]["content"]]


@pytest.mark.parametrize("query", ["events=some", "follow=maybe"])
def test_a_choice_that_is_none_is_refused(client: httpx.Client, query: str) -> None:
    client.post("/sessions", json={"session_id": "s1"})
    assert client.get(f"/sessions/s1/stream?{query}").status_code == 400
