"""The outermost layer on a raw socket: who is let in, from where, under which id, and what is public."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import httpx
import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from runtime_project.origin import address_of
from sessions_app import services
from sessions_app.models import Event, Session
from tests import talk
from tests.conftest import KEY, RunningServer
from tests.model_server import ModelServer

UNAUTHORIZED = {"detail": "unauthorized"}
GOOD = {"session_id": "s", "message": {"type": "user_message", "content": "hi"}}


def raw(server: RunningServer, head: bytes, body: bytes = b"") -> tuple[int, dict[str, str], bytes]:
    """One request, written byte by byte as given; status, headers (lower case) and body of the answer."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    with socket.create_connection((host, int(port)), timeout=30) as plug:
        plug.sendall(head + b"\r\nHost: x\r\nConnection: close\r\n" + length + b"\r\n" + body)
        answer = b"".join(iter(lambda: plug.recv(65536), b""))
    top, _, rest = answer.partition(b"\r\n\r\n")
    first, *lines = top.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return int(first.split()[1]), headers, rest


# --- the key -----------------------------------------------------------------------------------------------------

RIGHT = KEY.encode()
WRONG_KEYS: dict[str, bytes] = {
    "none": b"",
    "empty": b"\r\nX-Internal-Auth:",
    "wrong": b"\r\nX-Internal-Auth: wrong",
    "a prefix": b"\r\nX-Internal-Auth: " + RIGHT[:-1],
    "in capitals": b"\r\nX-Internal-Auth: " + RIGHT.upper(),
    "with more": b"\r\nX-Internal-Auth: " + RIGHT + b"x",
    "not ascii": b"\r\nX-Internal-Auth: \xff\xfe\x80",
    "twice": b"\r\nX-Internal-Auth: " + RIGHT + b"\r\nX-Internal-Auth: " + RIGHT,
    "right and wrong": b"\r\nX-Internal-Auth: " + RIGHT + b"\r\nx-internal-auth: wrong",
    "wrong and right": b"\r\nX-Internal-Auth: wrong\r\nX-INTERNAL-AUTH: " + RIGHT,
    "in one line": b"\r\nX-Internal-Auth: " + RIGHT + b", " + RIGHT,
    "underscores": b"\r\nX_Internal_Auth: " + RIGHT,
    "underscores beside": b"\r\nX-Internal-Auth: " + RIGHT + b"\r\nX_INTERNAL_AUTH: " + RIGHT,
    "mixed": b"\r\nX-Internal_Auth: " + RIGHT,
    "mixed beside": b"\r\nX-Internal-Auth: " + RIGHT + b"\r\nX_Internal-Auth: wrong",
    "bearer": b"\r\nAuthorization: Bearer " + RIGHT,
    "basic": b"\r\nAuthorization: Basic " + RIGHT,
    "cookie": b"\r\nCookie: X-Internal-Auth=" + RIGHT,
    "other name": b"\r\nX-Internal-Authorization: " + RIGHT,
}
PROTECTED = [b"GET /sessions", b"POST /agent/message/stream", b"GET /sessions/s/stream", b"GET /api/v1/runs",
             b"DELETE /sessions/s", b"GET /no/such/path", b"POST /sessions/s/retry"]  # fmt: skip


def test_a_wrong_key_opens_nothing(server: RunningServer, model: ModelServer, subtests: pytest.Subtests) -> None:
    services.create_session("s")
    before = Event.objects.count()
    for name, headers in WRONG_KEYS.items():
        with subtests.test(name):
            for line in PROTECTED:
                status, told, body = raw(server, line + b" HTTP/1.1" + headers, json.dumps(GOOD).encode())
                assert (status, json.loads(body)) == (401, UNAUTHORIZED)
                assert told["content-type"] == "application/json"
                assert told["x-ratelimit-limit"]
    assert (Event.objects.count(), model.requests) == (before, [])
    assert Session.objects.count() == 1


@pytest.mark.parametrize("name", ["X-Internal-Auth", "x-internal-auth", "X-INTERNAL-AUTH", "x-InTeRnAl-aUtH"])
def test_the_headers_name_may_be_written_in_any_case(server: RunningServer, name: str) -> None:
    status, _, _ = raw(server, b"GET /sessions HTTP/1.1\r\n%s:   %s  " % (name.encode(), RIGHT))
    assert status == 200


@pytest.mark.parametrize("name", ["key", "api_key", "token", "X-Internal-Auth", "x_internal_auth", "auth"])
def test_a_key_in_the_query_never_counts_and_is_never_logged(
    server: RunningServer, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    with caplog.at_level("DEBUG"):
        for path in ("/sessions", talk.PATH, "/health", "/no/such/path", "/docs"):
            answer = httpx.get(server.url + path, params={name: KEY})
            assert answer.status_code in (200, 401)
            assert KEY not in answer.text
        assert httpx.get(f"{server.url}/sessions", params={name: KEY}).status_code == 401
    ours = [record for record in caplog.records if record.name not in ("httpx", "httpcore", "uvicorn.access")]
    assert not [record for record in ours if KEY in record.getMessage()]


@pytest.mark.parametrize("headers", [{}, {"X-Internal-Auth": "wrong"}, {"X_Internal_Auth": KEY}])
def test_a_websocket_without_the_key_is_401(server: RunningServer, headers: dict[str, str]) -> None:
    with pytest.raises(InvalidStatus) as refused:
        connect(f"{server.websocket_url}/ws/s?key={KEY}", additional_headers=headers, proxy=None)
    assert refused.value.response.status_code == 401
    assert json.loads(refused.value.response.body or b"") == UNAUTHORIZED


def test_a_websocket_with_two_keys_is_401(server: RunningServer) -> None:
    twice = [("X-Internal-Auth", KEY), ("X-Internal-Auth", KEY)]
    with pytest.raises(InvalidStatus) as refused:
        connect(f"{server.websocket_url}/ws/s", additional_headers=twice, proxy=None)
    assert refused.value.response.status_code == 401


def test_a_websocket_with_the_key_speaks(server: RunningServer, model: ModelServer) -> None:
    headers = {"X-Internal-Auth": KEY}
    with connect(f"{server.websocket_url}/ws/s", additional_headers=headers, proxy=None) as link:
        link.send(json.dumps(GOOD["message"]))
        types = [json.loads(link.recv(30))["type"]]
        while types[-1] != "end":
            types.append(json.loads(link.recv(30))["type"])
    assert types[0] == "ack"
    assert "assistant_message" in types


# --- public ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready", "/docs", "/openapi.json"])
def test_public_paths_need_no_key(server: RunningServer, path: str) -> None:
    for headers in ({}, {"X-Internal-Auth": "wrong"}):
        answer = httpx.get(server.url + path, headers=headers)
        assert answer.status_code == 200
        assert "location" not in answer.headers


@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume")
def test_static_files_and_the_login_page_need_no_key(server: RunningServer) -> None:
    assert httpx.get(f"{server.url}/static/admin/css/base.css").headers["content-type"].startswith("text/css")
    answer = httpx.get(f"{server.url}/admin/", follow_redirects=True)
    assert (answer.status_code, answer.url.path) == (200, "/admin/login/")


@pytest.mark.parametrize(
    "path",
    ["/healthy", "/health/../sessions", "/health%2F..%2Fsessions", "//health", "/docsx", "/openapi.jsonx", "/HEALTH",
     "/static", "/adminx", "/static/../sessions", "/health\n/sessions", "/metrics", "/sessions?x=/health"],
)  # fmt: skip
def test_what_only_looks_public_is_not(server: RunningServer, path: str) -> None:
    services.create_session("private")
    line = path.replace("\n", "%0A").encode()
    status, _, body = raw(server, b"GET " + line + b" HTTP/1.1")
    assert status in (400, 401, 404)
    assert b"private" not in body


# --- the operator's cookie ---------------------------------------------------------------------------------------


def login(*, may: Sequence[str] = ("view_session",), **rights: Any) -> dict[str, str]:
    user = get_user_model().objects.create_user("olga", password="a long password", **rights)
    user.user_permissions.set(Permission.objects.filter(codename__in=may))
    browser = Client()
    browser.force_login(user)
    return {"Cookie": f"sessionid={browser.cookies['sessionid'].value}"}


def test_an_operators_cookie_reads_but_does_not_write(server: RunningServer) -> None:
    cookie = login(is_staff=True)
    services.create_session("s")
    assert httpx.get(f"{server.url}/sessions", headers=cookie).json()["total"] == 1
    assert httpx.get(f"{server.url}/api/v1/runs", headers=cookie).status_code == 200
    for method, path in (
        ("POST", "/sessions"),
        ("DELETE", "/sessions/s"),
        ("POST", talk.PATH),
        ("PATCH", "/sessions/s"),
    ):
        assert httpx.request(method, server.url + path, headers=cookie, json=GOOD).status_code == 401
    assert httpx.get(f"{server.url}/sessions", headers={**cookie, "X-Internal-Auth": "wrong"}).status_code == 401
    assert Session.objects.count() == 1


def test_who_may_not_see_the_admin_does_not_read_either(server: RunningServer) -> None:
    cookie = login(is_staff=False)
    assert httpx.get(f"{server.url}/sessions", headers=cookie).status_code == 401
    user = get_user_model().objects.get()
    user.is_staff, user.is_active = True, False
    user.save()
    assert httpx.get(f"{server.url}/sessions", headers=cookie).status_code == 401
    user.is_active = True
    user.set_password("another password")  # ends the logins before it
    user.save()
    assert httpx.get(f"{server.url}/sessions", headers=cookie).status_code == 401


@pytest.mark.parametrize(
    "cookie",
    [b"sessionid=", b"sessionid=nobody-at-all", b'sessionid="\\000\\000\\000\\000\\000\\000\\000\\000"', b";;;=;",
     b"sessionid=" + b"x" * 4000, b"sessionid=\xff\xfe\xff\xfe\xff\xfe\xff\xfe\xff", b"a]b=c; sessionid=x", b"\x01"],
)  # fmt: skip
def test_hostile_cookies_are_nobody(server: RunningServer, cookie: bytes) -> None:
    status, _, body = raw(server, b"GET /sessions HTTP/1.1\r\nCookie: " + cookie)
    assert status in (400, 401)
    assert status == 400 or json.loads(body) == UNAUTHORIZED


@pytest.mark.parametrize(
    ("origin", "let_in"),
    [("same", True), ("", False), ("http://evil.example", False), ("null", False), ("//", False)],
)
def test_a_browsers_websocket_needs_its_own_origin(server: RunningServer, origin: str, let_in: bool) -> None:
    headers = login(is_staff=True) | ({"Origin": server.url if origin == "same" else origin} if origin else {})
    expected = nullcontext() if let_in else pytest.raises(InvalidStatus, match="401")
    with expected, connect(f"{server.websocket_url}/ws/s", additional_headers=headers, proxy=None):
        pass


def test_a_colleague_without_the_right_to_sessions_reads_none(server: RunningServer) -> None:
    cookie = login(may=[], is_staff=True)
    assert httpx.get(f"{server.url}/sessions", headers=cookie).status_code == 401


SAID: list[dict[str, Any]] = [
    {"type": "user_message", "content": "hi", "agent_type": "ask"},
    {"type": "hitl_decision", "call_id": "c1", "decision": "approve"},
    {"type": "tool_result", "call_id": "c1", "result": "done"},
    {"type": "switch_agent", "agent_type": "ask"},
    {"type": "cancel"},
]


@pytest.mark.parametrize(
    ("may", "refused"),
    [
        (("view_session",), [True, True, True, True, True]),
        (("view_session", "change_session"), [False, True, True, False, False]),
        (("view_session", "change_approval"), [True, False, True, True, True]),
        (("view_session", "change_session", "change_approval"), [False] * 5),
    ],
)
def test_on_a_socket_an_operator_does_what_the_account_may(
    server: RunningServer, may: Sequence[str], refused: list[bool]
) -> None:
    services.create_session("s")
    headers = login(may=may, is_staff=True) | {"Origin": server.url}
    with connect(f"{server.websocket_url}/ws/s", additional_headers=headers, proxy=None) as socket:
        for message, is_refused in zip(SAID, refused, strict=True):
            socket.send(json.dumps(message))
            answer = json.loads(socket.recv(timeout=30))
            assert (answer.get("code") == "NOT_PERMITTED") is is_refused, message
            while not is_refused and message["type"] == "user_message" and answer["type"] != "end":
                answer = json.loads(socket.recv(timeout=30))
            while not is_refused and message["type"] == "switch_agent" and answer["type"] != "end":
                answer = json.loads(socket.recv(timeout=30))


# --- ids ---------------------------------------------------------------------------------------------------------


def test_a_request_id_is_given_back_and_follows_the_turn(client: httpx.Client, model: ModelServer) -> None:
    answer = talk.post(client, "s", GOOD["message"], **{"X-Request-ID": "req-1.a:b_C"})
    assert answer.headers["x-request-id"] == "req-1.a:b_C"
    assert set(Event.objects.values_list("correlation_id", flat=True)) == {"req-1.a:b_C"}
    assert model.requests[-1].headers["x-correlation-id"] == "req-1.a:b_C"


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "<script>", "ü", "a;b", "a\tb"])
def test_an_odd_request_id_is_replaced(server: RunningServer, given: str) -> None:
    status, headers, _ = raw(server, b"GET /health HTTP/1.1\r\nX-Request-ID: " + given.encode())
    assert status == 200
    assert re.fullmatch("[0-9a-f]{32}", headers["x-request-id"])


def test_a_trace_names_the_request_where_nothing_else_does(client: httpx.Client) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    answer = client.get("/sessions", headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"})
    assert answer.headers["x-request-id"] == trace


def test_every_answer_has_a_request_id(server: RunningServer, client: httpx.Client) -> None:
    answers = [client.get("/sessions"), client.get("/no"), httpx.get(f"{server.url}/sessions"), client.post(talk.PATH)]
    ids = [answer.headers["x-request-id"] for answer in answers]
    assert len(set(ids)) == len(ids)


# --- where from --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trusted", "client", "forwarded", "address"),
    [
        ([], "10.0.0.1", "6.6.6.6", "10.0.0.1"),
        (["10.0.0.0/8"], "10.0.0.1", "6.6.6.6", "6.6.6.6"),
        (["10.0.0.0/8"], "10.0.0.1", "1.1.1.1, 6.6.6.6", "6.6.6.6"),
        (["10.0.0.0/8"], "10.0.0.1", "6.6.6.6, 10.0.0.2", "6.6.6.6"),
        (["10.0.0.0/8"], "10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        (["10.0.0.0/8"], "10.0.0.1", "", "10.0.0.1"),
        (["10.0.0.0/8"], "10.0.0.1", " , ,", "10.0.0.1"),
        (["10.0.0.0/8"], "6.6.6.6", "1.1.1.1", "6.6.6.6"),
        (["::1"], "::1", "2001:db8::7", "2001:db8::7"),
        (["10.0.0.1"], "10.0.0.1", "6.6.6.6", "6.6.6.6"),
        (["10.0.0.1"], "10.0.0.1", "6.6.6.6:4711", "6.6.6.6"),
        (["10.0.0.1"], "10.0.0.1", "[2001:db8::7]:4711", "2001:db8::7"),
        (["10.0.0.0/8"], "10.0.0.1", "6.6.6.6, nonsense, 10.0.0.2", "10.0.0.2"),
    ],
)
def test_forwarded_addresses_count_as_far_as_trusted_proxies_wrote_them(
    settings: Any, trusted: list[str], client: str, forwarded: str, address: str
) -> None:
    settings.TRUSTED_PROXIES = trusted
    headers = [(b"x-forwarded-for", part.encode()) for part in [forwarded] if part]
    assert address_of({"client": (client, 5), "headers": headers}) == address


def test_a_forged_address_does_not_escape_the_limit(client: httpx.Client, settings: Any) -> None:
    settings.RATE_LIMIT_PER_MINUTE = 2
    answers = [client.get("/sessions", headers={"X-Forwarded-For": f"9.9.9.{n}"}).status_code for n in range(3)]
    assert answers == [200, 200, 429]
    settings.TRUSTED_PROXIES = ["127.0.0.1"]
    answers = [client.get("/sessions", headers={"X-Forwarded-For": f"9.9.9.{n}"}).status_code for n in range(3)]
    assert answers == [200, 200, 200]


def test_any_host_is_served_and_only_the_admin_is_choosy(client: httpx.Client, settings: Any) -> None:
    settings.ADMIN_HOSTS = ["admin.example"]
    for host in ("agent-runtime:8001", "agent_runtime", "10.0.0.1", "[::1]:8001", "evil.example"):
        assert client.get("/sessions", headers={"Host": host}).status_code == 200
        assert client.get("/admin/login/", headers={"Host": host}).status_code == 404
    for host in ("admin.example", "ADMIN.example:8001"):
        assert client.get("/admin/login/", headers={"Host": host}).status_code == 200


@pytest.fixture
def https(settings: Any) -> None:
    settings.SECURE_SSL_REDIRECT, settings.SECURE_HSTS_SECONDS = True, 60


@pytest.mark.parametrize("path", ["/sessions", "/health", "/openapi.json", "/docs", "/agents", "/events/stats"])
def test_https_redirects_nothing_that_programs_call(client: httpx.Client, https: None, path: str) -> None:
    assert client.get(path).status_code == 200


def test_https_leaves_the_stream_alone(client: httpx.Client, https: None, model: ModelServer) -> None:
    assert talk.say(client, "s", "hi").tokens == "Hello world"
