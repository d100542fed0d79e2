"""What the stream endpoint accepts and refuses, and that a refusal leaves no trace."""

from __future__ import annotations

import json
from itertools import product
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from sessions_app.models import Event, Message, Run, Session
from tests import talk
from tests.model_server import ModelServer, strict, tool_calls

WRITE = '{"path": "a.txt", "content": "x"}'
IDE_NULLS = {
    "role": "user", "agent_type": None, "call_id": None, "tool_name": None, "result": None, "error": None,
    "decision": None, "modified_arguments": None, "feedback": None, "reason": None, "token": None, "is_final": None,
}  # fmt: skip


class Waiting:
    """A session whose coder waits for a person's approval of `call_1`."""

    def __init__(self, client: httpx.Client, model: ModelServer) -> None:
        self.client, self.model = client, model
        model.reply(tool_calls([("call_1", "write_file", WRITE)], "Writing."))
        assert talk.say(client, "s", "Write a.txt", agent_type="coder").calls[0]["requires_approval"] is True
        self.before, self.rows = self.seen(), self.counted()

    def seen(self) -> list[Any]:
        paths = ("/sessions/s/history", "/sessions/s/pending-approvals", "/sessions", "/agents/s/current")
        return [self.client.get(path).json() for path in paths]

    def counted(self) -> list[int]:
        return [*(rows.objects.count() for rows in (Session, Run, Message, Event)), len(self.model.requests)]

    def refuses(self, body: Any, status: int) -> Any:
        """The detail of a refusal that stored nothing and asked nobody."""
        raw = body if isinstance(body, bytes) else json.dumps(body)
        detail = refused(self.client.post(talk.PATH, content=raw), status)
        assert self.counted() == self.rows
        return detail

    def untouched(self) -> None:
        """All is as it was, and the session goes on."""
        assert (self.seen(), self.counted()) == (self.before, self.rows)
        heard = talk.result(self.client, "s", "call_1", "written")
        assert heard.contents == ["Hello world"]
        assert strict(self.model.requests[-1].body["messages"]) == []
        story = talk.history(self.client, "s")
        assert [row["role"] for row in story["messages"]] == ["user", "assistant", "tool", "assistant"]
        assert story["messages"][-1]["content"] == heard.tokens
        assert story["message_count"] == 4


@pytest.fixture
def waiting(client: httpx.Client, model: ModelServer) -> Waiting:
    return Waiting(client, model)


def refused(answer: httpx.Response, status: int) -> Any:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    return answer.json()["detail"]


# --- refused -----------------------------------------------------------------------------------------------------

REFUSED: list[tuple[int, str, dict[str, Any]]] = [
    *((422, "content", {"type": "user_message", "content": bad}) for bad in (None, 5, "", " \n\t\u2003", [], {}, True)),
    (422, "content", {"type": "user_message"}),
    *(
        (422, "agent_type", {"type": "user_message", "content": "x", "agent_type": bad})
        for bad in ("nobody", "", "Coder", "universal", 5, [], {})
    ),
    (422, "role", {"type": "user_message", "content": "x", "role": 5}),
    *((422, "message_id", {"type": "user_message", "content": "x", "message_id": bad}) for bad in ("", 5, "k" * 256)),
    (422, "stream_mode", {"type": "user_message", "content": "x", "stream_mode": "loud"}),
    (422, "on_busy", {"type": "user_message", "content": "x", "on_busy": "later"}),
    (400, "call_id", {"type": "tool_result", "result": "x"}),
    (400, "call_id", {"type": "tool_result", "call_id": None, "result": "x"}),
    (400, "call_id", {"type": "tool_result", "call_id": "", "result": "x"}),
    *((422, "call_id", {"type": "tool_result", "call_id": bad, "result": "x"}) for bad in (5, ["call_1"], {}, True)),
    *((422, "error", {"type": "tool_result", "call_id": "call_1", "error": bad}) for bad in (5, {}, [], False)),
    *((400, "agent_type", {"type": "switch_agent", "agent_type": bad}) for bad in (None, "", "nobody", "universal", 5)),
    (400, "agent_type", {"type": "switch_agent", "content": "Switched to Ask"}),
    (422, "reason", {"type": "switch_agent", "agent_type": "ask", "reason": 5}),
    (400, "call_id", {"type": "hitl_decision", "decision": "approve"}),
    (400, "call_id", {"type": "hitl_decision", "decision": "approve", "call_id": None}),
    (422, "call_id", {"type": "hitl_decision", "decision": "approve", "call_id": 1}),
    *(
        (400, "decision", {"type": "hitl_decision", "call_id": "call_1", "decision": bad})
        for bad in (None, "", "maybe", "APPROVE", " approve", "approved", "accept")
    ),
    (400, "decision", {"type": "hitl_decision", "call_id": "call_1"}),
    *(
        (422, "decision", {"type": "hitl_decision", "call_id": "call_1", "decision": bad})
        for bad in (5, ["approve"], {}, True)
    ),
    (400, "modified_arguments", {"type": "hitl_decision", "call_id": "call_1", "decision": "edit"}),
    (400, "modified_arguments", {"type": "hitl_decision", "call_id": "call_1", "decision": "edit", **IDE_NULLS}
     | {"call_id": "call_1", "decision": "edit"}),
    *(
        (422, "modified_arguments",
         {"type": "hitl_decision", "call_id": "call_1", "decision": "edit", "modified_arguments": bad})
        for bad in ([], "{}", 5)
    ),
    (422, "feedback", {"type": "hitl_decision", "call_id": "call_1", "decision": "reject", "feedback": 5}),
]  # fmt: skip


def test_a_wrong_field_is_refused_by_name_and_leaves_no_trace(waiting: Waiting, subtests: pytest.Subtests) -> None:
    for status, field, message in REFUSED:
        with subtests.test(json.dumps(message)):
            detail = waiting.refuses({"session_id": "s", "message": message}, status)
            if status == 422:
                assert [one["loc"] for one in detail] == [["body", "message", field]]
                assert all(set(one) == {"loc", "msg", "type"} for one in detail)
            else:
                assert field in detail
    waiting.untouched()


OTHER_TYPES = [
    "cancel",
    "resume",
    "assistant_message",
    "tool_call",
    "User_Message",
    "",
    "\u2028",
    None,
    5,
    [],
    {},
    True,
]


def test_other_types_are_named_in_the_refusal(waiting: Waiting, subtests: pytest.Subtests) -> None:
    for type_ in OTHER_TYPES:
        with subtests.test(str(type_)):
            detail = waiting.refuses({"session_id": "s", "message": {"type": type_, "content": "x"}}, 400)
            assert detail == f"Unsupported message type: {type_}"
    assert waiting.refuses({"session_id": "s", "message": {"content": "x"}}, 400) == "Unsupported message type: None"
    waiting.untouched()


GOOD = {"type": "user_message", "content": "x"}
SHAPES: list[Any] = [
    None, [], "text", 5, True, {}, {"session_id": "s"}, {"message": GOOD}, GOOD,
    *({"session_id": "s", "message": bad} for bad in (None, [], "text", 5, [GOOD], json.dumps(GOOD))),
    *({"session_id": bad, "message": GOOD} for bad in (None, 5, True, "", [], {}, "x" * 256, "a\nb", "a\x00", "a\x7f")),
]  # fmt: skip


def test_a_body_of_another_shape_is_refused_and_leaves_no_trace(waiting: Waiting, subtests: pytest.Subtests) -> None:
    for body in SHAPES:
        with subtests.test(json.dumps(body)[:80]):
            assert waiting.refuses(body, 422)
    waiting.untouched()


def hostile(content: bytes) -> bytes:
    return b'{"session_id": "s", "message": {"type": "user_message", "content": %s}}' % content


HOSTILE = [
    b"", b" ", b"{", b"\x00", b"\xff\xfe", b"nonsense", b"[" * 100_000, b'{"a":' * 50_000, b"{}{}",
    hostile(b"NaN"), hostile(b"Infinity"), hostile(b"1e999"), hostile(b'"\\ud800"'), hostile(b'"\xff"'),
    hostile(b'"\xed\xa0\x80"'), hostile(b'"a\nb"'), hostile(b"[" * 300 + b"]" * 300), hostile(b"9" * 5000),
    hostile(b'"x"')[:-1], hostile(b'"x"') + b"x", hostile(b"'x'"), b"\xef\xbb\xbf" + hostile(b'"x"'),
    hostile(b'"x"').decode().encode("utf-16"), b"session_id=s&message=x",
    b'{"session_id": "s", "message": {"type": "tool_result", "call_id": "call_1", "result": %s}}' % (b"[" * 2000),
    b'{"session_id": "s", "message": {"type": "tool_result", "call_id": "call_1", "result": -Infinity}}',
]  # fmt: skip


def test_hostile_bodies_are_refused_and_leave_no_trace(waiting: Waiting, subtests: pytest.Subtests) -> None:
    for body in HOSTILE:
        with subtests.test(repr(body[:80])):
            assert "Traceback" not in str(waiting.refuses(body, 422))
    waiting.untouched()


def test_an_impossible_idempotency_key_is_refused(waiting: Waiting) -> None:
    for key in ("", "k" * 256):
        answer = talk.post(waiting.client, "s", GOOD, **{"Idempotency-Key": key})
        assert "Idempotency-Key" in refused(answer, 422)
    waiting.untouched()


def test_only_post_speaks(waiting: Waiting) -> None:
    for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS"):
        answer = waiting.client.request(method, talk.PATH)
        assert refused(answer, 405)
        assert answer.headers["allow"] == "POST"
    waiting.untouched()


ABOUT_NOTHING = [
    {"type": "tool_result", "call_id": "call_1", "result": "x"},
    {"type": "hitl_decision", "call_id": "call_1", "decision": "approve"},
    {"type": "hitl_decision", "call_id": "call_1", "decision": "edit", "modified_arguments": {}},
    {"type": "switch_agent", "agent_type": "ask"},
]


def test_only_a_persons_message_creates_a_session(waiting: Waiting, subtests: pytest.Subtests) -> None:
    for name, message in product(("nobody", "сессия 🙂", "a/b", "x" * 255), ABOUT_NOTHING):
        with subtests.test(f"{message['type']} in {name[:20]}"):
            (chunk,) = talk.send(waiting.client, name, message).frames
            said = f"Session {name} not found"
            assert chunk == {
                "type": "error", "content": said, "error": said, "code": "SESSION_NOT_FOUND", "is_final": True
            }  # fmt: skip
    waiting.untouched()


# --- accepted ----------------------------------------------------------------------------------------------------


TEXTS = [
    "  untrimmed \n\t", "Привет, мир 🙂", "a\u2028b\u2029c\x85d", 'quotes " \\ / </script>', "{braces} %s %(x)s",
    "\ufeffbom", "x" * 100_000, "data: [DONE]\n\n", "e\u0301 \u202e", "0",
]  # fmt: skip


def test_a_text_is_stored_and_sent_up_as_it_is(client: httpx.Client, model: ModelServer) -> None:
    for content in TEXTS:
        assert talk.say(client, "s", content, agent_type="ask").contents == ["Hello world"]
        assert model.requests[-1].body["messages"][-1] == {"role": "user", "content": content}
    story = talk.history(client, "s")["messages"]
    assert story[::2] == [{"role": "user", "content": content} for content in TEXTS]
    assert strict(model.requests[-1].body["messages"]) == []


def test_a_nul_is_written_out_because_no_database_keeps_it(client: httpx.Client, model: ModelServer) -> None:
    talk.say(client, "s", "a\x00b", agent_type="ask", **{"odd\x00key": "\x00"})
    assert talk.history(client, "s")["messages"][0]["content"] == "a\\u0000b"


def test_the_role_is_a_persons_whatever_it_says(client: httpx.Client, model: ModelServer) -> None:
    for role in ("user", "system", "assistant", "tool", "", None):
        talk.say(client, "s", "hello", agent_type="ask", role=role)
    assert [row["role"] for row in talk.history(client, "s")["messages"]] == ["user", "assistant"] * 6
    assert strict(model.requests[-1].body["messages"]) == []


def test_every_message_of_the_ide_is_accepted_with_all_its_nulls(client: httpx.Client, model: ModelServer) -> None:
    model.reply(tool_calls([("call_1", "write_file", WRITE)]), tool_calls([("call_2", "write_file", WRITE)]))
    extra = {"metadata": {"deep": [None, {"x": 1}]}, "timestamp": "2026-01-01", "5": 5}
    said = talk.send(
        client, "s", {"type": "user_message", **IDE_NULLS, "content": "hi", "agent_type": "coder", **extra}
    )
    assert [call["call_id"] for call in said.calls] == ["call_1"]
    approve = {"type": "hitl_decision", **IDE_NULLS, "content": None, "call_id": "call_1", "decision": "approve"}
    assert talk.send(client, "s", {**approve, **extra}).calls[0]["requires_approval"] is False
    result = {"type": "tool_result", **IDE_NULLS, "content": None, "call_id": "call_1", "result": {"ok": True}}
    assert [call["call_id"] for call in talk.send(client, "s", {**result, **extra}).calls] == ["call_2"]
    error = {"type": "tool_result", **IDE_NULLS, "content": None, "call_id": "call_2", "error": "no disk"}
    assert talk.send(client, "s", {**error, **extra}).contents == ["Hello world"]
    switch = {"type": "switch_agent", **IDE_NULLS, "content": "Switched to Ask", "agent_type": "ask"}
    assert talk.send(client, "s", {**switch, **extra}).types == ["agent_switched"]
    assert [row["content"] for row in talk.history(client, "s")["messages"] if row["role"] == "tool"] == [
        '{"ok": true}',
        "Error: no disk",
    ]
    assert strict(model.requests[-1].body["messages"]) == []


def test_the_tool_name_of_a_result_is_ignored(waiting: Waiting) -> None:
    heard = talk.result(waiting.client, "s", "call_1", "done", tool_name={"any": 5})
    assert heard.contents == ["Hello world"]
    assert talk.history(waiting.client, "s")["messages"][2]["name"] == "write_file"


def test_code_is_the_coder_wherever_an_agent_is_named(client: httpx.Client, model: ModelServer) -> None:
    talk.say(client, "s", "hello", agent_type="code")
    assert talk.history(client, "s")["current_agent"] == "coder"
    talk.send(client, "s", {"type": "switch_agent", "agent_type": "ask"})
    heard = talk.send(client, "s", {"type": "switch_agent", "agent_type": "code"})
    assert heard.frames[0]["metadata"]["to_agent"] == "coder"
    body = {"target_agent": "code", "reason": "again"}
    assert client.post("/agents/s/switch", json=body).status_code == 400  # it is the coder already


def test_any_session_id_holds_a_conversation(
    client: httpx.Client, model: ModelServer, subtests: pytest.Subtests
) -> None:
    for name in ("a/b", "..a", " ", "сессия 🙂", "a?b#c%00", "x" * 255, "a\u2028b", "null", "0.0"):
        with subtests.test(name[:20]):
            heard = talk.say(client, name, "hello")
            story = client.get(f"/sessions/{quote(name, safe='')}/history").json()
            assert story["session_id"] == name
            assert [row["content"] for row in story["messages"]] == ["hello", heard.tokens]
            assert strict(model.requests[-1].body["messages"]) == []


def test_a_body_is_json_whatever_its_type_says(client: httpx.Client, model: ModelServer) -> None:
    body = json.dumps({"session_id": "s", "message": GOOD})
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "", "image/png"):
        answer = client.post(talk.PATH, content=body, headers={"Content-Type": content_type})
        assert talk.parse(answer.content).tokens == "Hello world"


def test_a_body_may_come_in_pieces_without_a_length(client: httpx.Client, model: ModelServer) -> None:
    body = json.dumps({"session_id": "s", "message": {"type": "user_message", "content": "Привет"}}).encode()
    answer = client.post(talk.PATH, content=iter([body[i : i + 7] for i in range(0, len(body), 7)]))
    assert talk.parse(answer.content).tokens == "Hello world"
    assert talk.history(client, "s")["messages"][0]["content"] == "Привет"


def test_v1_serves_the_same_endpoint(client: httpx.Client, model: ModelServer) -> None:
    body = {"session_id": "s", "message": GOOD}
    assert talk.parse(client.post(f"/api/v1{talk.PATH}", json=body).content).tokens == "Hello world"
    assert refused(client.post(f"/api/v1{talk.PATH}", json={}), 422)
