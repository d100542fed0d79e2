"""How often, how much, how long: every bound says clearly what it is, and nothing is stuck behind it."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from sessions_app import services
from sessions_app.models import Event, Message, Run, RunState, Session
from tests import talk
from tests.conftest import KEY, RunningServer
from tests.model_server import ModelServer, chunks, hang_after, strict, text, tool_calls
from tests.talk import Heard

READ = '{"path": "a.txt"}'
RUSSIAN, ENGLISH = "Почини падение", "Fix the crash"


def cyrillic(said: str) -> bool:
    return any("а" <= letter.lower() <= "я" for letter in said)


def too_many(answer: httpx.Response, limit: int) -> None:
    assert answer.status_code == 429
    body = answer.json()
    assert body == {
        "error": "Too many requests", "limit": limit, "window": "1 minute", "retry_after": body["retry_after"]
    }  # fmt: skip
    assert 1 <= body["retry_after"] <= 61
    assert answer.headers["retry-after"] == str(body["retry_after"])
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]


# --- how often: an address ---------------------------------------------------------------------------------------


def test_every_answer_tells_how_the_address_stands(client: httpx.Client, server: RunningServer, settings: Any) -> None:
    settings.RATE_LIMIT_PER_MINUTE = 10
    answers = [
        client.get("/sessions"), client.get("/no"), httpx.get(f"{server.url}/sessions"), client.post(talk.PATH),
        client.put("/sessions"),
    ]  # fmt: skip
    assert [answer.status_code for answer in answers] == [200, 404, 401, 422, 405]
    assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == ["9", "8", "7", "6", "5"]
    assert {answer.headers["x-ratelimit-limit"] for answer in answers} == {"10"}
    assert all(0 < int(answer.headers["x-ratelimit-reset"]) - time.time() <= 62 for answer in answers)


def test_one_more_than_the_limit_is_refused(client: httpx.Client, server: RunningServer, settings: Any) -> None:
    settings.RATE_LIMIT_PER_MINUTE = 3
    assert [client.get("/sessions").status_code for _ in range(3)] == [200] * 3
    for path in ("/sessions", "/no", "/api/v1/runs", "/docs", "/openapi.json"):
        too_many(client.get(path), 3)
    too_many(httpx.get(f"{server.url}/sessions"), 3)
    too_many(client.post("/sessions", json={}), 3)
    assert not Session.objects.exists()


def test_wrong_keys_count(client: httpx.Client, server: RunningServer, settings: Any) -> None:
    settings.RATE_LIMIT_PER_MINUTE = 3
    wrong = [httpx.get(f"{server.url}/sessions", headers={"X-Internal-Auth": f"guess-{n}"}) for n in range(4)]
    assert [answer.status_code for answer in wrong] == [401, 401, 401, 429]
    too_many(client.get("/sessions"), 3)


def test_wrong_keys_of_websockets_count(client: httpx.Client, server: RunningServer, settings: Any) -> None:
    settings.RATE_LIMIT_PER_MINUTE = 1
    for status in ("401", "429"):
        with pytest.raises(InvalidStatus, match=status) as refused:
            connect(f"{server.websocket_url}/ws/s", proxy=None)
        assert refused.value.response.headers["x-ratelimit-limit"] == "1"
    assert int(refused.value.response.headers["retry-after"]) > 0
    too_many(client.get("/sessions"), 1)


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready", "/api/v1/health"])
def test_health_never_counts_and_is_never_refused(client: httpx.Client, settings: Any, path: str) -> None:
    settings.RATE_LIMIT_PER_MINUTE = 1
    for _ in range(3):
        assert client.get(path).status_code == 200
    assert client.get("/sessions").headers["x-ratelimit-remaining"] == "0"
    too_many(client.get("/sessions"), 1)
    assert client.get(path).status_code == 200


def test_zero_switches_the_limits_off(client: httpx.Client, model: ModelServer, settings: Any) -> None:
    settings.RATE_LIMIT_PER_MINUTE = settings.SESSION_RATE_LIMIT_PER_MINUTE = 0
    for _ in range(3):
        answer = talk.post(client, "s", {"type": "user_message", "content": "hi"})
        assert answer.status_code == 200
        assert "x-ratelimit-limit" not in answer.headers


# --- how often: a session ----------------------------------------------------------------------------------------


def test_a_session_is_spoken_to_so_often(client: httpx.Client, model: ModelServer, settings: Any) -> None:
    settings.SESSION_RATE_LIMIT_PER_MINUTE = 2
    talk.say(client, "s", "one")
    talk.say(client, "s", "two")
    before = (talk.history(client, "s"), Event.objects.count(), len(model.requests))
    for message in ({"type": "user_message", "content": "3"}, {"type": "switch_agent", "agent_type": "ask"}):
        answer = talk.post(client, "s", message)
        too_many(answer, 2)
        assert answer.headers["x-ratelimit-limit"] == "600"  # the address's
    assert (talk.history(client, "s"), Event.objects.count(), len(model.requests)) == before
    assert talk.say(client, "another", "one").contents == ["Hello world"]


def test_refused_messages_of_a_program_do_not_count_for_the_session(
    client: httpx.Client, model: ModelServer, settings: Any
) -> None:
    settings.SESSION_RATE_LIMIT_PER_MINUTE = 1
    for _ in range(3):
        assert talk.post(client, "s", {"type": "user_message", "content": " "}).status_code == 422
    assert talk.say(client, "s", "one").contents == ["Hello world"]


@pytest.mark.parametrize("limit", ["RATE_LIMIT_PER_MINUTE", "SESSION_RATE_LIMIT_PER_MINUTE"])
def test_the_answer_to_an_open_call_is_never_refused(
    client: httpx.Client, model: ModelServer, settings: Any, limit: str
) -> None:
    model.reply(
        tool_calls([(f"c{n}", "read_file", READ) for n in range(3)] + [("w", "execute_command", '{"command":"x"}')])
    )
    talk.say(client, "s", "hi", agent_type="coder")
    setattr(settings, limit, 1)
    talk.post(client, "s", {"type": "user_message", "content": " "})  # uses up the address's one
    talk.post(client, "s", {"type": "switch_agent", "agent_type": "coder"})  # and the session's
    for foreign in ({"type": "tool_result", "call_id": "nobody's", "result": 1}, {"type": "hitl_decision",
                    "call_id": "c9", "decision": "approve"}, {"type": "user_message", "content": "more"}):  # fmt: skip
        too_many(talk.post(client, "s", foreign), 1)
    assert [talk.result(client, "s", f"c{n}", n).frames for n in range(3)] == [[], [], []]
    assert talk.decide(client, "s", "w", "approve").types == ["tool_call"]
    assert talk.result(client, "s", "w", "ran").contents == ["Hello world"]
    too_many(talk.post(client, "s", {"type": "tool_result", "call_id": "w", "result": "again"}), 1)
    assert strict(model.requests[-1].body["messages"]) == []


def test_over_the_limit_a_broken_body_is_too_many_as_well(client: httpx.Client, settings: Any) -> None:
    settings.RATE_LIMIT_PER_MINUTE = 1
    client.get("/sessions")
    for body in (b"{", b"[]", b'{"session_id": "s", "message": {"type": "x"}}'):
        too_many(client.post(talk.PATH, content=body), 1)
    too_many(client.get(talk.PATH), 1)


@pytest.mark.parametrize("limit", ["RATE_LIMIT_PER_MINUTE", "SESSION_RATE_LIMIT_PER_MINUTE"])
def test_over_a_websocket_too_many_is_an_error_chunk(
    server: RunningServer, client: httpx.Client, model: ModelServer, settings: Any, limit: str
) -> None:
    with connect(f"{server.websocket_url}/ws/s", additional_headers={"X-Internal-Auth": KEY}, proxy=None) as link:
        model.reply(tool_calls([("c1", "read_file", READ)]))
        link.send(json.dumps({"type": "user_message", "content": "hi", "agent_type": "ask"}))
        assert until(link, "end")[-2]["type"] == "tool_call"
        setattr(settings, limit, 1)
        for _ in range(2):  # whichever account it is, it is used up now
            link.send(json.dumps({"type": "switch_agent", "agent_type": "ask"}))
            last = until(link, "end", "error")[-1]
        assert (last["code"], last["is_final"], last["content"]) == ("RATE_LIMITED", True, last["error"])
        link.send(json.dumps({"type": "tool_result", "call_id": "c1", "result": "x"}))
        assert until(link, "end")[-2]["content"] == "Hello world"


def until(link: Any, *types: str) -> list[dict[str, Any]]:
    heard = [json.loads(link.recv(30))]
    while heard[-1]["type"] not in types:
        heard.append(json.loads(link.recv(30)))
    return heard


# --- how much ----------------------------------------------------------------------------------------------------


class Plug:
    """A raw connection that has sent a head, and may send more."""

    def __init__(self, server: RunningServer, path: str, *headers: str, key: str = KEY) -> None:
        host, _, port = server.url.removeprefix("http://").partition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=30)
        head = [f"POST {path} HTTP/1.1", "Host: x", f"X-Internal-Auth: {key}", *headers, "", ""]
        self.socket.sendall("\r\n".join(head).encode())

    def __enter__(self) -> Plug:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def answer(self) -> tuple[int, Any]:
        found = b""
        while b"}" not in found:
            if not (more := self.socket.recv(65536)):
                break
            found += more
        head, _, body = found.partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(body)


PATHS = [talk.PATH, f"/api/v1{talk.PATH}", "/sessions", "/agents/s/switch", "/sessions/s/cancel", "/sessions/s/retry",
         "/no/such/path"]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_a_body_that_says_it_is_too_large_is_refused_on_the_head_alone(server: RunningServer, path: str) -> None:
    with Plug(server, path, f"Content-Length: {16 * 2**20 + 1}") as plug:
        status, body = plug.answer()
    assert (status, body) == (413, {"detail": "The body is larger than 16777216 bytes."})


@pytest.mark.parametrize("path", PATHS)
def test_a_body_without_a_length_is_refused_where_it_passes_the_cap(
    server: RunningServer, settings: Any, path: str
) -> None:
    settings.MAX_BODY_BYTES = 10_000
    with Plug(server, path, "Transfer-Encoding: chunked") as plug:
        for _ in range(3):
            plug.socket.sendall(b"%x\r\n%s\r\n" % (4000, b"x" * 4000))  # and no end
        status, body = plug.answer()
    assert (status, body) == (413, {"detail": "The body is larger than 10000 bytes."})
    assert not Event.objects.exists()


def test_nobody_unknown_makes_us_read_a_body(server: RunningServer) -> None:
    with Plug(server, talk.PATH, "Transfer-Encoding: chunked", key="wrong") as plug:
        assert plug.answer() == (401, {"detail": "unauthorized"})


def test_a_body_at_the_cap_is_taken(client: httpx.Client, model: ModelServer, settings: Any) -> None:
    body = json.dumps({"session_id": "s", "message": {"type": "user_message", "content": "hi"}}).encode()
    settings.MAX_BODY_BYTES = len(body)
    assert talk.parse(client.post(talk.PATH, content=body).content).tokens == "Hello world"
    assert client.post(talk.PATH, content=body + b" ").status_code == 413
    assert client.post(talk.PATH, content=iter([body, b" "])).status_code == 413


def test_two_megabytes_of_russian_pass_as_the_gateway_encodes_them(client: httpx.Client, model: ModelServer) -> None:
    model.reply(tool_calls([("c1", "read_file", READ)]))
    talk.say(client, "s", "hi", agent_type="ask")
    letters = "Ж" * 1_000_000  # 2 MB as UTF-8, 6 MB as \\uXXXX
    assert talk.result(client, "s", "c1", letters).contents == ["Hello world"]
    assert talk.history(client, "s")["messages"][2]["content"] == letters
    assert model.requests[-1].body["messages"][-1]["content"] == letters


# --- a session's own bounds --------------------------------------------------------------------------------------


def bounded(heard: Heard, code: str) -> dict[str, Any]:
    error = heard.frames[-1]
    assert (error["type"], error["code"], error["is_final"]) == ("error", code, True)
    assert error["content"] == error["error"]
    return error


@pytest.mark.parametrize("said", [RUSSIAN, ENGLISH])
def test_a_full_session_says_so_and_takes_no_more(
    client: httpx.Client, model: ModelServer, settings: Any, said: str
) -> None:
    settings.MAX_MESSAGES_PER_SESSION = 2
    talk.say(client, "s", said)
    before = (talk.history(client, "s"), Event.objects.count(), len(model.requests))
    error = bounded(talk.say(client, "s", said), "SESSION_FULL")
    assert cyrillic(error["content"]) is (said == RUSSIAN)
    assert "2" in error["content"]
    assert (talk.history(client, "s"), Event.objects.count(), len(model.requests)) == before
    assert talk.say(client, "another", said).contents == ["Hello world"]


def test_the_limit_of_messages_stops_only_people(client: httpx.Client, model: ModelServer, settings: Any) -> None:
    settings.MAX_MESSAGES_PER_SESSION = 1
    model.reply(tool_calls([("c1", "read_file", READ)]))
    talk.say(client, "s", "hi", agent_type="ask")
    assert talk.result(client, "s", "c1", "x").contents == ["Hello world"]
    assert talk.history(client, "s")["message_count"] == 4
    bounded(talk.say(client, "s", "more"), "SESSION_FULL")
    assert strict(model.requests[-1].body["messages"]) == []


@pytest.mark.parametrize(
    ("end", "code"), [(services.deactivate, "SESSION_INACTIVE"), (services.expire, "SESSION_EXPIRED")]
)
def test_an_inactive_session_takes_nothing(
    client: httpx.Client, model: ModelServer, end: Callable[..., Any], code: str
) -> None:
    model.reply(tool_calls([("c1", "execute_command", '{"command": "x"}')]))
    talk.say(client, "s", RUSSIAN, agent_type="coder")
    end("s")
    before = (talk.history(client, "s"), Event.objects.count(), len(model.requests))
    for message in ({"type": "user_message", "content": RUSSIAN}, {"type": "switch_agent", "agent_type": "ask"}):
        error = bounded(talk.send(client, "s", message), code)
        assert cyrillic(error["content"])
    for heard in (talk.result(client, "s", "c1", "x"), talk.decide(client, "s", "c1", "approve")):
        assert heard.types == ["error"]
    assert (talk.history(client, "s"), Event.objects.count(), len(model.requests)) == before
    services.activate("s")
    assert talk.say(client, "s", "again").contents == ["Hello world"]
    assert strict(model.requests[-1].body["messages"]) == []


# --- a turn's bounds ---------------------------------------------------------------------------------------------


def endless(model: ModelServer, name: str, arguments: str) -> None:
    model.always(lambda body: tool_calls([(f"c{len(model.requests)}", name, arguments)]))


def steps(model: ModelServer, settings: Any) -> None:
    settings.MAX_STEPS_PER_RUN = 3
    turns = iter(["ask", "debug"] * 20)
    model.always(lambda body: tool_calls([("", "switch_mode", json.dumps({"mode": next(turns)}))]))


def switches(model: ModelServer, settings: Any) -> None:
    settings.MAX_SWITCHES_PER_RUN = 2
    turns = iter(["ask", "debug"] * 20)
    model.always(lambda body: tool_calls([("", "switch_mode", json.dumps({"mode": next(turns)}))]))


def mistakes(model: ModelServer, settings: Any) -> None:
    settings.MAX_MISTAKES_PER_RUN = 2
    endless(model, "read_file", "{broken")


def length(model: ModelServer, settings: Any) -> None:
    settings.MAX_ANSWER_BYTES = 20
    model.always(lambda body: text("Жук ", *["и ещё слова "] * 20))


def arguments_length(model: ModelServer, settings: Any) -> None:
    settings.MAX_ANSWER_BYTES = 50
    endless(model, "read_file", json.dumps({"path": "x" * 1000}))


def seconds(model: ModelServer, settings: Any) -> None:
    settings.MAX_TURN_SECONDS = 0.3
    model.always(lambda body: hang_after(2))


BOUNDS = {
    "STEP_LIMIT": steps,
    "SWITCH_LIMIT": switches,
    "TOOL_MISTAKE_LIMIT": mistakes,
    "ANSWER_TOO_LONG": length,
    "TURN_TOO_LONG": seconds,
}


@pytest.mark.parametrize(("language", "said"), [("", RUSSIAN), ("", ENGLISH), ("ru", ENGLISH), ("en", RUSSIAN)])
@pytest.mark.parametrize("code", BOUNDS)
def test_a_bound_is_said_in_the_language_of_the_setting_else_of_the_person(
    client: httpx.Client, model: ModelServer, settings: Any, code: str, language: str, said: str
) -> None:
    settings.LANGUAGE = language
    BOUNDS[code](model, settings)
    heard = talk.say(client, "s", said, agent_type="architect")
    error = bounded(heard, code)
    assert cyrillic(error["content"]) is ((language or ("ru" if said == RUSSIAN else "en")) == "ru")
    assert [frame["is_final"] for frame in heard.frames[:-1]] == [False] * (len(heard.frames) - 1)
    usable(client, model, heard)


def test_arguments_without_an_end_are_bounded_too(client: httpx.Client, model: ModelServer, settings: Any) -> None:
    arguments_length(model, settings)
    heard = talk.say(client, "s", "hi", agent_type="ask")
    bounded(heard, "ANSWER_TOO_LONG")
    settings.MAX_ANSWER_BYTES = 4 * 2**20
    usable(client, model, heard)


def usable(client: httpx.Client, model: ModelServer, heard: Heard) -> None:
    """What was shown is kept, nothing is open, and the next message is answered."""
    rows = talk.history(client, "s")["messages"]
    assert [row["content"] for row in rows if row["role"] == "assistant" and row["content"]] == heard.contents
    assert heard.tokens == "".join(heard.contents)
    assert set(Run.objects.values_list("state", flat=True)) == {RunState.FAILED}
    assert not Message.objects.filter(state="open").exists()
    model.always(chunks([{"content": "fine"}]))
    assert talk.say(client, "s", "again").contents == ["fine"]
    assert strict(model.requests[-1].body["messages"]) == []
    assert talk.history(client, "s")["message_count"] == len(talk.history(client, "s")["messages"])


def test_waiting_for_a_person_does_not_count_as_the_turns_time(
    client: httpx.Client, model: ModelServer, settings: Any
) -> None:
    settings.MAX_TURN_SECONDS = 5
    model.reply(tool_calls([("c1", "read_file", READ)]))
    talk.say(client, "s", "hi", agent_type="ask")
    Run.objects.update(started_at="2020-01-01T00:00:00Z", created_at="2020-01-01T00:00:00Z")
    assert talk.result(client, "s", "c1", "x").contents == ["Hello world"]
    model.reply(tool_calls([("c2", "read_file", READ)]))
    talk.say(client, "s", "hi")
    Run.objects.filter(state=RunState.WAITING).update(active_seconds=6)
    bounded(talk.result(client, "s", "c2", "x"), "TURN_TOO_LONG")


def test_steps_count_across_the_client(client: httpx.Client, model: ModelServer, settings: Any) -> None:
    settings.MAX_STEPS_PER_RUN = 2
    endless(model, "read_file", READ)
    first = talk.say(client, "s", "hi", agent_type="ask").calls[0]["call_id"]
    second = talk.result(client, "s", first, "x").calls[0]["call_id"]
    bounded(talk.result(client, "s", second, "x"), "STEP_LIMIT")
    assert len(model.requests) == 2
    model.always(lambda body: text("fine"))
    assert talk.say(client, "s", "a new turn, a new count").contents == ["fine"]
    assert strict(model.requests[-1].body["messages"]) == []
