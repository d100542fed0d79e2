"""What a process left behind is found, told and put right."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import time
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.utils import timezone

from agents_app.supervisor import supervisor
from sessions_app.models import Event, Message, Run, Session
from tests import talk
from tests.conftest import RunningServer
from tests.faults.processes import calling, started
from tests.listening import following, posting, same_story, stored, truth
from tests.model_server import Gate, ModelServer, hang_before_head, status, strict, text, tool_calls, verdict

WRITE = '{"path": "a.txt", "content": "x"}'
NOBODY = f"elsewhere:{2**22}:00000000"


def tick(server: RunningServer) -> None:
    asyncio.run_coroutine_threadsafe(supervisor._tick(), server.loop).result(30)


def abandoned(server: RunningServer, session_id: str = "s", *, kept: str) -> Run:
    """What a killed process leaves: its run at work, its lease run out, the text of its last checkpoint."""
    [run] = Run.objects.filter(session__session_id=session_id, state="running")

    def lost() -> None:
        task = supervisor._tasks.get(run.pk)
        if task is not None:
            supervisor.stop(run.pk, None)

    server.loop.call_soon_threadsafe(lost)
    server.idle()
    Message.objects.filter(run=run, state="open").update(content=kept)
    late = timezone.now() - timedelta(seconds=1)
    Run.objects.filter(pk=run.pk).update(lease_owner=NOBODY, lease_until=late)
    return run


def begun(client: httpx.Client, model: ModelServer, stack: ExitStack, words: str = "one two ") -> talk.Heard:
    model.reply(text(words, Gate()))
    answer = stack.enter_context(posting(client, "s", "Go", agent_type="coder"))
    return answer.until(lambda heard: heard.tokens == words)


def test_a_turn_without_an_owner_ends_as_interrupted(
    client: httpx.Client, server: RunningServer, model: ModelServer
) -> None:
    with ExitStack() as stack:
        begun(client, model, stack)
        run = abandoned(server, kept="one ")
        before = Session.objects.get().last_activity
        tick(server)
    assert Run.objects.get(pk=run.pk).state == "interrupted"
    assert Session.objects.get().last_activity == before
    assert truth(client, "s")[-1] == {"role": "assistant", "content": "one ", "interrupted": True}
    error = stored(client, "s").frames[-1]
    assert (error["type"], error["code"], error["is_final"]) == ("error", "INTERRUPTED", True)
    assert "4" in error["content"]
    assert talk.say(client, "s", "And now?").contents == ["Hello world"]
    assert strict(model.requests[-1].body["messages"]) == []
    truth(client, "s")


def test_its_live_readers_are_told_too(client: httpx.Client, server: RunningServer, model: ModelServer) -> None:
    model.reply(text("one two ", Gate()))
    with posting(client, "s", "Go", agent_type="coder") as answer:
        answer.until(lambda heard: heard.tokens == "one two ")
        abandoned(server, kept="one ")
        tick(server)
        heard = answer.ended()
    assert heard.error is not None
    assert heard.error["code"] == "INTERRUPTED"
    assert heard.contents == ["one "]  # less than was seen: the closing frame says what was kept


def test_a_reader_that_saw_more_than_was_kept_reads_on(
    client: httpx.Client, server: RunningServer, model: ModelServer
) -> None:
    with ExitStack() as stack:
        cursor = begun(client, model, stack).cursors[-1]
        abandoned(server, kept="one ")
        tick(server)
    heard = stored(client, "s", cursor)
    assert heard.tokens == ""
    assert heard.contents == ["one "]
    assert heard.error is not None
    assert heard.error["code"] == "INTERRUPTED"


def test_its_queue_goes_on(client: httpx.Client, server: RunningServer, model: ModelServer) -> None:
    with ExitStack() as stack:
        begun(client, model, stack)
        waiting = stack.enter_context(posting(client, "s", "2"))
        waiting.begun()
        abandoned(server, kept="")
        model.reply(text("Two"))
        tick(server)
        assert waiting.ended().contents == ["Two"]
    assert [row["content"] for row in truth(client, "s")] == ["Go", "2", "Two"]


def test_a_message_that_only_waited_is_started_by_whoever_finds_it(
    client: httpx.Client, server: RunningServer, model: ModelServer
) -> None:
    from dataclasses import asdict

    from sessions_app import runs

    talk.say(client, "s", "Go", agent_type="coder")
    request = runs.Request("Left behind")
    Run.objects.create(session=Session.objects.get(), request=asdict(request))
    tick(server)
    server.idle()
    assert [row["content"] for row in truth(client, "s")][-2:] == ["Left behind", "Hello world"]


def test_runs_that_wait_for_people_are_left_alone(
    client: httpx.Client, server: RunningServer, model: ModelServer
) -> None:
    model.reply(tool_calls([("call_1", "write_file", WRITE)]))
    talk.say(client, "s", "Go", agent_type="coder")
    Run.objects.update(lease_owner=NOBODY, started_at=timezone.now() - timedelta(days=30))
    before = Event.objects.count()
    tick(server)
    assert Event.objects.count() == before
    assert talk.result(client, "s", "call_1", "ok").contents == ["Hello world"]


def test_who_lost_its_lease_writes_nothing_more(
    client: httpx.Client, server: RunningServer, model: ModelServer
) -> None:
    gate = Gate()
    model.reply(text("one ", gate, "two"))
    with posting(client, "s", "Go", agent_type="coder") as answer:
        answer.until(lambda heard: heard.tokens == "one ")
        late = timezone.now() - timedelta(seconds=1)
        Run.objects.update(lease_owner=NOBODY, lease_until=late)
        tick(server)
        gate.open()
        server.idle()
        heard = answer.ended()
    assert heard.error is not None
    assert Run.objects.get().state == "interrupted"
    assert [row["role"] for row in truth(client, "s")][:1] == ["user"]
    assert talk.say(client, "s", "And now?").contents == ["Hello world"]


# --- again -------------------------------------------------------------------------------------------------------


def retry(client: httpx.Client, path: str = "/sessions/s/retry") -> talk.Heard:
    answer = client.post(path)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    return talk.parse(answer.content)


@pytest.mark.parametrize("path", ["/sessions/s/retry", "/api/v1/sessions/s/retry"])
@pytest.mark.parametrize("end", ["interrupted", "failed", "cancelled"])
def test_a_turn_that_was_cut_is_run_again(
    client: httpx.Client, server: RunningServer, model: ModelServer, end: str, path: str
) -> None:
    with ExitStack() as stack:
        begun(client, model, stack)
        if end == "interrupted":
            abandoned(server, kept="one ")
            tick(server)
        elif end == "failed":
            model.drop_connections()
        else:
            client.post("/sessions/s/cancel")
        server.idle()
    model.reply(text("The whole answer"))
    heard = retry(client, path)
    assert heard.contents == ["The whole answer"]
    sent = model.requests[-1].body["messages"]
    assert [(message["role"], message["content"]) for message in sent[1:]] == [("user", "Go")]
    assert strict(sent) == []
    rows = truth(client, "s")
    assert [row["role"] for row in rows] == ["user", "assistant", "assistant"]
    assert rows[1]["interrupted"] is True
    talk.say(client, "s", "Next")
    assert [message["content"] for message in model.requests[-1].body["messages"][1:]] == [
        "Go", "The whole answer", "Next",
    ]  # fmt: skip


def test_it_may_fail_again_and_be_run_again(client: httpx.Client, model: ModelServer) -> None:
    model.reply(status(400), text("half", finish="length"), text("Whole"))
    talk.say(client, "s", "Go", agent_type="coder")
    assert retry(client).error is not None
    assert retry(client).contents == ["Whole"]
    assert [message["content"] for message in model.requests[-1].body["messages"][1:]] == ["Go"]
    truth(client, "s")


def test_a_turn_that_failed_while_routing_is_routed_again(
    client: httpx.Client, server: RunningServer, model: ModelServer
) -> None:
    gate = Gate()
    model.route(verdict("ask").held(gate), verdict("debug"))
    with posting(client, "s", "Go") as answer:
        assert gate.reached.wait(30)
        client.post("/sessions/s/cancel")
        answer.ended()
    heard = retry(client)
    assert heard.frames[0]["metadata"]["to_agent"] == "debug"
    assert heard.contents == ["Hello world"]
    assert [row["content"] for row in truth(client, "s")] == ["Go", "Hello world"]


def test_a_message_cancelled_while_it_waited_is_said_at_last(client: httpx.Client, model: ModelServer) -> None:
    gate = Gate()
    model.reply(text("one ", gate, "two"), text("Two"))
    with posting(client, "s", "1", agent_type="coder") as first:
        first.until(lambda heard: heard.tokens == "one ")
        with posting(client, "s", "2") as second:
            second.begun()
            run = Run.objects.get(state="queued")
            client.post(f"/api/v1/runs/{run.pk}/cancel")
            second.ended()
        gate.open()
        first.ended()
    assert retry(client).contents == ["Two"]
    assert [row["content"] for row in truth(client, "s")] == ["1", "one two", "2", "Two"]
    assert strict(model.requests[-1].body["messages"]) == []


def test_after_a_failure_behind_tools_the_calls_are_not_made_again(client: httpx.Client, model: ModelServer) -> None:
    model.reply(tool_calls([("call_1", "read_file", '{"path": "a"}')], "Reading."), status(400), text("Read"))
    talk.say(client, "s", "Go", agent_type="coder")
    assert talk.result(client, "s", "call_1", "content").error is not None
    assert retry(client).contents == ["Read"]
    sent = model.requests[-1].body["messages"]
    assert [message["role"] for message in sent] == ["system", "user", "assistant", "tool"]
    truth(client, "s")


def refused(client: httpx.Client, code: str, status_code: int = 409) -> None:
    answer = client.post("/sessions/s/retry")
    assert (answer.status_code, answer.json()["code"]) == (status_code, code)


def test_there_must_be_something_to_run_again(client: httpx.Client, model: ModelServer) -> None:
    refused(client, "SESSION_NOT_FOUND", 404)
    client.post("/sessions", json={"session_id": "s"})
    refused(client, "NOTHING_TO_RETRY")
    talk.say(client, "s", "Go", agent_type="coder")
    refused(client, "NOTHING_TO_RETRY")
    assert client.get("/sessions/s/retry").status_code == 405


def test_a_turn_at_work_is_not_run_twice(client: httpx.Client, model: ModelServer) -> None:
    reply = hang_before_head()
    model.reply(reply)
    with posting(client, "s", "Go", agent_type="coder"):
        assert reply.before_head is not None
        assert reply.before_head.reached.wait(30)
        refused(client, "SESSION_BUSY")
    assert len(model.requests) == 1


def test_one_that_waits_for_tools_is_not_run_again(client: httpx.Client, model: ModelServer) -> None:
    model.reply(tool_calls([("call_1", "write_file", WRITE)]))
    talk.say(client, "s", "Go", agent_type="coder")
    refused(client, "SESSION_BUSY")
    assert client.get("/sessions/s/pending-approvals").json()["count"] == 1


# --- a killed process --------------------------------------------------------------------------------------------


def test_a_killed_server_loses_no_message_and_leaves_no_session_stuck(tmp_path: Path) -> None:
    """SIGKILL in the middle of a stream, and again; the next process on the same file goes on at once."""
    words = "word " * 100
    with ModelServer() as model, ExitStack() as stack:
        first = stack.enter_context(started(tmp_path, model, AGENT_RUNTIME__LEASE_SECONDS="90"))
        client = stack.enter_context(calling(first))
        model.reply(tool_calls([("call_1", "write_file", WRITE)]))
        talk.say(client, "tools", "Go", agent_type="coder")
        model.reply(text(words, Gate()))
        answer = stack.enter_context(posting(client, "s", "Go", agent_type="coder", message_id="k-1"))
        heard = answer.until(lambda heard: heard.tokens == words)
        waiting = stack.enter_context(posting(client, "s", "And I", message_id="k-2"))
        waiting.begun()
        path = tmp_path / "runtime.sqlite3"
        until_kept(path, len(words))
        first.process.send_signal(signal.SIGKILL)
        assert first.process.wait(30) == -signal.SIGKILL

        second = stack.enter_context(started(tmp_path, model))
        client = stack.enter_context(calling(second))
        with following(client, "s", heard.cursors[-1]) as log:
            later = log.until(lambda heard: "Hello world" in heard.contents, 40)  # sooner than the lease
        assert later.error is not None
        assert later.error["code"] == "INTERRUPTED"
        rows = truth(client, "s")
        assert [row["content"] for row in rows] == ["Go", words, "And I", "Hello world"]
        assert rows[1]["interrupted"] is True
        again = talk.say(client, "s", "Go", agent_type="coder", message_id="k-1")
        assert again.error == later.error
        assert again.tokens == words
        assert client.get("/sessions/tools/pending-approvals").json()["count"] == 1
        assert talk.result(client, "tools", "call_1", "ok").contents == ["Hello world"]
        assert talk.say(client, "s", "More").contents == ["Hello world"]
        assert strict(model.requests[-1].body["messages"]) == []
        same_story(stored(client, "s"), talk.parse(client.get("/sessions/s/stream?after=0.0&follow=false").content))


def until_kept(path: Path, characters: int) -> None:
    """Until the checkpoint of the last second is in the file."""

    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        link = sqlite3.connect(path)
        try:
            [(kept,)] = link.execute("SELECT max(length(content)) FROM sessions_app_message WHERE state = 'open'")
        finally:
            link.close()
        if kept == characters:
            return
        time.sleep(0.05)
    raise AssertionError("no checkpoint")


@pytest.mark.parametrize(
    ("owner", "lives"),
    [
        (lambda host: f"{host}:{2**22 + 1}:abc", False),
        (lambda host: f"{host}:{os.getpid()}:abc", False),  # it was an earlier process with our number
        (lambda host: f"{host}:1:abc", True),
        (lambda host: "elsewhere:1:abc", True),
    ],
)
def test_whose_leases_end_at_the_start(owner: Any, lives: bool) -> None:
    import socket

    from agents_app.supervisor import _lives

    assert _lives(owner(socket.gethostname()[:32])) is lives
