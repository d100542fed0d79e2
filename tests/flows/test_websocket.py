"""The WebSocket of a session: many messages on one connection, and reading on from any character."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from sessions_app.models import Run, Session
from tests import talk
from tests.conftest import RunningServer
from tests.listening import Socket, heard_of, posting, same_story, stored, truth, without_deltas
from tests.model_server import Gate, ModelServer, strict, text, tool_calls

READ = '{"path": "a.txt"}'
WRITE = '{"path": "a.txt", "content": "x"}'


@pytest.fixture
def url(server: RunningServer) -> str:
    return server.websocket_url


def refusal(frames: list[dict[str, Any]]) -> str:
    [error] = [frame for frame in frames if frame["type"] == "error"]
    assert error["content"] == error["error"]
    assert error["is_final"] is True
    return str(error["code"])


# --- a turn ------------------------------------------------------------------------------------------------------


def test_a_turn_is_acked_told_and_ended(url: str, client: httpx.Client, model: ModelServer) -> None:
    model.reply(text("Hello there"))
    with Socket(url, "s") as socket:
        socket.say("Hi", message_id="m-1")
        frames = socket.until(lambda frame: frame["type"] == "end")
    run = Run.objects.get()
    ack, *_, end = frames
    assert ack == {"type": "ack", "message_id": "m-1", "run_id": str(run.pk), "cursor": ack["cursor"]}
    assert (end["type"], end["run_id"]) == ("end", str(run.pk))
    assert all(frame["cursor"] for frame in frames)
    heard = heard_of(frames)
    assert heard.types[0] == "agent_switched"
    assert (heard.tokens, heard.contents) == ("Hello there", ["Hello there"])
    same_story(heard, stored(client, "s"))
    truth(client, "s")


def test_the_message_is_stored_before_its_ack(url: str, client: httpx.Client, model: ModelServer) -> None:
    gate = Gate()
    model.reply(text("x").held(gate))
    with Socket(url, "s") as socket:
        socket.say("Hi", agent_type="ask")
        assert socket.next()["type"] == "ack"
        assert [row["content"] for row in talk.history(client, "s")["messages"]] == ["Hi"]
        gate.open()
        socket.turn()


def test_the_first_token_leaves_while_the_model_still_writes(url: str, model: ModelServer) -> None:
    gate = Gate()
    model.reply(text("Early ", gate, "late"))
    with Socket(url, "s") as socket:
        socket.say("Hi", agent_type="ask")
        assert socket.until(lambda frame: "token" in frame)[-1]["token"] == "Early "
        gate.open()
        assert socket.turn().tokens == "late"


def test_many_turns_on_one_connection(url: str, client: httpx.Client, model: ModelServer) -> None:
    with Socket(url, "s") as socket:
        for number in range(5):
            socket.say(f"{number}", agent_type="ask")
            assert socket.turn().contents == ["Hello world"]
    assert len(truth(client, "s")) == 10
    assert strict(model.requests[-1].body["messages"]) == []


def test_whole_messages_on_wish(url: str, model: ModelServer) -> None:
    with Socket(url, "s") as socket:
        socket.say("Hi", agent_type="ask", stream_mode="messages")
        last = socket.turn().frames[-1]
        assert (last["token"], last["content"]) == ("Hello world", "Hello world")


def test_a_result_sent_the_moment_its_call_arrives(url: str, client: httpx.Client, model: ModelServer) -> None:
    for number in range(10):
        model.reply(tool_calls([(f"call_{number}", "read_file", READ)], "Reading."), text("Done"))
        with Socket(url, "s") as socket:
            socket.say("Go", agent_type="coder")
            call = socket.until(lambda frame: frame["type"] == "tool_call")[-1]
            socket.send({"type": "tool_result", "call_id": call["call_id"], "result": "content"})
            frames = socket.until(lambda frame: frame.get("content") == "Done")
            frames += socket.until(lambda frame: frame["type"] == "end")
            assert heard_of(frames).tokens == "Done"
            assert [frame["type"] for frame in frames if "token" not in frame] == ["end", "ack", "end"]
    truth(client, "s")


def test_parallel_results_end_empty_but_the_last(url: str, client: httpx.Client, model: ModelServer) -> None:
    calls = [(f"call_{i}", "read_file", READ) for i in range(3)]
    model.reply(tool_calls(calls), text("Done"))
    with Socket(url, "s") as socket:
        socket.say("Go", agent_type="coder")
        assert len(socket.turn().calls) == 3
        for call_id, _, _ in calls:
            socket.send({"type": "tool_result", "call_id": call_id, "result": call_id})
        told = [socket.turn() for _ in calls]
    assert sorted(heard.tokens for heard in told) == ["", "", "Done"]
    assert len(model.requests) == 2
    truth(client, "s")


def test_an_approval_over_the_socket(url: str, client: httpx.Client, model: ModelServer) -> None:
    model.reply(tool_calls([("call_1", "write_file", WRITE)]), text("Written"))
    with Socket(url, "s") as socket:
        socket.say("Go", agent_type="coder")
        assert socket.turn().calls[0]["requires_approval"] is True
        socket.send({"type": "hitl_decision", "call_id": "call_1", "decision": "approve"})
        assert [call["requires_approval"] for call in socket.turn().calls] == [False]
        socket.send({"type": "tool_result", "call_id": "call_1", "result": "ok"})
        assert socket.turn().contents == ["Written"]
    truth(client, "s")


def test_a_switch_is_acked_and_ended(url: str, client: httpx.Client, model: ModelServer) -> None:
    talk.say(client, "s", "hi", agent_type="ask")
    with Socket(url, "s") as socket:
        for target in ("debug", "debug"):
            socket.send({"type": "switch_agent", "agent_type": target})
            frames = socket.until(lambda frame: frame["type"] == "end")
            assert [frame["type"] for frame in frames] == ["ack", "agent_switched", "end"]
    assert len(talk.history(client, "s")["agent_history"]) == 2


def test_the_same_message_id_is_one_message(url: str, client: httpx.Client, model: ModelServer) -> None:
    with Socket(url, "s") as socket:
        socket.say("Hi", agent_type="ask", message_id="m-1")
        first = socket.turn()
        socket.say("Hi", agent_type="ask", message_id="m-1")
        again = socket.turn()
        same_story(first, again)
        socket.say("Other", agent_type="ask", message_id="m-1")
        assert refusal([socket.next()]) == "IDEMPOTENCY_CONFLICT"
        assert socket.frames[0]["run_id"] == [frame for frame in socket.frames if frame["type"] == "ack"][1]["run_id"]
    assert len(truth(client, "s")) == 2


# --- refusals ----------------------------------------------------------------------------------------------------

HOSTILE: list[str | bytes] = [
    "", "nonsense", "{", "[]", "null", "5", '"x"', "NaN", "[" * 50_000, '{"a":' * 50_000, b"\xff\xfe", b"\x00",
    '{"type": null}', '{"type": 5}', '{"type": []}', '{"type": {}}', '{"type": "assistant_message"}',
    '{"type": "user_message"}', '{"type": "user_message", "content": 5}', '{"type": "user_message", "content": " "}',
    '{"type": "user_message", "content": "x", "agent_type": "nobody"}', '{"type": "user_message", "content": NaN}',
    '{"type": "user_message", "content": "\\ud800"}', '{"type": "tool_result"}', '{"type": "switch_agent"}',
    '{"type": "hitl_decision", "call_id": "x", "decision": "maybe"}', '{"type": "user_message", "content": "x",',
    '{"type": "user_message", "content": "x", "message_id": ""}', '{"type": "ack"}', '{"type": "end"}',
    '{"session_id": "s", "message": {"type": "user_message", "content": "x"}}',
]  # fmt: skip


def test_hostile_messages_are_refused_and_the_socket_lives_on(
    url: str, client: httpx.Client, model: ModelServer
) -> None:
    with Socket(url, "s") as socket:
        for message in HOSTILE:
            socket.send(message)
            assert refusal([socket.next()]) == "MESSAGE_INVALID", message
        assert not Session.objects.exists()
        assert model.requests == []
        socket.say("Hi", agent_type="ask")
        assert socket.turn().contents == ["Hello world"]
    truth(client, "s")


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"type": "tool_result", "call_id": "nope", "result": 1}, "CALL_NOT_FOUND"),
        ({"type": "hitl_decision", "call_id": "nope", "decision": "approve"}, "CALL_NOT_FOUND"),
    ],
)
def test_foreign_calls_are_refused(
    url: str, client: httpx.Client, model: ModelServer, message: dict[str, Any], code: str
) -> None:
    model.reply(tool_calls([("nope", "read_file", READ)]))
    talk.say(client, "other", "hi", agent_type="coder")
    talk.say(client, "s", "hi", agent_type="ask")
    before = talk.history(client, "s")
    with Socket(url, "s") as socket:
        socket.send(message)
        assert refusal([socket.next()]) == code
    assert talk.history(client, "s") == before


@pytest.mark.parametrize("message", [
    {"type": "tool_result", "call_id": "x"}, {"type": "switch_agent", "agent_type": "ask"}, {"type": "cancel"},
])  # fmt: skip
def test_only_a_persons_message_creates_a_session(
    url: str, client: httpx.Client, model: ModelServer, message: dict[str, Any]
) -> None:
    with Socket(url, "new") as socket:
        socket.send(message)
        assert refusal([socket.next()]) == "SESSION_NOT_FOUND"
        assert not Session.objects.exists()
        socket.say("Hi", agent_type="ask")
        assert socket.turn().contents == ["Hello world"]


def test_a_message_too_big_closes_with_1009(url: str, client: httpx.Client, model: ModelServer) -> None:
    talk.say(client, "s", "hi", agent_type="ask")
    before = talk.history(client, "s")
    with Socket(url, "s") as socket:
        socket.say("x" * 2**20)
        assert socket.closed() == 1009
    assert talk.history(client, "s") == before


@pytest.mark.parametrize("key", [{}, {"X-Internal-Auth": "wrong"}, {"X_Internal_Auth": "a-key-for-tests-0123456789"}])
def test_without_the_key_nobody_gets_in(url: str, key: dict[str, str]) -> None:
    with pytest.raises(InvalidStatus) as refused, connect(f"{url}/ws/s", additional_headers=key):
        pass
    assert refused.value.response.status_code == 401
    assert json.loads(refused.value.response.body or b"") == {"detail": "unauthorized"}


def test_a_key_in_the_address_opens_nothing(url: str) -> None:
    address = f"{url}/ws/s?key=a-key-for-tests-0123456789&X-Internal-Auth=a-key-for-tests-0123456789"
    with pytest.raises(InvalidStatus), connect(address):
        pass


def test_too_many_messages_are_refused_by_rate(
    url: str, client: httpx.Client, model: ModelServer, settings: Any
) -> None:
    settings.SESSION_RATE_LIMIT_PER_MINUTE = 2
    model.reply(tool_calls([("call_1", "read_file", READ)]))
    with Socket(url, "s") as socket:
        socket.say("1", agent_type="coder")
        socket.turn()
        socket.send({"type": "switch_agent", "agent_type": "ask"})
        socket.turn()
        socket.say("2")
        assert refusal([socket.next()]) == "RATE_LIMITED"
        socket.send({"type": "tool_result", "call_id": "call_1", "result": 1})
        assert socket.turn().contents == ["Hello world"]
    assert [row["content"] for row in truth(client, "s") if row["role"] == "user"] == ["1"]


# --- cancel ------------------------------------------------------------------------------------------------------


def test_a_cancel_is_heard_while_the_turn_runs(url: str, client: httpx.Client, model: ModelServer) -> None:
    model.reply(text("Half ", Gate(), "never"))
    with Socket(url, "s") as socket:
        socket.say("Go", agent_type="ask")
        run_id = socket.until(lambda frame: "token" in frame)[0]["run_id"]
        socket.send({"type": "cancel", "message_id": "c-1"})
        frames = socket.until(lambda frame: frame["type"] == "end", 3)
        [ack] = [frame for frame in frames if frame["type"] == "ack"]
        assert (ack["run_id"], ack["message_id"]) == (run_id, "c-1")
        assert refusal(frames) == "CANCELLED"
        socket.say("And now?")
        assert socket.turn().contents == ["Hello world"]
    assert truth(client, "s")[1] == {"role": "assistant", "content": "Half ", "interrupted": True}


def test_a_cancel_of_nothing_is_acked(url: str, client: httpx.Client, model: ModelServer) -> None:
    talk.say(client, "s", "hi", agent_type="ask")
    with Socket(url, "s") as socket:
        socket.send({"type": "cancel"})
        assert socket.next()["type"] == "ack"


# --- reading on --------------------------------------------------------------------------------------------------


def recorded(url: str, model: ModelServer) -> list[dict[str, Any]]:
    """A conversation with all that can happen: routed, tools, approval, text in pieces, a failure."""
    model.reply(
        tool_calls([("call_1", "read_file", READ), ("call_2", "write_file", WRITE)], "Let me read, \U0001f642 и пишу."),
        text(*[f"word{i} " for i in range(5)]),
        text("Second ", "answer"),
    )
    with Socket(url, "s") as socket:
        socket.say("Go")
        socket.turn()
        socket.send({"type": "tool_result", "call_id": "call_1", "result": "content"})
        socket.turn()
        socket.send({"type": "hitl_decision", "call_id": "call_2", "decision": "reject"})
        socket.turn()
        socket.say("More")
        socket.turn()
        return socket.frames


def follow(url: str, after: Any, holds: Any) -> talk.Heard:
    with Socket(url, "s") as socket:
        socket.send({"type": "resume", "after": after})
        return heard_of(socket.until(holds))


def test_reading_on_from_every_cursor_gives_the_same(url: str, client: httpx.Client, model: ModelServer) -> None:
    frames = recorded(url, model)
    model.always(text("The end"))
    talk.say(client, "s", "Last")
    chunks = [frame for frame in frames if frame["type"] not in ("ack", "end")]
    whole = heard_of(chunks)
    for index, chunk in enumerate(chunks):
        later = follow(url, chunk["cursor"], lambda frame: frame.get("content") == "The end")
        before = heard_of(chunks[: index + 1])
        assert before.tokens + later.tokens == whole.tokens + "The end", chunk
        assert without_deltas(before.frames) + without_deltas(later.frames)[:-1] == without_deltas(whole.frames), chunk
    everything = follow(url, "0.0", lambda frame: frame.get("content") == "The end")
    assert everything.tokens == whole.tokens + "The end"
    same_story(everything, stored(client, "s"))
    truth(client, "s")


def test_every_cursor_reads_on_over_sse_too(url: str, client: httpx.Client, model: ModelServer) -> None:
    chunks = [frame for frame in recorded(url, model) if frame["type"] not in ("ack", "end")]
    whole = heard_of(chunks)
    for index, chunk in enumerate(chunks):
        answer = client.get(
            "/sessions/s/stream", params={"follow": "false"}, headers={"Last-Event-ID": chunk["cursor"]}
        )
        assert heard_of(chunks[: index + 1]).tokens + talk.parse(answer.content).tokens == whole.tokens


def test_acks_and_ends_are_positions_too(url: str, client: httpx.Client, model: ModelServer) -> None:
    frames = recorded(url, model)
    for index, frame in enumerate(frames):
        if frame["type"] in ("ack", "end") and "cursor" in frame:
            later = stored(client, "s", frame["cursor"])
            assert later.tokens == heard_of(frames[index + 1 :]).tokens, frame


def test_a_running_turn_is_read_on_from_its_last_character(url: str, client: httpx.Client, model: ModelServer) -> None:
    gate = Gate()
    model.reply(text("один two \U0001f642 ", gate, "three"))
    with Socket(url, "s") as socket:
        socket.say("Go", agent_type="ask")
        last = socket.until(lambda frame: "\U0001f642" in frame.get("token", ""))[-1]
        before = heard_of(socket.frames)
    with Socket(url, "s") as socket:
        socket.send({"type": "resume", "after": last["cursor"]})
        with Socket(url, "s") as from_start:
            from_start.send({"type": "resume", "after": "0.0"})
            from_start.until(lambda frame: "\U0001f642" in frame.get("token", ""))
            gate.open()
            assert before.tokens + socket.turn().tokens == "один two \U0001f642 three"
            from_start.until(lambda frame: frame["type"] == "end")
            assert heard_of(from_start.frames).tokens == "один two \U0001f642 three"
    truth(client, "s")


def test_a_turn_begun_over_sse_is_read_on_over_the_socket(url: str, client: httpx.Client, model: ModelServer) -> None:
    gate = Gate()
    model.reply(text("one ", gate, "two"))
    with posting(client, "s", "Go", agent_type="ask") as answer:
        cursor = answer.until(lambda heard: heard.tokens == "one ").cursors[-1]
        answer.hang_up()
    with Socket(url, "s") as socket:
        socket.send({"type": "resume", "after": cursor})
        gate.open()
        heard = socket.turn()
    assert (heard.tokens, heard.contents) == ("two", ["one two"])


def test_a_follower_hears_what_others_say_and_its_own_once(url: str, client: httpx.Client, model: ModelServer) -> None:
    talk.say(client, "s", "hi", agent_type="ask")
    with Socket(url, "s") as socket:
        socket.send({"type": "resume", "after": "0.0"})
        assert socket.turn().tokens == "Hello world"
        talk.say(client, "s", "over SSE")
        assert socket.turn().tokens == "Hello world"
        socket.say("over the socket")
        assert socket.turn().tokens == "Hello world"
        socket.send({"type": "cancel"})
        assert socket.until(lambda frame: frame["type"] == "ack")[0]["type"] == "ack"


def test_reading_on_in_the_middle_of_ones_own_turn_tells_nothing_twice(
    url: str, client: httpx.Client, model: ModelServer
) -> None:
    gate = Gate()
    model.reply(text("one ", gate, "two"))
    with Socket(url, "s") as socket:
        socket.say("Go", agent_type="ask")
        last = socket.until(lambda frame: frame.get("token") == "one ")[-1]
        socket.send({"type": "resume", "after": last["cursor"]})
        socket.send("{}")
        socket.until(lambda frame: frame["type"] == "error")
        gate.open()
        assert socket.turn().tokens == "two"
        socket.say("More")
        assert socket.turn().tokens == "Hello world"
    assert [frame["type"] for frame in socket.frames].count("end") == 2


def test_the_turn_goes_on_when_its_socket_is_gone(url: str, client: httpx.Client, model: ModelServer) -> None:
    gate = Gate()
    model.reply(text("one ", gate, "two"))
    with Socket(url, "s") as socket:
        socket.say("Go", agent_type="ask")
        socket.until(lambda frame: frame.get("token") == "one ")
        socket.link.socket.close()
    gate.open()
    assert follow(url, "0.0", lambda frame: frame["type"] == "end").contents == ["one two"]
    truth(client, "s")


def bad_cursors(client: httpx.Client) -> list[Any]:
    session = Session.objects.get(session_id="s")
    other = stored(client, "other").cursors[-1]
    tag = session.cursor_tag
    return [
        None, "", "x", "0", "0.0.0", "-1.0", "1.-1", "1", ".", "1.0", 5, 1.5, [], {}, True, "1.0-", f"1.0{tag}",
        f"{session.last_seq + 1}.0-{tag}", f"{10**40}.0-{tag}", f"{session.last_seq}.1-{tag}", f"1.99-{tag}",
        f"٣.0-{tag}", f"1.0-{tag} ", other, "null",
    ]  # fmt: skip


def test_bad_cursors_are_refused_on_every_transport(url: str, client: httpx.Client, model: ModelServer) -> None:
    talk.say(client, "other", "hi", agent_type="ask")
    talk.say(client, "s", "hi", agent_type="ask")
    with Socket(url, "s") as socket:
        for cursor in bad_cursors(client):
            socket.send({"type": "resume", "after": cursor})
            assert refusal([socket.next()]) == "CURSOR_INVALID", cursor
            if isinstance(cursor, str):
                answer = client.get("/sessions/s/stream", params={"after": cursor})
                assert (answer.status_code, answer.json()["code"]) == (400, "CURSOR_INVALID"), cursor
        socket.send({"type": "resume"})
        assert refusal([socket.next()]) == "CURSOR_INVALID"
        socket.say("again")
        assert socket.turn().contents == ["Hello world"]


def test_a_position_beyond_the_text_that_is_being_written_is_refused(url: str, model: ModelServer) -> None:
    gate = Gate()
    model.reply(text("one ", gate, "two"))
    with Socket(url, "s") as socket, Socket(url, "s") as other:
        socket.say("Go", agent_type="ask")
        cursor = socket.until(lambda frame: frame.get("token") == "one ")[-1]["cursor"]
        assert ".4-" in cursor
        other.send({"type": "resume", "after": cursor.replace(".4-", ".400-")})
        assert refusal([other.next()]) == "CURSOR_INVALID"
        gate.open()
        assert socket.turn().tokens == "two"


def test_there_is_nothing_to_read_on_in_a_session_that_is_none(url: str, client: httpx.Client) -> None:
    with Socket(url, "nobody") as socket:
        socket.send({"type": "resume", "after": "0.0"})
        assert refusal([socket.next()]) == "SESSION_NOT_FOUND"
        assert socket.closed() == 4404
    assert client.get("/sessions/nobody/stream").status_code == 404


# --- many --------------------------------------------------------------------------------------------------------


def test_two_sockets_on_one_session(url: str, client: httpx.Client, model: ModelServer) -> None:
    gate = Gate()
    model.reply(text("One ", gate, "done"), text("Two"))
    with Socket(url, "s") as one, Socket(url, "s") as two:
        one.say("1", agent_type="ask")
        one.until(lambda frame: frame.get("token") == "One ")
        two.say("2")
        assert two.next()["type"] == "ack"
        gate.open()
        assert one.turn().contents == ["One done"]
        assert two.turn().contents == ["Two"]
    assert [row["content"] for row in truth(client, "s")] == ["1", "One done", "2", "Two"]


def test_many_messages_at_once_are_answered_in_order(url: str, client: httpx.Client, model: ModelServer) -> None:
    model.always(lambda body: text(f"answer to {body['messages'][-1]['content']}"))
    with Socket(url, "s") as socket:
        for number in range(15):
            socket.say(str(number), agent_type="ask", message_id=f"m-{number}")
        ends = 0
        while ends < 15:
            ends += socket.next()["type"] == "end"
    acks = [frame["message_id"] for frame in socket.frames if frame["type"] == "ack"]
    assert acks == [f"m-{number}" for number in range(15)]
    rows = [row["content"] for row in truth(client, "s")]
    assert rows == [text for number in range(15) for text in (str(number), f"answer to {number}")]


def test_a_flood_is_refused_in_part_and_harms_nobody(url: str, client: httpx.Client, model: ModelServer) -> None:
    gate = Gate()
    model.reply(text("One ", gate, "done"))
    with Socket(url, "s") as socket:
        for number in range(100):
            socket.say(str(number), agent_type="ask")
        refused = socket.until(lambda frame: frame.get("code") == "QUEUE_FULL")
        gate.open()
        assert refused
    assert talk.say(client, "other", "hi", agent_type="ask").contents == ["Hello world"]


def test_odd_session_ids(url: str, client: httpx.Client, model: ModelServer) -> None:
    for name in ("a/b", "сессия \U0001f642", "a?b#c%00", "x" * 255, "..", "a b"):
        with Socket(url, name) as socket:
            socket.say("Hi", agent_type="ask")
            assert socket.turn().contents == ["Hello world"]
        assert Session.objects.filter(session_id=name).exists(), name


@pytest.mark.parametrize("name", ["x" * 256, "a\nb", "a\x00b"])
def test_ids_that_no_session_can_have(url: str, server: RunningServer, name: str) -> None:
    with Socket(url, name) as socket:
        assert socket.closed() == 4404
