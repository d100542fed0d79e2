"""Sessions of others: whatever an owner asks, on whichever way, the world is the same without them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from runtime_project.openapi import document
from sessions_app import owners, services
from sessions_app.models import AuditEntry, Event, Message, Run, Session, ToolCall
from tests import talk
from tests.conftest import KEY, RunningServer
from tests.listening import Socket
from tests.model_replies import text, tool_calls, verdict
from tests.model_server import ModelServer
from tests.sessions_app import told

HEADER = "X-Owner"
ID = "told"
CREATING = ("post /sessions", "post /agent/message/stream")
MESSAGES: dict[str, dict[str, Any]] = {
    "user_message": {"content": "hello"},
    "tool_result": {"call_id": "call_1", "result": "x"},
    "switch_agent": {"agent_type": "ask"},
    "hitl_decision": {"call_id": "call_1", "decision": "approve"},
}


@pytest.fixture(autouse=True)
def _owners(settings: Any) -> None:
    settings.OWNER_HEADER = HEADER


def acting(server: RunningServer, owner: str = "") -> httpx.Client:
    headers = {"X-Internal-Auth": KEY} | ({HEADER: owner} if owner else {})
    return httpx.Client(base_url=server.url, headers=headers, timeout=30)


@pytest.fixture
def alice(server: RunningServer) -> Iterator[httpx.Client]:
    with acting(server, "alice") as client:
        yield client


@pytest.fixture
def bob(server: RunningServer) -> Iterator[httpx.Client]:
    with acting(server, "bob") as client:
        yield client


@pytest.fixture
def hers(server: RunningServer) -> Session:
    """A session of Alice's with something of everything in it."""
    with owners.acting_for("alice"):
        return told.session(ID)


def stored() -> list[Any]:
    """All rows that tell of sessions."""
    tables = (Session, Run, Message, ToolCall, Event, AuditEntry)
    return [list(table._default_manager.order_by("pk").values()) for table in tables]


# --- REST: every operation of the document -----------------------------------------------------------------------


def operations() -> Iterator[tuple[str, str, Any]]:
    """Method, path and a body that fits, of all that the document has."""
    for path, item in document()["paths"].items():
        for method, operation in item.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            examples = [one["value"] for one in content.get("examples", {}).values()]
            yield method, path, (examples or [content.get("example")])[0]


def about(session_id: str, body: Any) -> Any:
    """The body with every session that it names replaced by this one."""
    if isinstance(body, dict):
        return {key: session_id if key == "session_id" else about(session_id, value) for key, value in body.items()}
    return [about(session_id, one) for one in body] if isinstance(body, list) else body


def answers(client: httpx.Client, run_id: int) -> dict[str, Any]:
    """What every operation answers that needs a key, but for those that create a session and for what time it is."""
    found = {}
    for method, path, body in operations():
        within = path.removeprefix("/api/v1")
        if f"{method} {within}" in CREATING or within.startswith("/health"):
            continue
        address = path.replace("{session_id}", ID).replace("{run_id}", str(run_id))
        answer = client.request(method, address, json=about(ID, body))
        told = answer.json() if answer.content else None
        if isinstance(told, dict):
            told.pop("timestamp", None)
        found[f"{method} {path}"] = (answer.status_code, told)
    return found


def test_no_operation_tells_another_owner_that_there_is_a_session(hers: Session, bob: httpx.Client) -> None:
    run_id = told.waiting_run(hers).pk
    before = stored()
    with_hers = answers(bob, run_id)
    assert stored() == before
    services.delete_session(ID)
    without = answers(bob, run_id)
    assert with_hers == without
    named = [name for name in with_hers if "{" in name]
    assert len(named) > 20
    assert {with_hers[name][0] for name in named} == {404}


def test_her_own_session_is_there_for_her_and_for_the_service(
    server: RunningServer, hers: Session, alice: httpx.Client
) -> None:
    run_id = told.waiting_run(hers).pk
    services.create_session("the service's")
    with acting(server) as service:
        for client, count in ((alice, 1), (service, 2)):
            assert client.get("/sessions").json()["total"] == count
            assert client.get("/events/metrics/sessions").json()["sessions"] == [ID]
            assert client.get("/events/stats").json()["total_published"] >= Event.objects.filter(session=hers).count()
            paths = (f"/sessions/{ID}", f"/sessions/{ID}/history", f"/agents/{ID}/current", f"/api/v1/runs/{run_id}")
            for path in paths:
                assert client.get(path).status_code == 200
            for listed in ("runs", "tool-calls", "approvals"):
                assert client.get(f"/api/v1/{listed}").json()["total"] == 1
    assert alice.get("/sessions/the%20service's").status_code == 404


def test_many_calls_are_decided_by_their_owner_only(hers: Session, alice: httpx.Client, bob: httpx.Client) -> None:
    wanted = {"decision": "approve", "call_ids": [{"session_id": ID, "call_id": "call_1"}]}
    before = stored()
    [refused] = bob.post("/api/v1/approvals/bulk", json=wanted).json()["results"]
    assert (refused["ok"], refused["code"], stored()) == (False, "SESSION_NOT_FOUND", before)
    [taken] = alice.post("/api/v1/approvals/bulk", json=wanted).json()["results"]
    assert taken["ok"]


def test_the_metrics_of_the_whole_installation_are_no_owners(server: RunningServer, alice: httpx.Client) -> None:
    assert alice.get("/metrics").status_code == 403
    with acting(server) as service:
        assert service.get("/metrics").status_code == 200


def test_a_taken_id_is_taken_and_nothing_more_is_said(hers: Session, bob: httpx.Client) -> None:
    before = stored()
    for root in ("", "/api/v1"):
        answer = bob.post(f"{root}/sessions", json={"session_id": ID})
        assert answer.status_code == 409
        assert answer.json() == {"detail": f"Session {ID} already exists", "code": "SESSION_ALREADY_EXISTS"}
    assert stored() == before


# --- messages, on both transports --------------------------------------------------------------------------------


@pytest.mark.parametrize("type_", MESSAGES)
def test_a_message_to_anothers_session_is_an_error_chunk_and_changes_nothing(
    server: RunningServer, hers: Session, bob: httpx.Client, model: ModelServer, type_: str
) -> None:
    message = {"type": type_, **MESSAGES[type_]}
    before = stored()
    [over_http] = talk.send(bob, ID, message).frames
    assert bob.post(f"/api/v1{talk.PATH}", json={"session_id": ID, "message": message}).status_code == 404
    with mine(server, "bob", ID) as link:
        link.send(json.dumps(message))
        over_socket = json.loads(link.recv(30))
    assert over_http["code"] == over_socket["code"] == "SESSION_NOT_FOUND"
    assert over_http["content"] == f"Session {ID} not found"
    assert (stored(), model.requests) == (before, [])


def mine(server: RunningServer, owner: str, session_id: str) -> Any:
    headers = {"X-Internal-Auth": KEY, HEADER: owner}
    return connect(f"{server.websocket_url}/ws/{session_id}", additional_headers=headers, proxy=None)


@pytest.mark.parametrize("request_", [{"type": "cancel"}, {"type": "resume", "after": "0.0"}])
def test_a_socket_cannot_reach_it_either(server: RunningServer, hers: Session, request_: dict[str, Any]) -> None:
    before, heard = stored(), []
    for session_id in (ID, "none"):
        with mine(server, "bob", session_id) as link:
            link.send(json.dumps(request_))
            heard.append(str(link.recv(30)).replace(session_id, "?"))
    assert heard[0] == heard[1]
    assert "SESSION_NOT_FOUND" in heard[0]
    assert stored() == before


def test_two_owners_who_create_the_same_id_at_once_get_one_session(server: RunningServer, model: ModelServer) -> None:
    model.always(text("hello"))
    with acting(server, "alice") as one, acting(server, "bob") as two, ThreadPoolExecutor(2) as pool:
        for number in range(5):
            name = f"race-{number}"
            both = [pool.submit(talk.say, client, name, "hi", agent_type="ask") for client in (one, two)]
            codes = [heard.result().error for heard in both]
            assert sorted(code["code"] if code else "" for code in codes) == ["", "SESSION_NOT_FOUND"]
            winner = ("alice", "bob")[codes.index(None)]
            assert Session.objects.get(session_id=name).owner == winner
            assert Message.objects.filter(session__session_id=name).count() == 2


def test_a_whole_turn_belongs_to_its_owner(server: RunningServer, alice: httpx.Client, model: ModelServer) -> None:
    model.route(verdict("coder"))
    model.reply(tool_calls([("c1", "write_file", '{"path": "a.md", "content": "x"}')]), text("done"))
    talk.say(alice, "a", "write")
    talk.send(alice, "a", {"type": "hitl_decision", "call_id": "c1", "decision": "approve"})
    assert talk.send(alice, "a", {"type": "tool_result", "call_id": "c1", "result": "ok"}).contents == ["done"]
    assert Session.objects.get().owner == "alice"
    with Socket(server.websocket_url, "a") as service:
        service.send({"type": "resume", "after": "0.0"})
        assert service.next(30)["type"] != "error"


def test_nobody_uses_up_what_another_owner_may_say(
    hers: Session, bob: httpx.Client, alice: httpx.Client, settings: Any
) -> None:
    settings.SESSION_RATE_LIMIT_PER_MINUTE = 2
    switch = {"type": "switch_agent", "agent_type": "coder"}
    statuses = [talk.post(bob, ID, switch).status_code for _ in range(4)]
    assert statuses == [200, 200, 429, 429]
    assert [talk.post(alice, ID, switch).status_code for _ in range(3)] == [200, 200, 429]


# --- the header --------------------------------------------------------------------------------------------------


def status(server: RunningServer, *headers: tuple[str, str | bytes], key: str = KEY) -> int:
    sent = [("X-Internal-Auth", key), *headers]
    return httpx.get(f"{server.url}/sessions", headers=httpx.Headers(sent)).status_code  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "headers",
    [
        [(HEADER, "")],
        [(HEADER, "alice"), (HEADER, "bob")],
        [(HEADER, "alice"), ("X_Owner", "bob")],
        [("X_Owner", "alice")],
        [(HEADER, "x" * 256)],
        [(HEADER, b"\xff\xfe")],
        [(HEADER, "a\u0085b".encode())],
        [(HEADER, "a\u202eb".encode())],
    ],
)
def test_an_owner_that_cannot_be_told_is_let_in_nowhere(server: RunningServer, headers: Any) -> None:
    assert status(server, *headers) == 401


def test_the_header_counts_beside_a_right_key_only(server: RunningServer, settings: Any) -> None:
    services.create_session("s")
    assert status(server, (HEADER, "alice"), key="wrong") == 401
    with acting(server, "alice") as client:
        assert client.get("/sessions").json()["total"] == 0
        settings.OWNER_HEADER = ""
        assert client.get("/sessions").json()["total"] == 1


def test_an_owners_name_may_be_in_any_script(server: RunningServer) -> None:
    name = "Ольга Ж."
    with httpx.Client(base_url=server.url, headers=[("X-Internal-Auth", KEY), (HEADER, name.encode())]) as client:  # type: ignore[list-item]
        assert client.post("/sessions", json={"session_id": "s"}).status_code == 201
    assert Session.objects.get().owner == name
