"""A message while another one is answered: it waits its turn, is refused, or takes the other's place."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest

from agents_app.supervisor import supervisor
from sessions_app.models import Run
from tests import talk
from tests.conftest import RunningServer
from tests.listening import Listening, following, posting, sending, truth
from tests.model_server import Gate, ModelServer, strict, text, tool_calls

WRITE = '{"path": "a.txt", "content": "x"}'


def queued() -> int:
    return Run.objects.filter(state="queued").count()


def wait_for(client: httpx.Client, count: int) -> None:
    """Until so many messages wait: the server says nothing to those that do."""
    for _ in range(500):
        if queued() == count:
            return
        client.get("/health")
    raise AssertionError(f"{queued()} wait, not {count}")


class Busy:
    """A session `s` whose coder has said "One " and goes on when the gate opens."""

    def __init__(self, client: httpx.Client, model: ModelServer, stack: ExitStack) -> None:
        self.client, self.model, self.stack, self.gate = client, model, stack, Gate()
        model.reply(text("One ", self.gate, "done"))
        self.first = stack.enter_context(posting(client, "s", "1", agent_type="coder"))
        self.first.until(lambda heard: heard.tokens == "One ")

    def queue(self, content: str, **fields: Any) -> Listening:
        before = queued()
        answer = self.stack.enter_context(posting(self.client, "s", content, **fields))
        wait_for(self.client, before + 1)
        return answer

    def told(self) -> list[str]:
        assert strict(self.model.requests[-1].body["messages"]) == []
        return [row["content"] for row in truth(self.client, "s")]

    def sent_up(self) -> list[str]:
        return [message["content"] for message in self.model.requests[-1].body["messages"][1:]]


@pytest.fixture
def busy(client: httpx.Client, model: ModelServer) -> Iterator[Busy]:
    with ExitStack() as stack:
        yield Busy(client, model, stack)


def test_messages_wait_and_are_answered_in_their_order(busy: Busy) -> None:
    busy.model.reply(text("Two"), text("Three"), text("Four"))
    answers = [busy.queue(content) for content in "234"]
    busy.gate.open()
    assert busy.first.ended().contents == ["One done"]
    assert [answer.ended().contents for answer in answers] == [["Two"], ["Three"], ["Four"]]
    assert busy.told() == ["1", "One done", "2", "Two", "3", "Three", "4", "Four"]


def test_a_waiting_message_hears_its_own_turn_only(busy: Busy) -> None:
    busy.model.reply(text("Two"))
    second = busy.queue("2", agent_type="ask")
    busy.gate.open()
    heard = second.ended()
    assert heard.types[0] == "agent_switched"
    assert heard.tokens == "Two"
    assert busy.first.ended().tokens == "One done"


def test_a_refused_message_leaves_no_trace(busy: Busy) -> None:
    heard = talk.say(busy.client, "s", "2", on_busy="reject")
    assert [frame["code"] for frame in heard.frames] == ["SESSION_BUSY"]
    v1 = busy.client.post(
        f"/api/v1{talk.PATH}",
        json={"session_id": "s", "message": {"type": "user_message", "content": "2", "on_busy": "reject"}},
    )
    assert (v1.status_code, v1.json()["code"]) == (409, "SESSION_BUSY")
    assert v1.headers["retry-after"]
    assert queued() == 0
    busy.gate.open()
    busy.first.ended()
    assert busy.told() == ["1", "One done"]
    assert talk.say(busy.client, "s", "3", on_busy="reject").contents == ["Hello world"]


def test_the_default_is_a_setting(busy: Busy, settings: Any) -> None:
    settings.ON_BUSY = "reject"
    assert talk.say(busy.client, "s", "2").types == ["error"]


@pytest.mark.parametrize("way", ["interrupt", "rollback"])
def test_a_message_takes_the_place_of_the_running_one(busy: Busy, way: str) -> None:
    busy.model.reply(text("Two"))
    second = busy.stack.enter_context(posting(busy.client, "s", "2", on_busy=way))
    first = busy.first.ended(seconds=3)
    assert first.error is not None
    assert (first.contents, first.error["code"]) == (["One "], "CANCELLED")
    assert second.ended().contents == ["Two"]
    assert busy.told() == ["1", "One ", "2", "Two"]
    assert busy.sent_up() == (["1", "One ", "2"] if way == "interrupt" else ["2"])


def test_rollback_takes_back_the_turn_that_it_met_and_no_older_one(busy: Busy) -> None:
    busy.client.post("/sessions/s/cancel")
    busy.first.ended(seconds=3)
    gate = Gate()
    busy.model.reply(text("Two ", gate), text("Three"))
    second = busy.stack.enter_context(posting(busy.client, "s", "2"))
    second.until(lambda heard: heard.tokens == "Two ")
    assert talk.say(busy.client, "s", "3", on_busy="rollback").contents == ["Three"]
    assert busy.sent_up() == ["1", "One ", "3"]
    assert talk.say(busy.client, "s", "4").contents == ["Hello world"]
    assert busy.sent_up() == ["1", "One ", "3", "Three", "4"]


@pytest.mark.parametrize("way", ["interrupt", "rollback"])
def test_earlier_messages_keep_their_place_before_an_interrupting_one(busy: Busy, way: str) -> None:
    busy.model.reply(text("Two"), text("Three"))
    second = busy.queue("2")
    third = busy.stack.enter_context(posting(busy.client, "s", "3", on_busy=way))
    assert [second.ended().tokens, third.ended().tokens] == ["Two", "Three"]
    assert busy.told() == ["1", "One ", "2", "Two", "3", "Three"]
    assert busy.sent_up() == (["1", "One ", "2", "Two", "3"] if way == "interrupt" else ["2", "Two", "3"])


def test_one_too_many_is_refused_and_leaves_no_trace(busy: Busy, settings: Any) -> None:
    settings.MAX_WAITING_MESSAGES = 2
    answers = [busy.queue("2"), busy.queue("3")]
    heard = talk.say(busy.client, "s", "4")
    assert [frame["code"] for frame in heard.frames] == ["QUEUE_FULL"]
    body = {"session_id": "s", "message": {"type": "user_message", "content": "4"}}
    v1 = busy.client.post(f"/api/v1{talk.PATH}", json=body)
    assert (v1.status_code, v1.json()["code"], bool(v1.headers["retry-after"])) == (429, "QUEUE_FULL", True)
    for way in ("interrupt", "rollback"):
        assert talk.say(busy.client, "s", "4", on_busy=way).types == ["error"]
    assert queued() == 2
    busy.gate.open()
    assert busy.first.ended().tokens == "One done"
    assert [answer.ended().tokens for answer in answers] == ["Hello world"] * 2
    assert "4" not in busy.told()


def test_who_waits_too_long_is_told_and_forgotten(busy: Busy, settings: Any) -> None:
    settings.QUEUE_WAIT_SECONDS = 0.3
    heard = busy.queue("2").ended()
    assert [frame["code"] for frame in heard.frames] == ["WAITED_TOO_LONG"]
    busy.gate.open()
    busy.first.ended()
    assert busy.told() == ["1", "One done"]
    assert talk.say(busy.client, "s", "3").contents == ["Hello world"]


def test_a_late_message_is_not_started_by_the_turn_before_it(busy: Busy, settings: Any) -> None:
    second, third = busy.queue("2"), busy.queue("3")
    settings.QUEUE_WAIT_SECONDS = 0
    busy.gate.open()
    for answer in (second, third):
        assert [frame["code"] for frame in answer.ended().frames] == ["WAITED_TOO_LONG"]
    assert busy.told() == ["1", "One done"]


def test_a_waiting_message_ends_a_turn_that_comes_to_wait_for_tools(client: httpx.Client, model: ModelServer) -> None:
    gate = Gate()
    model.reply(tool_calls([("call_1", "write_file", WRITE)]).held(gate), text("Two"))
    with posting(client, "s", "1", agent_type="coder") as first:
        assert gate.reached.wait(30)
        with posting(client, "s", "2") as second:
            wait_for(client, 1)
            gate.open()
            assert [call["call_id"] for call in first.ended().calls] == ["call_1"]
            assert second.ended().contents == ["Two"]
    assert client.get("/sessions/s/pending-approvals").json()["count"] == 0
    assert [row["role"] for row in truth(client, "s")] == ["user", "assistant", "tool", "user", "assistant"]
    assert strict(model.requests[-1].body["messages"]) == []
    late = talk.result(client, "s", "call_1", "late")
    assert late.error is not None
    assert late.error["code"] == "CALL_CLOSED"


def test_a_failing_turn_lets_the_next_one_go(busy: Busy) -> None:
    busy.model.reply(text("Two"))
    second = busy.queue("2")
    busy.model.drop_connections()
    assert busy.first.ended().error is not None
    assert second.ended().contents == ["Two"]
    assert busy.told() == ["1", "One ", "2", "Two"]


def test_a_waiting_message_whose_client_hung_up_is_answered(busy: Busy, server: RunningServer) -> None:
    busy.model.reply(text("Two"))
    busy.queue("2").hang_up()
    with following(busy.client, "s") as log:
        log.begun()
        busy.gate.open()
        log.until(lambda heard: "Two" in heard.contents)
    server.idle()
    assert busy.told() == ["1", "One done", "2", "Two"]


def test_results_and_switches_do_not_wait(client: httpx.Client, model: ModelServer) -> None:
    gate = Gate()
    model.reply(text("One ", gate, "done"))
    with posting(client, "s", "1", agent_type="coder") as first:
        first.until(lambda heard: heard.tokens == "One ")
        assert talk.send(client, "s", {"type": "switch_agent", "agent_type": "ask"}).types == ["agent_switched"]
        assert [frame["code"] for frame in talk.result(client, "s", "nope", 1).frames] == ["CALL_NOT_FOUND"]
        gate.open()
        assert first.ended().contents == ["One done"]
    assert client.get("/sessions/s/history").json()["current_agent"] == "ask"


def together(jobs: list[Any]) -> None:
    barrier = threading.Barrier(len(jobs))

    def run(job: Any) -> None:
        barrier.wait(30)
        job()

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)


@contextmanager
def own_client(client: httpx.Client) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=client.base_url, headers=client.headers, timeout=30) as one:
        yield one


def test_messages_at_once_never_interleave(client: httpx.Client, model: ModelServer) -> None:
    model.always(lambda body: text(f"answer to {body['messages'][-1]['content']}"))
    heard: dict[str, str] = {}

    def say(content: str) -> None:
        with own_client(client) as one:
            heard[content] = talk.say(one, "s", content, agent_type="ask").tokens

    together([lambda content=content: say(content) for content in "abcdefgh"])  # type: ignore[misc]
    assert heard == {content: f"answer to {content}" for content in "abcdefgh"}
    rows = truth(client, "s")
    assert [row["role"] for row in rows] == ["user", "assistant"] * 8
    for question, answer in zip(rows[::2], rows[1::2], strict=True):
        assert answer["content"] == f"answer to {question['content']}"
    for request in model.requests:
        assert strict(request.body["messages"]) == []
    assert Run.objects.filter(state="completed").count() == 8


def test_other_sessions_never_wait(busy: Busy) -> None:
    for number in range(5):
        assert talk.say(busy.client, f"other-{number}", "hi", agent_type="ask").contents == ["Hello world"]
    assert not busy.first.over


def test_a_deleted_session_ends_its_turn_and_its_queue(busy: Busy) -> None:
    second = busy.queue("2")
    assert busy.client.delete("/sessions/s").status_code == 204
    for answer in (busy.first, second):
        answer.ended(seconds=5)
        assert answer.heard.frames[-1]["code"] == "CANCELLED"
    assert talk.say(busy.client, "s", "again", agent_type="ask").contents == ["Hello world"]
    assert [row["content"] for row in truth(busy.client, "s")] == ["again", "Hello world"]


def test_a_turn_that_lost_its_session_writes_nothing_into_the_next_one(busy: Busy, server: RunningServer) -> None:
    """An operator closes and opens the session; the old turn's words come while the new one speaks."""
    from sessions_app import services

    second_gate = Gate()
    busy.model.reply(text("New ", second_gate, "answer"))
    services.deactivate("s")
    services.activate("s")
    with posting(busy.client, "s", "2") as second:
        second.until(lambda heard: heard.tokens == "New ")
        busy.gate.open()
        asyncio.run_coroutine_threadsafe(supervisor._tick(), server.loop).result(30)
        second_gate.open()
        assert second.ended().tokens == "New answer"
    first = busy.first.ended()
    assert first.error is not None
    assert first.error["code"] == "CANCELLED"
    assert busy.told()[-1] == "New answer"


def test_an_inactive_session_refuses_in_its_own_words(client: httpx.Client, model: ModelServer) -> None:
    from sessions_app import services

    talk.say(client, "s", "hi", agent_type="ask")
    services.deactivate("s")
    assert [frame["code"] for frame in talk.say(client, "s", "2").frames] == ["SESSION_INACTIVE"]
    with sending(client, "s", {"type": "switch_agent", "agent_type": "debug"}) as answer:
        assert [frame["code"] for frame in answer.ended().frames] == ["SESSION_INACTIVE"]
    body = {"session_id": "s", "message": {"type": "user_message", "content": "2"}}
    assert client.post(f"/api/v1{talk.PATH}", json=body).status_code == 409
