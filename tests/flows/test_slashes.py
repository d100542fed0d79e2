"""A session may be called anything, also what looks like a path: encoded, its slashes are its own everywhere."""

from __future__ import annotations

from urllib.parse import quote

import httpx
import pytest

from tests import talk
from tests.conftest import RunningServer
from tests.flows.test_gate import raw
from tests.listening import Socket, following, truth
from tests.model_server import ModelServer, text

AWKWARD = ["x/history", "x/stream", "x/cancel", "x/retry", "x/pending-approvals", "x/messages", "x/events",
           "a/b/stream", "/", "x/", "/x", "//", "history", "stream", "%2F", "x%2Fhistory",
           "../x", "x/./y", "x?y#z", "ю/history"]  # fmt: skip


@pytest.fixture(params=["", "/api/v1"], ids=["root", "v1"])
def base(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("name", AWKWARD)
def test_every_endpoint_means_the_session_of_that_name(
    client: httpx.Client, model: ModelServer, base: str, name: str
) -> None:
    model.reply(text("Hello"))
    talk.say(client, name, "Hi", agent_type="ask")
    session = f"{base}/sessions/{quote(name, safe='')}"
    assert client.get(session).json()["session"]["title"] == "Hi"
    assert client.get(f"{session}/history").json()["session_id"] == name
    assert client.get(f"{session}/pending-approvals").json()["session_id"] == name
    assert client.patch(session, json={"title": "Renamed"}).json()["title"] == "Renamed"
    told = talk.parse(client.get(f"{session}/stream", params={"after": "0.0", "follow": "false"}).content)
    assert told.contents == ["Hello"]
    assert client.post(f"{session}/cancel").status_code < 300
    assert client.post(f"{session}/retry").status_code == 409
    agent = f"{base}/agents/{quote(name, safe='')}"
    assert client.get(f"{agent}/current").json()["context"]["session_id"] == name
    switch = client.post(f"{agent}/switch", json={"target_agent": "coder", "reason": "r"})
    assert switch.json()["context"]["current_agent"] == "coder"
    metrics = client.get(f"{base}/events/metrics/session/{quote(name, safe='')}").json()
    assert (metrics["session_id"], metrics["total_requests"]) == (name, 1)
    assert client.delete(session).status_code == 204
    assert client.get(session).status_code == 404


@pytest.mark.parametrize("name", ["x/history", "x/stream", "//"])
def test_its_lists_and_their_pages_too(client: httpx.Client, model: ModelServer, name: str) -> None:
    talk.say(client, name, "Hi", agent_type="ask")
    for kind in ("messages", "events"):
        page = client.get(f"/api/v1/sessions/{quote(name, safe='')}/{kind}")
        assert page.status_code == 200
        assert page.json()["results"]


def test_a_plain_slash_divides_as_ever(client: httpx.Client, model: ModelServer) -> None:
    for name in ("x", "x/history", "a/b"):
        talk.say(client, name, name, agent_type="ask")
    assert client.get("/sessions/x/history").json()["session_id"] == "x"
    assert client.get("/sessions/x/history/history").json()["session_id"] == "x/history"
    assert client.get("/sessions/a/b").json()["session"]["title"] == "a/b"
    assert client.get("/sessions/a/b/history").json()["session_id"] == "a/b"
    assert client.get("/sessions/a%2fb/history").json()["session_id"] == "a/b"


def test_over_a_socket_and_in_a_stream(server: RunningServer, client: httpx.Client, model: ModelServer) -> None:
    model.reply(text("Hello"))
    with Socket(server.websocket_url, "x/stream") as socket:
        socket.say("Hi", agent_type="ask")
        assert socket.turn().contents == ["Hello"]
    truth(client, quote("x/stream", safe=""))
    with following(client, "x/stream", "0.0") as log:
        log.until(lambda heard: heard.contents == ["Hello"])


@pytest.mark.parametrize(
    "path",
    ["/sessions%2Fx", "/sessions/%2F..%2F..%2Fmetrics", "/%2Fsessions", "/agents/%2F%2F/current",
     "/health%2Fready%2F..", "/sessions/%ED%B0%AF", "/sessions/%2f%ff", "/admin%2F", "/static/%2F..%2Fx"],
)  # fmt: skip
def test_nothing_else_opens_by_it(server: RunningServer, path: str) -> None:
    status, _, _ = raw(server, b"GET " + path.encode() + b" HTTP/1.1")
    assert status in (301, 302, 400, 401, 404)
