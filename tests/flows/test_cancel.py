"""A person stops a turn, whatever it is doing."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from sessions_app.models import Run
from tests import talk
from tests.conftest import RunningServer
from tests.listening import Listening, Socket, posting, sending, truth
from tests.model_server import Gate, ModelServer, hang_before_head, strict, text, tool_calls, verdict

READ = '{"path": "a.txt"}'
WRITE = '{"path": "a.txt", "content": "x"}'
Stop = Callable[[httpx.Client, str], None]


def by_rest(client: httpx.Client, session_id: str) -> None:
    assert client.post(f"/sessions/{session_id}/cancel").status_code == 200


def by_run(client: httpx.Client, session_id: str) -> None:
    run = Run.objects.filter(session__session_id=session_id, state__in=["running", "waiting", "queued"]).first()
    assert run is not None
    assert client.post(f"/api/v1/runs/{run.pk}/cancel").status_code == 200


def by_socket(client: httpx.Client, session_id: str) -> None:
    with Socket(str(client.base_url).replace("http", "ws", 1).rstrip("/"), session_id) as socket:
        socket.send({"type": "cancel", "message_id": "m-1"})
        told = socket.next()
        assert (told["type"], told["message_id"]) == ("ack", "m-1")
        assert told["run_id"]


WAYS = pytest.mark.parametrize("stop", [by_rest, by_run, by_socket])


def usable(client: httpx.Client, model: ModelServer, session_id: str = "s") -> None:
    """The next message is answered, and what goes up is valid."""
    heard = talk.say(client, session_id, "And now?", agent_type="coder")
    assert heard.contents == ["Hello world"]
    assert strict(model.requests[-1].body["messages"]) == []
    truth(client, session_id)


def stopped(heard: talk.Heard) -> None:
    assert heard.frames[-1] == {
        "type": "error", "content": "Stopped.", "error": "Stopped.", "code": "CANCELLED", "is_final": True,
    }  # fmt: skip
    assert heard.types.count("error") == 1
    assert [frame["is_final"] for frame in heard.frames[:-1]] == [False] * (len(heard.frames) - 1)


@WAYS
def test_text_shown_so_far_is_kept_and_marked(client: httpx.Client, model: ModelServer, stop: Stop) -> None:
    gate = Gate()
    model.reply(text("Half of ", gate, "the answer"))
    with posting(client, "s", "Go", agent_type="coder") as answer:
        answer.until(lambda heard: heard.tokens == "Half of ")
        stop(client, "s")
        heard = answer.ended(seconds=3)
    stopped(heard)
    assert heard.contents == ["Half of "]
    assert truth(client, "s")[-1] == {"role": "assistant", "content": "Half of ", "interrupted": True}
    gate.open()
    usable(client, model)


async def test_the_upstream_connection_is_closed(client: httpx.Client, model: ModelServer) -> None:
    model.reply(text("Half ", Gate(), "never"))
    with posting(client, "s", "Go", agent_type="coder") as answer:
        answer.until(lambda heard: heard.tokens == "Half ")
        by_rest(client, "s")
        await model.until(lambda: model.connections_closed_by_client == 1, 3)


@WAYS
def test_a_silent_model_is_left(client: httpx.Client, model: ModelServer, stop: Stop) -> None:
    reply = hang_before_head()
    model.reply(reply)
    with posting(client, "s", "Go", agent_type="coder") as answer:
        assert reply.before_head is not None
        assert reply.before_head.reached.wait(30)
        stop(client, "s")
        heard = answer.ended(seconds=3)
    stopped(heard)
    assert heard.contents == []
    assert truth(client, "s") == [{"role": "user", "content": "Go"}]
    usable(client, model)


@WAYS
def test_routing_is_left(client: httpx.Client, model: ModelServer, stop: Stop) -> None:
    gate = Gate()
    model.route(verdict("ask").held(gate))
    with posting(client, "s", "Go") as answer:
        assert gate.reached.wait(30)
        stop(client, "s")
        stopped(answer.ended(seconds=3))
    assert len(model.requests) == 1
    assert client.get("/sessions/s/history").json()["current_agent"] == "orchestrator"
    usable(client, model)


def test_the_second_step_is_left_and_the_calls_keep_their_results(client: httpx.Client, model: ModelServer) -> None:
    reply = hang_before_head()
    model.reply(tool_calls([("call_1", "read_file", READ)], "Reading."), reply)
    talk.say(client, "s", "Read", agent_type="coder")
    with posting_result(client, "call_1") as answer:
        assert reply.before_head is not None
        assert reply.before_head.reached.wait(30)
        by_rest(client, "s")
        stopped(answer.ended(seconds=3))
    assert [row["role"] for row in truth(client, "s")] == ["user", "assistant", "tool"]
    usable(client, model)


def posting_result(client: httpx.Client, call_id: str) -> Listening:
    return sending(client, "s", {"type": "tool_result", "call_id": call_id, "result": "content"})


@WAYS
@pytest.mark.parametrize(("tool", "arguments"), [("read_file", READ), ("write_file", WRITE)])
def test_open_calls_and_approvals_are_closed(
    client: httpx.Client, model: ModelServer, stop: Stop, tool: str, arguments: str
) -> None:
    model.reply(tool_calls([("call_1", tool, arguments), ("call_2", tool, arguments)], "Working."))
    talk.say(client, "s", "Go", agent_type="coder")
    stop(client, "s")
    assert client.get("/sessions/s/pending-approvals").json()["count"] == 0
    messages = truth(client, "s")
    assert [row["role"] for row in messages] == ["user", "assistant", "tool", "tool"]
    assert {row["content"] for row in messages[2:]} == {"no result; it is not known whether it ran"}
    late = talk.result(client, "s", "call_1", "too late")
    assert late.error is not None
    assert late.error["code"] == "CALL_CLOSED"
    decided = talk.decide(client, "s", "call_2", "approve")
    assert decided.types == ["error"]
    assert truth(client, "s") == messages
    usable(client, model)


def test_a_call_that_has_its_result_keeps_it(client: httpx.Client, model: ModelServer) -> None:
    model.reply(tool_calls([("call_1", "read_file", READ), ("call_2", "read_file", READ)]))
    talk.say(client, "s", "Go", agent_type="coder")
    assert talk.result(client, "s", "call_1", "first").frames == []
    by_rest(client, "s")
    tools = {row["tool_call_id"]: row["content"] for row in truth(client, "s") if row["role"] == "tool"}
    assert tools == {"call_1": "first", "call_2": "no result; it is not known whether it ran"}
    usable(client, model)


def test_the_running_turn_is_stopped_and_the_waiting_ones_go_on(client: httpx.Client, model: ModelServer) -> None:
    gate = Gate()
    model.reply(text("One ", gate, "never"), text("Two"), text("Three"))
    with posting(client, "s", "1", agent_type="coder") as first:
        first.until(lambda heard: heard.tokens == "One ")
        with posting(client, "s", "2") as second:
            second.begun()
            with posting(client, "s", "3") as third:
                third.begun()
                by_rest(client, "s")
                stopped(first.ended(seconds=3))
                assert second.ended().contents == ["Two"]
                assert third.ended().contents == ["Three"]
    assert [row["content"] for row in truth(client, "s")] == ["1", "One ", "2", "Two", "3", "Three"]


def test_a_waiting_message_is_cancelled_by_its_run_and_no_other(client: httpx.Client, model: ModelServer) -> None:
    gate = Gate()
    model.reply(text("One ", gate, "done"), text("Three"))
    with posting(client, "s", "1", agent_type="coder") as first:
        first.until(lambda heard: heard.tokens == "One ")
        with posting(client, "s", "2") as second, posting(client, "s", "3") as third:
            second.begun()
            third.begun()
            run = Run.objects.filter(state="queued").order_by("pk")[0]
            waiting = run.request["content"]
            assert client.post(f"/api/v1/runs/{run.pk}/cancel").status_code == 200
            cancelled, going_on = (second, third) if waiting == "2" else (third, second)
            stopped(cancelled.ended(seconds=3))
            gate.open()
            assert first.ended().contents == ["One done"]
            assert going_on.ended().contents == ["Three"]
    assert waiting not in [row["content"] for row in truth(client, "s")]


def test_stopping_again_and_when_nothing_runs_changes_nothing(client: httpx.Client, model: ModelServer) -> None:
    client.post("/sessions", json={"session_id": "s"})
    assert client.post("/sessions/s/cancel").status_code == 200
    talk.say(client, "s", "Go", agent_type="coder")
    before = client.get("/sessions/s/history").content
    assert client.post("/sessions/s/cancel").status_code == 200
    run = Run.objects.get()
    assert client.post(f"/api/v1/runs/{run.pk}/cancel").status_code == 200
    assert client.get("/sessions/s/history").content == before
    usable(client, model)


def test_unknown_sessions_and_runs_are_404(client: httpx.Client) -> None:
    answer = client.post("/sessions/nobody/cancel")
    assert (answer.status_code, answer.json()["detail"]) == (404, "Session nobody not found")
    assert client.post("/api/v1/runs/4711/cancel").status_code == 404


def test_a_cancel_right_behind_its_message_stops_it(
    client: httpx.Client, server: RunningServer, model: ModelServer
) -> None:
    model.always(hang_before_head())
    for number in range(20):
        with Socket(server.websocket_url, f"s{number}") as socket:
            socket.say("Go", agent_type="coder")
            socket.send({"type": "cancel"})
            frames = socket.until(lambda frame: frame["type"] == "end", 3)
            assert [frame["code"] for frame in frames if frame["type"] == "error"] == ["CANCELLED"]
        assert [row["role"] for row in truth(client, f"s{number}")] == ["user"]


def test_a_turn_stopped_in_its_first_moment_ends(client: httpx.Client, model: ModelServer) -> None:
    """The cancel comes while the message's own transaction has only just been committed."""
    model.always(hang_before_head())
    for number in range(20):
        session_id = f"s{number}"
        with posting(client, session_id, "Go", agent_type="coder") as answer:
            while client.post(f"/sessions/{session_id}/cancel").json().get("run_id") is None:
                pass
            stopped(answer.ended(seconds=3))


def test_a_cancel_that_meets_the_calls_of_the_answer_closes_them(client: httpx.Client, model: ModelServer) -> None:
    """Whichever comes first: no cancelled turn is left waiting for its tools."""
    for number in range(20):
        session_id, gate = f"s{number}", Gate()
        model.reply(tool_calls([("call_1", "write_file", WRITE)]).held(gate))
        with posting(client, session_id, "Go", agent_type="coder") as answer:
            assert gate.reached.wait(30)
            gate.open()
            by_rest(client, session_id)
            answer.ended(seconds=3)
        assert Run.objects.get(session__session_id=session_id).state == "cancelled"
        assert client.get(f"/sessions/{session_id}/pending-approvals").json()["count"] == 0
        truth(client, session_id)
