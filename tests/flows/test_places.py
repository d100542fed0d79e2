"""More turns than may be at work at once: they wait their turn, stored, or are refused clearly; none is stuck."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from sessions_app.models import Run, RunState
from tests import talk
from tests.conftest import RunningServer
from tests.flows.test_busy import wait_for
from tests.listening import Listening, Socket, posting, truth
from tests.model_server import Gate, ModelServer, text, tool_calls

READ = '{"path": "a.txt"}'


def states() -> list[str]:
    return list(Run.objects.order_by("pk").values_list("state", flat=True))


class Full:
    """One place, taken by session `first`, whose coder goes on when the gate opens."""

    def __init__(self, client: httpx.Client, model: ModelServer, stack: ExitStack) -> None:
        self.client, self.model, self.stack, self.gate = client, model, stack, Gate()
        model.reply(text("One ", self.gate, "done"))
        self.first = stack.enter_context(posting(client, "first", "1", agent_type="coder"))
        self.first.until(lambda heard: heard.tokens == "One ")

    def wait(self, session_id: str, **fields: Any) -> Listening:
        before = states().count("queued")
        answer = self.stack.enter_context(posting(self.client, session_id, "2", agent_type="coder", **fields))
        wait_for(self.client, before + 1)
        return answer


@pytest.fixture(params=["MAX_CONCURRENT_TURNS", "MAX_CONCURRENT_TURNS_PER_KEY"])
def full(request: Any, client: httpx.Client, model: ModelServer, settings: Any) -> Iterator[Full]:
    setattr(settings, request.param, 1)
    settings.MAX_QUEUED_TURNS = 2
    with ExitStack() as stack:
        yield Full(client, model, stack)


def test_one_too_many_waits_and_the_longest_waiter_is_next(full: Full, settings: Any) -> None:
    settings.KEEPALIVE_SECONDS = 0.2
    second = full.wait("second")
    third = full.wait("first")  # behind its own session: of those that wait for a place it is the last
    fourth = full.wait("fourth")
    assert states() == ["running", "queued", "queued", "queued"]
    second.until(lambda heard: heard.comments > 0)
    assert len(full.model.requests) == 1
    full.gate.open()
    for answer in (second, third, fourth):
        assert answer.ended(30).contents == ["Hello world"]
    assert states() == ["completed"] * 4
    sessions = [request.body["messages"][-1]["content"] for request in full.model.requests]
    assert sessions == ["1", "2", "2", "2"]
    for session_id in ("first", "second", "fourth"):
        truth(full.client, session_id)


def test_beyond_the_queue_a_person_gets_a_chunk_and_a_program_a_status(full: Full, server: RunningServer) -> None:
    full.wait("a")
    full.wait("b")
    heard = talk.say(full.client, "c", "Go", agent_type="coder")
    assert heard.types == ["error"]
    assert heard.error is not None
    assert heard.error["code"] == "QUEUE_FULL"
    body = {"session_id": "c", "message": {"type": "user_message", "content": "Go"}}
    answer = full.client.post(f"/api/v1{talk.PATH}", json=body)
    assert (answer.status_code, answer.json()["code"]) == (429, "QUEUE_FULL")
    assert int(answer.headers["retry-after"]) > 0
    with Socket(server.websocket_url, "c") as socket:
        socket.say("Go")
        assert socket.next()["code"] == "QUEUE_FULL"
    assert full.client.get("/sessions/c").status_code == 404  # nothing of it is stored
    assert states() == ["running", "queued", "queued"]


def test_who_waits_can_be_cancelled_and_does_not_wait_for_ever(full: Full, settings: Any) -> None:
    waits = full.wait("waits")
    full.client.post("/sessions/waits/cancel")
    heard = waits.ended()
    assert heard.error is not None
    assert heard.error["code"] == "CANCELLED"
    settings.QUEUE_WAIT_SECONDS = 0.2
    late = full.wait("late").ended()
    assert late.error is not None
    assert late.error["code"] == "WAITED_TOO_LONG"
    assert states() == ["running", "cancelled", "failed"]


def test_a_retry_does_not_wait(full: Full, settings: Any) -> None:
    full.wait("waits")
    full.client.post("/sessions/waits/cancel")
    answer = full.client.post("/sessions/waits/retry")
    assert (answer.status_code, answer.json()["code"]) == (429, "QUEUE_FULL")
    full.gate.open()
    full.first.ended()
    assert talk.parse(full.client.post("/sessions/waits/retry").content).contents == ["Hello world"]


def test_a_turn_that_waits_for_its_client_holds_no_place_and_goes_on_without_waiting(
    client: httpx.Client, model: ModelServer, settings: Any
) -> None:
    settings.MAX_CONCURRENT_TURNS, settings.MAX_QUEUED_TURNS = 1, 0
    model.reply(tool_calls([("call_1", "read_file", READ)]))
    assert len(talk.say(client, "tools", "Go", agent_type="coder").calls) == 1
    with ExitStack() as stack:
        full = Full(client, model, stack)
        assert talk.result(client, "tools", "call_1", "ok").contents == ["Hello world"]
        full.gate.open()
        assert full.first.ended().contents == ["One done"]
    assert states() == [RunState.COMPLETED, RunState.COMPLETED]
