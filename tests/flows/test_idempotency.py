"""The same message said twice is one message, in whatever state its turn is."""

from __future__ import annotations

import threading
from typing import Any

import httpx
import pytest

from sessions_app.models import Message, Run
from tests import talk
from tests.listening import posting, same_story, stored, truth
from tests.model_server import Gate, ModelServer, hang_before_head, status, strict, text, tool_calls

WRITE = '{"path": "a.txt", "content": "x"}'
HELLO = {"type": "user_message", "content": "Hi", "agent_type": "ask"}


def by_header(client: httpx.Client, key: str = "k-1", **fields: Any) -> talk.Heard:
    answer = talk.post(client, "s", {**HELLO, **fields}, **{"Idempotency-Key": key})
    assert answer.status_code == 200, answer.text
    return talk.parse(answer.content)


def by_message(client: httpx.Client, key: str = "k-1", **fields: Any) -> talk.Heard:
    return talk.send(client, "s", {**HELLO, "message_id": key, **fields})


WAYS = pytest.mark.parametrize("say", [by_header, by_message])


def one_run(client: httpx.Client, model: ModelServer, requests: int = 1) -> None:
    assert Run.objects.count() == 1
    assert Message.objects.filter(role="user").count() == 1
    assert len(model.requests) == requests
    truth(client, "s")


@WAYS
def test_an_answered_message_is_answered_the_same_again(client: httpx.Client, model: ModelServer, say: Any) -> None:
    first = say(client)
    for again in (by_header(client), by_message(client)):
        same_story(first, again)
        assert again.cursors[-1] == first.cursors[-1]
    one_run(client, model)


@WAYS
def test_a_running_message_is_heard_from_its_start(client: httpx.Client, model: ModelServer, say: Any) -> None:
    gate = Gate()
    model.reply(text("one ", gate, "two"))
    with posting(client, "s", "Hi", agent_type="ask", message_id="k-1") as first:
        first.until(lambda heard: heard.tokens == "one ")
        with posting(client, "s", "Hi", agent_type="ask", message_id="k-1") as second:
            second.until(lambda heard: heard.tokens == "one ")
            gate.open()
            same_story(first.ended(), second.ended())
    same_story(first.heard, say(client))
    one_run(client, model)


def test_a_waiting_message_waits_once(client: httpx.Client, model: ModelServer) -> None:
    gate = Gate()
    model.reply(text("One", gate), text("Two"))
    with posting(client, "s", "first", agent_type="ask") as busy:
        busy.until(lambda heard: heard.tokens == "One")
        with (
            posting(client, "s", "Hi", message_id="k-1") as second,
            posting(client, "s", "Hi", message_id="k-1") as third,
        ):
            second.begun()
            third.begun()
            assert Run.objects.count() == 2
            gate.open()
            assert second.ended().contents == third.ended().contents == ["Two"]
    assert len(model.requests) == 2
    truth(client, "s")


def test_a_turn_that_waits_for_tools_is_told_up_to_its_calls(client: httpx.Client, model: ModelServer) -> None:
    model.reply(tool_calls([("call_1", "write_file", WRITE)], "Writing."), text("Done"))
    first = by_message(client, agent_type="coder")
    same_story(first, by_message(client, agent_type="coder"))
    one_run(client, model)
    done = talk.result(client, "s", "call_1", "ok")
    again = by_message(client, agent_type="coder")
    assert again.tokens == "Writing.Done"
    assert again.frames[-1] == done.frames[-1]
    one_run(client, model, requests=2)


def test_a_failed_turn_stays_failed(client: httpx.Client, model: ModelServer) -> None:
    model.reply(status(400))
    first = by_message(client)
    assert first.error is not None
    same_story(first, by_message(client))
    one_run(client, model)


def test_a_cancelled_turn_stays_cancelled(client: httpx.Client, model: ModelServer) -> None:
    reply = hang_before_head()
    model.reply(reply)
    with posting(client, "s", "Hi", agent_type="ask", message_id="k-1") as first:
        assert reply.before_head is not None
        assert reply.before_head.reached.wait(30)
        client.post("/sessions/s/cancel")
        first.ended()
    same_story(first.heard, by_message(client))
    one_run(client, model)


@WAYS
@pytest.mark.parametrize("fields", [{"content": "Other"}, {"content": "Hi "}, {"agent_type": "debug"}])
def test_another_message_under_the_same_key_is_refused(
    client: httpx.Client, model: ModelServer, say: Any, fields: dict[str, Any]
) -> None:
    say(client)
    before = talk.history(client, "s")
    heard = say(client, **fields)
    assert [frame["code"] for frame in heard.frames] == ["IDEMPOTENCY_CONFLICT"]
    body = {"session_id": "s", "message": {**HELLO, "message_id": "k-1", **fields}}
    v1 = client.post(f"/api/v1{talk.PATH}", json=body)
    assert (v1.status_code, v1.json()["code"]) == (409, "IDEMPOTENCY_CONFLICT")
    assert talk.history(client, "s") == before
    one_run(client, model)
    assert say(client, key="k-2", **fields).error is None
    assert strict(model.requests[-1].body["messages"]) == []


def test_the_header_counts_before_the_message(client: httpx.Client, model: ModelServer) -> None:
    by_header(client, key="h", message_id="m")
    assert by_message(client, key="h").contents == ["Hello world"]
    one_run(client, model)


def test_a_key_is_its_sessions_own(client: httpx.Client, model: ModelServer) -> None:
    by_message(client)
    other = talk.send(client, "other", {**HELLO, "content": "Something else", "message_id": "k-1"})
    assert other.contents == ["Hello world"]
    assert Run.objects.count() == 2


def test_keys_of_any_kind(client: httpx.Client, model: ModelServer) -> None:
    for key in ("x" * 255, "ключ \U0001f642", " ", "null", "0"):
        assert by_message(client, key=key).contents == by_message(client, key=key).contents == ["Hello world"]
    assert Run.objects.count() == 5


def test_without_a_key_every_message_counts(client: httpx.Client, model: ModelServer) -> None:
    for _ in range(2):
        talk.send(client, "s", {**HELLO, "message_id": None})
    assert Run.objects.count() == 2


def test_an_old_message_is_told_even_where_new_ones_are_refused(
    client: httpx.Client, model: ModelServer, settings: Any
) -> None:
    first = by_message(client)
    settings.MAX_MESSAGES_PER_SESSION = 1
    same_story(first, by_message(client))
    assert [frame["code"] for frame in by_message(client, key="k-2").frames] == ["SESSION_FULL"]


def test_the_same_message_from_many_at_once_is_one(client: httpx.Client, model: ModelServer) -> None:
    heard: list[talk.Heard] = []
    barrier = threading.Barrier(6)

    def say() -> None:
        with httpx.Client(base_url=client.base_url, headers=client.headers, timeout=30) as one:
            barrier.wait(30)
            heard.append(by_message(one))

    threads = [threading.Thread(target=say) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [one.contents for one in heard] == [["Hello world"]] * 6
    same_story(heard[0], stored(client, "s"))
    one_run(client, model)
