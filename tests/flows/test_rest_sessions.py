"""Sessions over REST: made, listed, shown, changed, cancelled, removed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from sessions_app import services
from sessions_app.models import Approval, Run, RunState, Session
from tests.flows.rest_answers import ROOTS, got, refused
from tests.sessions_app import told

ITEM = {
    "id", "session_id", "title", "description", "message_count", "created_at", "last_activity", "is_active",
    "current_agent",
}  # fmt: skip


@pytest.mark.parametrize("root", ROOTS)
@pytest.mark.parametrize("request_body", [{}, {"json": {}}, {"json": {"session_id": None, "extra": 1}}])
def test_sessions_are_made_with_no_body_and_with_an_empty_one(
    client: httpx.Client, root: str, request_body: dict[str, Any]
) -> None:
    answer = client.post(f"{root}/sessions", **request_body)
    assert answer.status_code == 201
    made = answer.json()
    assert set(made) == {"id", "session_id", "message_count", "created_at", "is_active", "current_agent"}
    assert made["id"] == made["session_id"]
    assert (made["message_count"], made["is_active"], made["current_agent"]) == (0, True, "orchestrator")
    assert [item["id"] for item in got(client, f"{root}/sessions")["sessions"]] == [made["id"]]


def test_a_session_id_is_taken_once(client: httpx.Client) -> None:
    assert client.post("/sessions", json={"session_id": "mine"}).json()["session_id"] == "mine"
    assert refused(client.post("/sessions", json={"session_id": "mine"}), 409) == "Session mine already exists"


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ";"]
)
def test_a_body_is_json_whatever_its_type_says(client: httpx.Client, content_type: str) -> None:
    answer = client.post("/sessions", content=b'{"session_id": "typed"}', headers={"Content-Type": content_type})
    assert (answer.status_code, answer.json()["session_id"]) == (201, "typed")


def test_a_body_without_a_length_is_read(client: httpx.Client) -> None:
    answer = client.post("/sessions", content=iter([b'{"session_id":', b' "chunked"}']))
    assert (answer.status_code, answer.json()["session_id"]) == (201, "chunked")


@pytest.mark.parametrize("accept", ["text/html", "text/event-stream", "image/png;q=x", "*/*;indent=9", "", "x" * 9000])
def test_answers_are_json_whatever_is_accepted(client: httpx.Client, accept: str) -> None:
    for path, status in (("/sessions", 200), ("/sessions/nobody", 404), ("/no/such/path", 404)):
        answer = client.get(path, headers={"Accept": accept})
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")


@pytest.mark.parametrize("name", ["", "a" * 256, "a\x00b", "a\nb", "a\x7f", "a\x9f", 5, 1.5, True, [], {}, ["a"]])
def test_impossible_session_ids_are_refused_with_the_field(client: httpx.Client, name: Any) -> None:
    (field,) = refused(client.post("/sessions", json={"session_id": name}), 422)
    assert field["loc"] == ["body", "session_id"]
    assert set(field) == {"loc", "msg", "type"}
    assert not Session.objects.exists()


HOSTILE = [
    b"{", b"[", b"nonsense", b'{"session_id": NaN}', b'{"session_id": 1e999}', b'{"session_id": "\\ud800"}',
    b"\xff\xfe", b'{"session_id": "\xff"}', b"[" * 100_000, b'{"a":' * 300 + b"1" + b"}" * 300, b"\x00",
    b'{"session_id": "a"} x', b"[]", b'"text"', b"5", b"null", b"true", b"\xef\xbb\xbf{}", b" ",
]  # fmt: skip


@pytest.mark.parametrize("body", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_bodies_are_refused_and_store_nothing(client: httpx.Client, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    for method, path in (("POST", "/sessions"), ("PATCH", "/sessions/x"), ("POST", "/agents/x/switch")):
        refused(client.request(method, path, content=body, headers=headers), 422)
    assert not Session.objects.exists()


@pytest.mark.parametrize(
    "name", ["a/b", "a b", "сессия 🙂", "a?b#c", "50%", "a/history", "a.json", "x" * 255, "a\u2028b"]
)
def test_any_session_id_works_in_a_path(client: httpx.Client, name: str) -> None:
    services.create_session(name)
    where = f"/sessions/{quote(name, safe='')}"
    assert got(client, f"{where}/history")["session_id"] == name
    assert got(client, f"{where}/pending-approvals")["session_id"] == name
    assert got(client, f"/agents/{quote(name, safe='')}/current")["context"]["session_id"] == name
    assert client.post(f"{where}/cancel").json() == {"session_id": name, "run_id": None, "state": "idle"}
    if not name.endswith("/history"):
        assert got(client, where)["session"]["id"] == name


def test_sessions_are_listed_in_pages_newest_activity_first(client: httpx.Client) -> None:
    for number in range(5):
        services.create_session(f"s{number}")
    services.deactivate("s2")
    page = got(client, "/sessions", limit=2, offset=1)
    assert [item["session_id"] for item in page["sessions"]] == ["s3", "s1"]
    assert set(page["sessions"][0]) == ITEM
    assert (page["total"], page["limit"], page["offset"]) == (4, 2, 1)
    assert got(client, "/sessions", active_only="false")["total"] == 5
    assert got(client, "/sessions", offset=99)["sessions"] == []
    assert got(client, "/sessions")["limit"] == 100


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("limit=0", 400),
        ("limit=1001", 400),
        ("limit=-1", 400),
        ("offset=-1", 400),
        ("offset=9223372036854775808", 400),
        ("offset=" + "9" * 300, 400),
        ("limit=abc", 422),
        ("limit=", 422),
        ("limit=1.5", 422),
        ("limit=1e999", 422),
        ("offset=%00", 422),
        ("limit=" + "9" * 5000, 422),
        ("active_only=perhaps", 422),
        ("limit=x&offset=-1", 422),
    ],
)
@pytest.mark.parametrize("root", ROOTS)
def test_out_of_range_is_400_and_no_number_is_422(client: httpx.Client, root: str, query: str, status: int) -> None:
    refused(client.get(f"{root}/sessions?{query}"), status)


def test_a_session_is_shown_with_and_without_its_messages(client: httpx.Client) -> None:
    told.session()
    plain = got(client, "/sessions/told")["session"]
    assert set(plain) == {
        "id", "title", "description", "message_count", "messages", "last_activity", "is_active", "created_at",
        "duration_seconds",
    }  # fmt: skip
    assert (plain["id"], plain["title"], plain["message_count"], plain["messages"]) == ("told", "Write a.txt", 4, None)
    assert plain["duration_seconds"] > 0
    messages = got(client, "/sessions/told", include_messages="true")["session"]["messages"]
    assert set(messages[0]) == {"id", "role", "content", "name", "tool_call_id", "tool_calls", "created_at"}
    assert messages[0]["name"] is messages[0]["tool_call_id"] is messages[0]["tool_calls"] is None
    assert isinstance(messages[0]["id"], str)
    assert messages[1]["tool_calls"] == told.CALLS
    refused(client.get("/sessions/told?include_messages=perhaps"), 422)


def test_history_is_the_conversation(client: httpx.Client) -> None:
    told.session()
    history = got(client, "/sessions/told/history")
    assert set(history) == {
        "session_id", "messages", "message_count", "last_activity", "current_agent", "agent_history",
    }  # fmt: skip
    assert (history["message_count"], history["current_agent"]) == (4, "coder")
    assert history["messages"][0] == {"role": "user", "content": "Write a.txt"}
    assert history["messages"][-1] == {"role": "assistant", "content": "It is writ", "interrupted": True}
    assert set(history["agent_history"][0]) == {"from", "to", "reason", "timestamp"}


def test_pending_approvals_rebuild_the_dialogs(client: httpx.Client) -> None:
    told.session()
    found = got(client, "/sessions/told/pending-approvals")
    (waiting,) = found["pending_approvals"]
    arguments = {"path": "a.txt", "big": 123456789012345678901234567890}
    assert (found["session_id"], found["count"]) == ("told", 1)
    assert datetime.fromisoformat(waiting.pop("created_at"))
    assert waiting == {
        "request_id": "call_1",
        "request_type": "tool",
        "subject": "write_file",
        "details": {"arguments": arguments},
        "reason": "writes",
        "call_id": "call_1",
        "tool_name": "write_file",
        "arguments": arguments,
    }
    Approval.objects.update(state="approved")
    assert got(client, "/sessions/told/pending-approvals")["pending_approvals"] == []


def test_a_session_is_renamed_described_and_removed(client: httpx.Client) -> None:
    services.create_session("mine")
    answer = client.patch("/sessions/mine", json={"title": "New", "description": "what\x00for", "id": "other"})
    assert answer.status_code == 200
    assert set(answer.json()) == ITEM
    assert (answer.json()["title"], answer.json()["description"]) == ("New", "what\\u0000for")
    assert client.patch("/sessions/mine", json={"title": None}).json()["title"] == "New"
    (field,) = refused(client.patch("/sessions/mine", json={"title": 5}), 422)
    assert field["loc"] == ["body", "title"]
    assert client.patch("/sessions/mine", json={"title": "x" * 1000}).status_code == 200
    answer = client.delete("/sessions/mine")
    assert (answer.status_code, answer.content) == (204, b"")
    refused(client.delete("/sessions/mine"), 404)


def test_removing_a_session_ends_its_run(client: httpx.Client) -> None:
    told.session()
    assert client.delete("/sessions/told").status_code == 204
    assert not Run.objects.exists()


def test_cancel_stops_what_waits_and_is_content_with_nothing(client: httpx.Client) -> None:
    run = told.waiting_run(told.session())
    answer = client.post("/sessions/told/cancel")
    assert answer.status_code == 200
    assert (answer.json()["session_id"], answer.json()["run_id"]) == ("told", run.pk)
    assert got(client, f"/api/v1/runs/{run.pk}")["state"] == RunState.CANCELLED
    assert got(client, "/sessions/told/pending-approvals")["count"] == 0
    assert client.post("/sessions/told/cancel").json() == {"session_id": "told", "run_id": None, "state": "idle"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/sessions/{}"),
        ("PATCH", "/sessions/{}"),
        ("DELETE", "/sessions/{}"),
        ("GET", "/sessions/{}/history"),
        ("GET", "/sessions/{}/pending-approvals"),
        ("POST", "/sessions/{}/cancel"),
        ("GET", "/agents/{}/current"),
        ("GET", "/api/v1/sessions/{}/messages"),
        ("GET", "/api/v1/sessions/{}/events"),
    ],
)
@pytest.mark.parametrize(
    ("encoded", "name"), [("nobody", "nobody"), ("%00", "\x00"), ("a%2Fb", "a/b"), ("%FF", "\ufffd")]
)
def test_404_names_the_session(client: httpx.Client, method: str, path: str, encoded: str, name: str) -> None:
    answer = client.request(method, path.format(encoded))
    assert refused(answer, 404) == f"Session {name} not found"
    assert answer.json()["code"] == "SESSION_NOT_FOUND"


def test_one_of_many_makers_of_a_session_wins(client: httpx.Client) -> None:
    def make(_: int) -> int:
        return client.post("/sessions", json={"session_id": "wanted"}).status_code

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(make, range(16))) == [201] + [409] * 15
    assert got(client, "/events/stats")["total_published"] == 2
