"""What goes over the wire: bytes, headers, cursors, the closed set of chunks, and the text exactly once each way."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest

from tests import talk
from tests.conftest import RunningServer
from tests.model_server import Gate, ModelServer, Pause, chunks, cut_after, strict, text, tool_calls
from tests.talk import Heard

EVENT = re.compile(rb"id: [0-9]+\.[0-9]+-[0-9a-f]{7}\ndata: \{[\x20-\x7e]+\}\n\n")
REFUSAL = re.compile(rb"data: \{[\x20-\x7e]+\}\n\n")
READ = '{"path": "a.txt"}'
WRITE = '{"path": "a.txt", "content": "x"}'
FROM_IDE = {"call_id": None, "tool_name": None, "result": None, "error": None, "decision": None, "agent_type": None}
ODD_TEXT = 'Line\u2028one\u2029two\x85three\x0b\x0c\x1c\r\n"quoted" \\ back </b> data: x\n\nПривет 🙂 \x00\x7f'
FIELDS = {
    "tool_call": {"type", "call_id", "tool_name", "arguments", "requires_approval", "is_final"},
    "agent_switched": {"type", "content", "metadata", "is_final"},
    "error": {"type", "content", "error", "code", "is_final"},
}


def rules(heard: Heard) -> None:
    """What the contract says of any body that speaks of a turn."""
    for frame in heard.frames:
        rule(frame)
    assert len(set(heard.cursors)) == len(heard.cursors)
    finals = [index for index, frame in enumerate(heard.frames) if frame["is_final"]]
    last = len(heard.frames) - 1
    assert last in finals or not heard.frames
    assert all(index == last or heard.types[index] == "tool_call" for index in finals)
    assert "error" not in heard.types[:-1]


def rule(frame: dict[str, Any]) -> None:
    assert None not in frame.values()
    if frame["type"] == "assistant_message":
        closing = "content" in frame
        assert set(frame) == {"type", "token", "is_final", *(["content"] if closing else [])}
        assert closing or (frame["token"] and frame["is_final"] is False)
    else:
        assert set(frame) - {"metadata"} == FIELDS[frame["type"]] - {"metadata"}
    if frame["type"] == "error":
        assert frame["content"] == frame["error"]
        assert re.fullmatch("[A-Z][A-Z_]+", frame["code"])
    if frame["type"] == "agent_switched":
        assert set(frame["metadata"]) == {"from_agent", "to_agent", "reason", "confidence"}


def stored_texts(client: httpx.Client, session_id: str) -> list[str]:
    rows = talk.history(client, session_id)["messages"]
    return [row["content"] for row in rows if row["role"] == "assistant" and row["content"]]


def replayed(client: httpx.Client, session_id: str) -> Heard:
    """The whole story as a later reader hears it."""
    answer = client.get(f"/sessions/{session_id}/stream", params={"after": "0.0", "follow": "false"})
    assert answer.status_code == 200
    return talk.parse(answer.content)


# --- bytes -------------------------------------------------------------------------------------------------------


def test_a_frame_is_a_cursor_and_one_line_of_ascii(client: httpx.Client, model: ModelServer) -> None:
    model.reply(text(ODD_TEXT))
    answer = talk.post(client, "s", {"type": "user_message", "content": "hi", "agent_type": "ask"})
    assert EVENT.sub(b"", answer.content) == b""
    heard = talk.parse(answer.content)
    rules(heard)
    assert heard.contents == [heard.tokens] == stored_texts(client, "s")
    assert heard.tokens.replace("\\u0000", "\x00") == ODD_TEXT


def test_a_reader_that_splits_lines_everywhere_hears_every_frame(client: httpx.Client, model: ModelServer) -> None:
    model.reply(tool_calls([("c\u2028", "search_in_code", '{"query": "a\\u2028b\\u0085"}')], ODD_TEXT))
    answer = talk.post(client, "s", {"type": "user_message", "content": "hi", "agent_type": "ask"})
    lines = answer.text.splitlines()
    frames = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    assert frames == talk.parse(answer.content).frames
    assert frames[-1]["arguments"]["query"] == "a\u2028b\x85"


def test_the_head_says_that_this_is_a_stream(client: httpx.Client, model: ModelServer) -> None:
    answer = talk.post(client, "s", {"type": "user_message", "content": "hi"})
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-accel-buffering"] == "no"
    assert "content-length" not in answer.headers
    assert "content-encoding" not in answer.headers


def test_a_refusal_is_a_whole_stream_of_one_frame(client: httpx.Client, model: ModelServer) -> None:
    client.post("/sessions", json={"session_id": "s"})
    answer = talk.post(client, "s", {"type": "tool_result", "call_id": "nobody's", "result": 1})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert REFUSAL.fullmatch(answer.content)
    rules(talk.parse(answer.content))


def test_what_was_streamed_is_what_a_later_reader_hears(client: httpx.Client, model: ModelServer) -> None:
    model.reply(tool_calls([("c1", "write_file", WRITE), ("c2", "read_file", READ)], "First this. "), text("All done"))
    heard = Heard()
    for part in (
        talk.say(client, "s", "go"), talk.result(client, "s", "c2", 1), talk.result(client, "s", "c1", 2),
        talk.send(client, "s", {"type": "switch_agent", "agent_type": "ask"}),
    ):  # fmt: skip
        rules(part)
        heard.frames += part.frames
    again = replayed(client, "s")
    assert again.contents == heard.contents == stored_texts(client, "s")
    assert again.tokens == heard.tokens
    assert [frame for frame in again.frames if frame["type"] != "assistant_message"] == [
        frame for frame in heard.frames if frame["type"] != "assistant_message"
    ]
    assert strict(model.requests[-1].body["messages"]) == []


# --- silence -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [talk.PATH, f"/api/v1{talk.PATH}"])
def test_silence_is_filled_with_comments(client: httpx.Client, model: ModelServer, settings: Any, path: str) -> None:
    settings.KEEPALIVE_SECONDS = 0.05
    gate = Gate()
    model.reply(text("Before ", gate, "after"))
    body = {"session_id": "s", "message": {"type": "user_message", "content": "hi", "agent_type": "ask"}}
    assert talk.parse(until_comments(client, path, body, gate)).tokens == "Before after"


def test_silence_while_the_classifier_thinks_is_filled_too(
    client: httpx.Client, model: ModelServer, settings: Any
) -> None:
    settings.KEEPALIVE_SECONDS = 0.05
    gate = Gate()
    model.route(text('{"agent": "ask"}').held(gate))
    body = {"session_id": "s", "message": {"type": "user_message", "content": "hi"}}
    heard = talk.parse(until_comments(client, talk.PATH, body, gate))
    assert heard.types[0] == "agent_switched"
    assert heard.tokens == "Hello world"


def until_comments(client: httpx.Client, path: str, body: dict[str, Any], gate: Gate) -> bytes:
    """The body of an answer whose gate opens once two comments were heard."""
    seen = b""
    with client.stream("POST", path, json=body) as answer:
        for piece in answer.iter_bytes():
            seen += piece
            if seen.count(b": keepalive\n\n") >= 2:
                gate.open()
    assert seen.count(b": keepalive\n\n") >= 2
    return seen


def test_text_that_a_reader_of_whole_messages_does_not_hear_is_silence(
    client: httpx.Client, model: ModelServer, settings: Any
) -> None:
    """The Gateway gives up after a minute without a byte, however busily the model writes."""
    settings.KEEPALIVE_SECONDS = 0.1
    pieces = [part for number in range(40) for part in ({"content": f"{number} "}, Pause(0.02))]
    model.reply(chunks(pieces))
    heard = talk.say(client, "s", "hi", agent_type="ask", stream_mode="messages")
    assert heard.types == ["agent_switched", "assistant_message"]
    assert heard.comments >= 2


# --- is_final ----------------------------------------------------------------------------------------------------


def test_text_before_calls_is_not_final_and_every_call_is(client: httpx.Client, model: ModelServer) -> None:
    model.reply(tool_calls([("c1", "read_file", READ), ("c2", "list_files", "{}")], "Let me look"))
    heard = talk.say(client, "s", "hi", agent_type="ask")
    rules(heard)
    texts = heard.of("assistant_message")
    assert texts[-1] == {"type": "assistant_message", "token": "", "content": "Let me look", "is_final": False}
    assert [call["is_final"] for call in heard.calls] == [True, True]
    assert heard.types[-2:] == ["tool_call", "tool_call"]


def test_a_call_without_text_has_no_empty_bubble(client: httpx.Client, model: ModelServer) -> None:
    model.reply(tool_calls([("c1", "list_files", "{}")]))
    _, call = talk.say(client, "s", "hi", agent_type="ask").frames
    assert call == {
        "type": "tool_call", "call_id": "c1", "tool_name": "list_files", "requires_approval": False, "is_final": True,
        "arguments": call["arguments"],
    }  # fmt: skip
    assert call["arguments"]["path"] == "."  # the schema's default


def test_a_result_that_others_are_missing_beside_has_an_empty_body(client: httpx.Client, model: ModelServer) -> None:
    model.reply(tool_calls([("c1", "read_file", READ), ("c2", "list_files", "{}")]))
    talk.say(client, "s", "hi", agent_type="ask")
    assert talk.result(client, "s", "c2", "x").frames == []
    heard = talk.result(client, "s", "c1", "y")
    rules(heard)
    assert heard.contents == ["Hello world"]


@pytest.mark.parametrize("mode", ["tokens", "messages"])
def test_an_error_after_text_closes_the_text_first(client: httpx.Client, model: ModelServer, mode: str) -> None:
    model.reply(cut_after(2))
    heard = talk.say(client, "s", "hi", agent_type="ask", stream_mode=mode)
    rules(heard)
    closing, error = heard.frames[-2:]
    assert (closing["content"], closing["is_final"]) == ("one two ", False)
    assert error["type"] == "error"
    assert heard.tokens == "one two "
    assert talk.history(client, "s")["messages"][-1] == {
        "role": "assistant", "content": "one two ", "interrupted": True
    }  # fmt: skip
    rules(talk.say(client, "s", "again"))
    assert strict(model.requests[-1].body["messages"]) == []


@pytest.mark.parametrize("mode", ["tokens", "messages"])
def test_an_empty_answer_ends_the_turn_cleanly(client: httpx.Client, model: ModelServer, mode: str) -> None:
    model.reply(text())
    heard = talk.say(client, "s", "hi", agent_type="ask", stream_mode=mode)
    assert heard.frames[1:] == [{"type": "assistant_message", "token": "", "content": "", "is_final": True}]
    assert talk.history(client, "s")["message_count"] == 1
    rules(talk.say(client, "s", "again"))
    assert strict(model.requests[-1].body["messages"]) == []


def test_a_switch_is_final_only_when_nothing_follows(client: httpx.Client, model: ModelServer) -> None:
    heard = talk.say(client, "s", "hi", agent_type="ask")
    assert heard.frames[0]["is_final"] is False
    (switched,) = talk.send(client, "s", {"type": "switch_agent", "agent_type": "coder"}).frames
    assert switched["is_final"] is True


def test_a_final_text_by_tool_is_the_last_frame(client: httpx.Client, model: ModelServer) -> None:
    model.reply(tool_calls([("c1", "attempt_completion", '{"result": "It works"}')], "Thinking. "))
    heard = talk.say(client, "s", "hi", agent_type="coder")
    rules(heard)
    assert heard.contents == stored_texts(client, "s") == ["Thinking. ", "It works"]
    assert heard.tokens == "Thinking. It works"
    assert [frame["is_final"] for frame in heard.of("assistant_message") if "content" in frame] == [False, True]


# --- the text exactly once, each way -----------------------------------------------------------------------------


def until_final(heard: Heard) -> str:
    """What a client shows that joins every token up to the first final assistant message."""
    shown = ""
    for frame in heard.of("assistant_message"):
        shown += frame["token"]
        if frame["is_final"]:
            break
    return shown


def test_tokens_come_once_and_the_closing_frame_has_the_whole(client: httpx.Client, model: ModelServer) -> None:
    model.reply(text("One ", "two ", "three"))
    heard = talk.say(client, "s", "hi", agent_type="ask")
    assert heard.tokens == until_final(heard) == heard.contents[0] == "One two three"
    assert heard.frames[-1]["token"] == ""
    assert heard.contents == stored_texts(client, "s")


def test_a_whole_message_is_a_single_frame(client: httpx.Client, model: ModelServer) -> None:
    whole = {"type": "assistant_message", "token": "Hello world", "content": "Hello world", "is_final": True}
    assert talk.say(client, "s", "hi", agent_type="ask", stream_mode="messages").frames[1:] == [whole]
    assert talk.say(client, "s", "hi").frames[-1]["token"] == ""  # that message only
    assert talk.say(client, "s", "hi", stream_mode="messages").frames == [whole]


def is_whole(heard: Heard) -> bool:
    """Whether the text came in one frame; either way it came once."""
    rules(heard)
    assert heard.tokens == until_final(heard) == "".join(heard.contents) == "Hello world"
    return len(heard.of("assistant_message")) == 1


def test_the_ide_is_known_by_its_nulls_and_its_session_keeps_whole_messages(
    client: httpx.Client, model: ModelServer
) -> None:
    model.reply(tool_calls([("c1", "read_file", READ)]))
    talk.say(client, "ide", "hi", **FROM_IDE)
    assert is_whole(talk.result(client, "ide", "c1", "x"))
    assert is_whole(talk.say(client, "ide", "more"))  # without the nulls
    assert not is_whole(talk.say(client, "ide", "more", stream_mode="tokens"))
    assert is_whole(talk.say(client, "ide", "more", stream_mode="auto"))
    assert not is_whole(talk.say(client, "another", "hi"))
    assert stored_texts(client, "ide") == ["Hello world"] * 4


def test_nulls_of_ones_own_keys_are_not_the_ide(client: httpx.Client, model: ModelServer) -> None:
    own = {"agent_type": None, "role": None, "message_id": None, "stream_mode": None, "on_busy": None, "extra": None}
    assert not is_whole(talk.say(client, "s", "hi", **own))
    assert not is_whole(talk.say(client, "s", "hi", result="not null", call_id="x"))


@pytest.mark.parametrize(("mode", "whole"), [("tokens", False), ("messages", True)])
def test_the_setting_decides_for_everyone(
    client: httpx.Client, model: ModelServer, settings: Any, mode: str, whole: bool
) -> None:
    settings.STREAM_MODE = mode
    assert is_whole(talk.say(client, "s", "hi")) is whole
    assert is_whole(talk.say(client, "s", "hi", **FROM_IDE)) is whole
    assert is_whole(talk.say(client, "s", "hi", stream_mode="messages"))
    assert not is_whole(talk.say(client, "s", "hi", stream_mode="tokens"))


def test_a_result_may_choose_its_stream_too(client: httpx.Client, model: ModelServer) -> None:
    model.reply(tool_calls([("c1", "read_file", READ)]))
    talk.say(client, "s", "hi", agent_type="ask")
    assert is_whole(talk.result(client, "s", "c1", "x", stream_mode="messages"))


# --- hanging up --------------------------------------------------------------------------------------------------


def test_a_reader_that_leaves_in_the_middle_loses_nothing(
    client: httpx.Client, server: RunningServer, model: ModelServer
) -> None:
    gate = Gate()
    model.reply(text("Early ", gate, "late"))
    body = {"session_id": "s", "message": {"type": "user_message", "content": "hi", "agent_type": "ask"}}
    with client.stream("POST", talk.PATH, json=body) as answer:
        next(answer.iter_bytes())
    gate.open()
    server.idle()
    assert stored_texts(client, "s") == ["Early late"]
    assert replayed(client, "s").tokens == "Early late"
