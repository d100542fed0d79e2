"""SIGTERM: the server says that it goes, lets its turns end, stores the rest, and is gone in time."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import talk
from tests.faults.processes import calling, started
from tests.listening import Listening, Socket, following, posting, sending, stored, truth
from tests.model_server import Gate, ModelServer, hang_before_head, strict, text, tool_calls, verdict
from tests.runtime_project.programs import Server

WRITE = '{"path": "a.txt", "content": "x"}'
LATE_SECONDS = 3 * 2  # two seconds after the grace are promised; three times it is asserted
GONE = {0, -signal.SIGTERM, 143}


class Stopping:
    """A server with a database of its own, and a client of it; `again` starts the next one on the same file."""

    def __init__(self, directory: Path, model: ModelServer, stack: ExitStack, grace_seconds: float) -> None:
        self.directory, self.model, self.stack, self.grace_seconds = directory, model, stack, grace_seconds
        self.server, self.client = self.again()
        self.asked_at = 0.0

    def again(self) -> tuple[Server, httpx.Client]:
        grace = {"AGENT_RUNTIME__SHUTDOWN_GRACE_SECONDS": str(self.grace_seconds)}
        server = self.stack.enter_context(started(self.directory, self.model, **grace))
        return server, self.stack.enter_context(calling(server))

    def says(self, session_id: str, content: str = "Go", **fields: Any) -> Listening:
        return self.stack.enter_context(posting(self.client, session_id, content, agent_type="coder", **fields))

    def terminate(self) -> None:
        """Returns once the server says that it takes no more turns."""
        self.asked_at = time.monotonic()
        self.server.process.terminate()
        while self.client.get("/health/ready").status_code == 200:
            assert time.monotonic() < self.asked_at + 30

    def gone(self) -> None:
        code = self.server.process.wait(timeout=self.grace_seconds + 20)
        took = time.monotonic() - self.asked_at
        assert code in GONE
        assert took < self.grace_seconds + LATE_SECONDS
        said = self.server.errors.read_text()
        assert "Traceback" not in said
        assert "never retrieved" not in said

    def next_one(self) -> httpx.Client:
        return self.again()[1]


@pytest.fixture
def scripted() -> Iterator[ModelServer]:
    with ModelServer() as model:
        yield model


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as one:
        yield one


def usable(client: httpx.Client, model: ModelServer, session_id: str) -> None:
    heard = talk.say(client, session_id, "And now?", agent_type="coder")
    assert heard.contents == ["Hello world"]
    assert strict(model.requests[-1].body["messages"]) == []
    truth(client, session_id)


def test_a_turn_that_ends_within_the_grace_ends_as_ever(
    tmp_path: Path, scripted: ModelServer, stack: ExitStack
) -> None:
    stopping, gate = Stopping(tmp_path, scripted, stack, 60), Gate()
    scripted.reply(text("one ", gate, "two"))
    answer = stopping.says("s")
    answer.until(lambda heard: heard.tokens == "one ")
    stopping.terminate()
    gate.open()
    assert answer.ended().contents == ["one two"]
    assert answer.heard.error is None
    stopping.gone()
    assert time.monotonic() - stopping.asked_at < 45
    client = stopping.next_one()
    assert [row["content"] for row in truth(client, "s")] == ["Go", "one two"]


def test_new_turns_are_refused_while_it_drains(tmp_path: Path, scripted: ModelServer, stack: ExitStack) -> None:
    stopping, gate = Stopping(tmp_path, scripted, stack, 60), Gate()
    scripted.reply(tool_calls([("call_1", "write_file", WRITE)]), text("one ", gate, "two"))
    talk.say(stopping.client, "tools", "Go", agent_type="coder")
    socket = stack.enter_context(Socket(stopping.server.url.replace("http", "ws", 1), "tools"))
    answer = stopping.says("s")
    answer.until(lambda heard: heard.tokens == "one ")
    stopping.terminate()
    ready = stopping.client.get("/health/ready")
    assert (ready.status_code, ready.json()["status"]) == (503, "draining")
    assert stopping.client.get("/health").status_code == 200
    for session_id in ("s", "new"):
        heard = talk.say(stopping.client, session_id, "Me too")
        assert [frame["code"] for frame in heard.frames] == ["DRAINING"]
        body = {"session_id": session_id, "message": {"type": "user_message", "content": "Me too"}}
        v1 = stopping.client.post(f"/api/v1{talk.PATH}", json=body)
        assert (v1.status_code, v1.json()["code"]) == (503, "DRAINING")
        assert int(v1.headers["retry-after"]) > 0
        assert stopping.client.post(f"/api/v1/sessions/{session_id}/retry").status_code == 503
    socket.say("Me too")
    assert socket.next()["code"] == "DRAINING"
    with Socket(stopping.server.url.replace("http", "ws", 1), "s") as late:
        assert late.closed() == 1013
    assert stopping.client.get("/sessions/tools/pending-approvals").json()["count"] == 1
    gate.open()
    assert answer.ended().contents == ["one two"]
    assert socket.closed() in (1001, 1012)
    stopping.gone()
    client = stopping.next_one()
    assert client.get("/sessions/new").status_code == 404
    assert [row["content"] for row in truth(client, "s")] == ["Go", "one two"]
    assert client.get("/sessions/tools/pending-approvals").json()["count"] == 1
    assert talk.result(client, "tools", "call_1", "ok").contents == ["Hello world"]
    truth(client, "tools")


def test_a_turn_that_does_not_end_is_stored_with_all_that_was_seen(
    tmp_path: Path, scripted: ModelServer, stack: ExitStack
) -> None:
    stopping = Stopping(tmp_path, scripted, stack, 1)
    gate, words = Gate(), "слово \U0001f642 " * 200
    scripted.reply(text(words, gate, "last words ", Gate()))
    answer = stopping.says("s")
    answer.until(lambda heard: heard.tokens == words)
    socket = stack.enter_context(Socket(stopping.server.url.replace("http", "ws", 1), "s"))
    socket.send({"type": "resume", "after": "0.0"})
    log = stack.enter_context(following(stopping.client, "s", "0.0"))
    stopping.terminate()
    gate.open()
    heard = answer.ended()
    assert heard.tokens == words + "last words "
    assert heard.contents == [heard.tokens]
    assert [frame["is_final"] for frame in heard.frames[-2:]] == [False, True]
    assert heard.error is not None
    assert heard.error["code"] == "INTERRUPTED"
    assert str(len(heard.tokens)) in heard.error["content"]
    assert log.ended().frames[-1] == heard.error
    assert socket.closed() in (1001, 1012)
    assert [frame["code"] for frame in socket.frames if frame["type"] == "error"] == ["INTERRUPTED"]
    stopping.gone()
    client = stopping.next_one()
    assert truth(client, "s")[-1] == {"role": "assistant", "content": heard.tokens, "interrupted": True}
    assert stored(client, "s").error == heard.error
    assert [stored(client, "s", cursor).error for cursor in heard.cursors[:-1]] == [heard.error] * (
        len(heard.cursors) - 1
    )
    usable(client, scripted, "s")


def test_turns_in_every_state_are_left_in_order(tmp_path: Path, scripted: ModelServer, stack: ExitStack) -> None:
    stopping = Stopping(tmp_path, scripted, stack, 1)
    silent, routing = hang_before_head(), Gate()
    scripted.reply(tool_calls([("call_1", "write_file", WRITE)], "Writing."))
    talk.say(stopping.client, "tools", "Go", agent_type="coder")
    scripted.reply(text("one ", Gate()))
    running = stopping.says("running")
    running.until(lambda heard: heard.tokens == "one ")
    queued = stopping.says("running", "And I")
    queued.begun()
    scripted.reply(silent)
    waiting = stopping.says("silent")
    assert silent.before_head is not None
    assert silent.before_head.reached.wait(30)
    scripted.route(verdict("ask").held(routing))
    routed = stack.enter_context(posting(stopping.client, "routed", "Go"))
    assert routing.reached.wait(30)
    stopping.terminate()
    for answer in (running, waiting, routed):
        heard = answer.ended()
        assert heard.error is not None
        assert (heard.error["code"], heard.frames[-1]) == ("INTERRUPTED", heard.error)
    assert [frame["code"] for frame in queued.ended().frames] == ["DRAINING"]
    stopping.gone()
    client = stopping.next_one()
    for session_id in ("silent", "routed"):
        assert truth(client, session_id) == [{"role": "user", "content": "Go"}]
        usable(client, scripted, session_id)
    with following(client, "running", "0.0") as log:
        log.until(lambda heard: "Hello world" in heard.contents)
    assert [row["content"] for row in truth(client, "running")] == ["Go", "one ", "And I", "Hello world"]
    assert client.get("/sessions/tools/pending-approvals").json()["count"] == 1
    assert talk.result(client, "tools", "call_1", "ok").contents == ["Hello world"]


def test_results_and_decisions_that_come_while_it_drains_are_stored_and_taken_on_by_the_next(
    tmp_path: Path, scripted: ModelServer, stack: ExitStack
) -> None:
    stopping = Stopping(tmp_path, scripted, stack, 60)
    gate, calls = Gate(), [("call_1", "write_file", WRITE), ("call_2", "read_file", '{"path": "a.txt"}')]
    scripted.reply(tool_calls(calls), tool_calls([("call_3", "write_file", WRITE)]), text("one ", gate, "two"))
    for session_id in ("result", "decision"):
        talk.say(stopping.client, session_id, "Go", agent_type="coder")
    answer = stopping.says("s")
    answer.until(lambda heard: heard.tokens == "one ")
    stopping.terminate()
    assert talk.decide(stopping.client, "result", "call_1", "approve").types == ["tool_call"]
    assert talk.result(stopping.client, "result", "call_1", "written").frames == []
    message = {"type": "tool_result", "call_id": "call_2", "result": "read"}
    last = stack.enter_context(sending(stopping.client, "result", message))
    refused = {"type": "hitl_decision", "call_id": "call_3", "decision": "reject"}
    decided = stack.enter_context(sending(stopping.client, "decision", refused))
    last.begun()
    decided.begun()
    gate.open()
    assert answer.ended().contents == ["one two"]
    for heard in (last.ended(), decided.ended()):
        assert [frame["code"] for frame in heard.frames] == ["DRAINING"]
    stopping.gone()
    assert len(scripted.requests) == 3
    client = stopping.next_one()
    for session_id, results in (("result", ["written", "read"]), ("decision", ["The user rejected this call."])):
        with following(client, session_id, "0.0") as log:
            log.until(lambda heard: "Hello world" in heard.contents)
        assert [row["content"] for row in truth(client, session_id) if row["role"] == "tool"] == results
        usable(client, scripted, session_id)


@pytest.mark.parametrize("busy", [False, True])
def test_readers_that_do_not_read_hold_nothing_up(
    tmp_path: Path, scripted: ModelServer, stack: ExitStack, busy: bool
) -> None:
    """Logs that stay open, sockets that never answer the close, a body too big for its reader."""
    stopping = Stopping(tmp_path, scripted, stack, 1)
    scripted.reply(text("x" * 3_000_000), *([text("one ", Gate())] if busy else []))
    talk.say(stopping.client, "s", "Go", agent_type="coder")
    log = stack.enter_context(following(stopping.client, "s"))
    log.begun()
    url = stopping.server.url.replace("http", "ws", 1)
    stack.enter_context(Socket(url, "s", close_timeout=0.1)).send({"type": "resume", "after": "0.0"})
    lazy = stack.enter_context(Lazy(stopping.server.url, "/sessions/s/stream?after=0.0&follow=false"))
    assert lazy.starts()
    if busy:
        stopping.says("t").until(lambda heard: heard.tokens == "one ")
    stopping.asked_at = time.monotonic()
    stopping.server.process.terminate()
    log.ended()
    stopping.gone()


class Lazy:
    """A reader that takes the head of an answer and no more."""

    def __init__(self, url: str, path: str) -> None:
        self.path = path
        self.client = httpx.Client(base_url=url, headers={"X-Internal-Auth": "a-key-for-tests-0123456789"})

    def __enter__(self) -> Lazy:
        self.response = self.client.send(self.client.build_request("GET", self.path), stream=True)
        return self

    def starts(self) -> bool:
        return self.response.status_code == 200

    def __exit__(self, *_: object) -> None:
        self.response.close()
        self.client.close()


def test_with_nothing_to_do_it_goes_at_once(tmp_path: Path, scripted: ModelServer, stack: ExitStack) -> None:
    stopping = Stopping(tmp_path, scripted, stack, 60)
    talk.say(stopping.client, "s", "Go", agent_type="coder")
    stopping.asked_at = time.monotonic()
    stopping.server.process.terminate()
    stopping.gone()
    assert time.monotonic() - stopping.asked_at < 45


def test_a_second_signal_does_not_lose_the_text(tmp_path: Path, scripted: ModelServer, stack: ExitStack) -> None:
    stopping = Stopping(tmp_path, scripted, stack, 2)
    scripted.reply(text("one ", Gate()))
    answer = stopping.says("s")
    answer.until(lambda heard: heard.tokens == "one ")
    stopping.terminate()
    stopping.server.process.terminate()
    code = stopping.server.process.wait(timeout=30)
    assert code in GONE
    client = stopping.next_one()
    assert truth(client, "s")[-1] == {"role": "assistant", "content": "one ", "interrupted": True}


def test_without_grace_the_text_is_stored_all_the_same(tmp_path: Path, scripted: ModelServer, stack: ExitStack) -> None:
    stopping = Stopping(tmp_path, scripted, stack, 0)
    scripted.reply(text("one ", Gate()))
    answer = stopping.says("s")
    answer.until(lambda heard: heard.tokens == "one ")
    stopping.asked_at = time.monotonic()
    stopping.server.process.terminate()
    assert answer.ended().error is not None
    stopping.gone()
    client = stopping.next_one()
    assert truth(client, "s")[-1] == {"role": "assistant", "content": "one ", "interrupted": True}
