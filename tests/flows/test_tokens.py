"""Bearer tokens: good ones act for their owner, bad ones open nothing, and the issuer may be away."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from django.core.checks import run_checks
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from runtime_project import tokens
from sessions_app import services
from sessions_app.models import Session
from tests import talk
from tests.conftest import KEY, RunningServer
from tests.flows.test_api_keys import code_at_end
from tests.issuer import AUDIENCE, NAME, Issuer
from tests.listening import Listening
from tests.model_replies import text, tool_calls
from tests.model_server import ModelServer


@pytest.fixture
def issuer(settings: Any) -> Iterator[Issuer]:
    with Issuer() as one:
        settings.JWT_JWKS_URL, settings.JWT_ISSUER, settings.JWT_AUDIENCE = one.url, NAME, AUDIENCE
        settings.JWT_ALGORITHMS, settings.JWT_LEEWAY_SECONDS = ["ES256", "RS256"], 0
        yield one


def status(server: RunningServer, token: str | bytes, *more: tuple[str, str]) -> int:
    bearer = b"Bearer " + (token if isinstance(token, bytes) else token.encode())
    sent: Any = [(b"Authorization", bearer), *((name.encode(), value.encode()) for name, value in more)]
    return httpx.get(f"{server.url}/sessions", headers=sent, timeout=30).status_code


def holder(server: RunningServer, token: str) -> httpx.Client:
    return httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {token}"}, timeout=30)


def test_a_token_acts_for_its_subject_and_decisions_name_them(
    server: RunningServer, issuer: Issuer, model: ModelServer
) -> None:
    services.create_session("the service's")
    model.reply(tool_calls([("c1", "write_file", '{"path": "a.md", "content": "x"}')]), text("done"))
    with holder(server, issuer.token("alice")) as alice, holder(server, issuer.token("bob")) as bob:
        talk.say(alice, "hers", "write", agent_type="coder")
        talk.send(alice, "hers", {"type": "hitl_decision", "call_id": "c1", "decision": "reject"})
        [decided] = alice.get("/events/audit-log?event_type=hitl_decision_made").json()["audit_log"]
        assert decided["who"] == "alice"
        assert [client.get("/sessions").json()["total"] for client in (alice, bob)] == [1, 0]
        assert bob.get("/sessions/hers").status_code == 404
    assert Session.objects.get(session_id="hers").owner == "alice"
    assert issuer.requests == 1


def test_a_long_subject_is_named_in_part_and_owns_in_full(
    server: RunningServer, issuer: Issuer, model: ModelServer
) -> None:
    subject = "x" * 255
    model.reply(tool_calls([("c1", "write_file", '{"path": "a.md", "content": "x"}')]), text("done"))
    with holder(server, issuer.token(subject)) as client:
        talk.say(client, "s", "write", agent_type="coder")
        assert talk.send(client, "s", {"type": "hitl_decision", "call_id": "c1", "decision": "reject"}).error is None
        [decided] = client.get("/events/audit-log?event_type=hitl_decision_made").json()["audit_log"]
    assert (decided["who"], Session.objects.get().owner) == (subject[:150], subject)


@pytest.mark.parametrize("subject", ["operator:anna", "shell:root", "system", "env", "key-0123abcd", "token:x"])
def test_a_subject_that_is_called_as_somebody_else_is_told_apart(
    server: RunningServer, issuer: Issuer, model: ModelServer, subject: str
) -> None:
    model.reply(tool_calls([("c1", "write_file", '{"path": "a.md", "content": "x"}')]), text("done"))
    with holder(server, issuer.token(subject)) as client:
        talk.say(client, "s", "write", agent_type="coder")
        assert talk.send(client, "s", {"type": "hitl_decision", "call_id": "c1", "decision": "reject"}).error is None
        [decided] = client.get("/events/audit-log?event_type=hitl_decision_made").json()["audit_log"]
    assert (decided["who"], Session.objects.get().owner) == (f"token:{subject}", subject)


def hs256_with_the_public_key(issuer: Issuer) -> str:
    """The classic: the public key, which everybody has, taken for a shared secret."""
    [(key_id, key)] = issuer.keys.items()
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    claims = {"sub": "alice", "iss": NAME, "aud": AUDIENCE, "exp": time.time() + 60}
    parts = [{"alg": "HS256", "typ": "JWT", "kid": key_id}, claims]
    signed = ".".join(_encoded(json.dumps(part).encode()) for part in parts)
    return f"{signed}.{_encoded(hmac.digest(public, signed.encode(), 'sha256'))}"


def unsigned(issuer: Issuer) -> str:
    claims = {"sub": "alice", "iss": NAME, "aud": AUDIENCE, "exp": time.time() + 60}
    parts = [{"alg": "none", "typ": "JWT", "kid": "first"}, claims]
    return ".".join([*(_encoded(json.dumps(part).encode()) for part in parts), ""])


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def by_another(issuer: Issuer) -> str:
    other = Issuer()
    other._server.server_close()
    return other.token()


BAD: dict[str, Any] = {
    "expired": lambda issuer: issuer.token(seconds=-1),
    "not yet": lambda issuer: issuer.token(nbf=time.time() + 60),
    "no expiry": lambda issuer: issuer.token(exp=None),
    "expiry is text": lambda issuer: issuer.token(exp="tomorrow"),
    "expiry is NaN": lambda issuer: issuer.token(exp=float("nan")),
    "expiry is infinite": lambda issuer: issuer.token(exp=float("inf")),
    "expiry is an object": lambda issuer: issuer.token(exp={}),
    "no subject": lambda issuer: issuer.token(None),
    "empty subject": lambda issuer: issuer.token(""),
    "subject is a number": lambda issuer: issuer.token(5),
    "long subject": lambda issuer: issuer.token("x" * 256),
    "subject with a NUL": lambda issuer: issuer.token("a\x00b"),
    "surrogate": lambda issuer: issuer.token("\ud800"),
    "other issuer": lambda issuer: issuer.token(iss="https://elsewhere.test"),
    "no issuer": lambda issuer: issuer.token(iss=None),
    "other audience": lambda issuer: issuer.token(aud="another-service"),
    "no audience": lambda issuer: issuer.token(aud=None),
    "unknown key": lambda issuer: issuer.token(head={"kid": "nobody"}),
    "empty head": lambda issuer: "e30.e30.e30",
    "none": unsigned,
    "shared secret": hs256_with_the_public_key,
    "another's signature": by_another,
    "cut": lambda issuer: issuer.token()[:-4],
    "garbage": lambda issuer: "garbage",
    "dots alone": lambda issuer: "..",
    "huge": lambda issuer: issuer.token(more="x" * 20_000),
    "not ascii": lambda issuer: b"\xff\xfe.\xff.\xff",
    "deep": lambda issuer: f"{_encoded(b'[' * 5000)}.e30.e30",
    "a key, not a token": lambda issuer: KEY,
}


def test_a_bad_token_opens_nothing(server: RunningServer, issuer: Issuer, subtests: pytest.Subtests) -> None:
    assert status(server, issuer.token()) == 200
    for name, make in BAD.items():
        with subtests.test(name):
            assert status(server, make(issuer)) == 401
    token = issuer.token()
    assert status(server, token, ("Authorization", f"Bearer {token}")) == 401
    assert status(server, token, ("X-Internal-Auth", "wrong")) == 401
    assert issuer.requests <= 3


def test_a_key_beside_a_token_decides_alone(server: RunningServer, issuer: Issuer) -> None:
    services.create_session("s")
    both = {"X-Internal-Auth": KEY, "Authorization": "Bearer garbage"}
    assert httpx.get(f"{server.url}/sessions", headers=both).json()["total"] == 1


def test_without_the_setting_a_token_is_nothing(server: RunningServer, issuer: Issuer, settings: Any) -> None:
    settings.JWT_JWKS_URL = ""
    assert status(server, issuer.token()) == 401
    assert issuer.requests == 0


def test_a_websocket_takes_a_token_and_is_closed_when_it_expires(server: RunningServer, issuer: Issuer) -> None:
    address = f"{server.websocket_url}/ws/s"
    with pytest.raises(InvalidStatus):
        connect(address, additional_headers={"Authorization": f"Bearer {issuer.token(seconds=-1)}"}, proxy=None)
    headers = {"Authorization": f"Bearer {issuer.token(seconds=2)}"}
    with connect(address, additional_headers=headers, proxy=None) as link:
        assert code_at_end(link) == 4401


def test_a_stream_ends_when_its_token_expires(server: RunningServer, issuer: Issuer) -> None:
    with holder(server, issuer.token()) as alice:
        alice.post("/sessions", json={"session_id": "s"})
    with holder(server, issuer.token(seconds=2)) as alice, Listening(alice, "GET", "/sessions/s/stream") as stream:
        stream.ended(30)
        assert stream.status == 200


# --- the issuer's keys -------------------------------------------------------------------------------------------


def pass_time(seconds: float) -> None:
    known = tokens._current()
    known._fetched_at -= seconds
    known._tried_at -= seconds


def test_a_new_key_is_found_and_one_that_is_gone_is_forgotten(server: RunningServer, issuer: Issuer) -> None:
    old = issuer.token()
    assert status(server, old) == 200
    issuer.rotate("second", algorithm="RS256")
    pass_time(tokens.RETRY_SECONDS + 1)
    assert status(server, issuer.token()) == 200
    assert status(server, old) == 401


def test_unknown_keys_do_not_make_a_request_each(
    server: RunningServer, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "RETRY_SECONDS", 600.0)  # however long the requests take
    assert status(server, issuer.token()) == 200
    for number in range(20):
        assert status(server, issuer.token(head={"kid": f"made-up-{number}"})) == 401
    assert issuer.requests == 1


@pytest.mark.parametrize(
    "broken",
    [(500, b""), (200, b"<html>"), (302, b""), (200, b"[" * 90_000), (200, b"x" * 300_000), (200, b'{"keys": 5}')],
)
def test_while_the_issuer_is_away_known_keys_go_on(
    server: RunningServer, issuer: Issuer, broken: tuple[int, bytes]
) -> None:
    assert status(server, issuer.token()) == 200
    issuer.broken = broken
    pass_time(tokens.REFRESH_SECONDS + 1)
    assert {status(server, issuer.token()) for _ in range(3)} == {200}
    pass_time(tokens.RETRY_SECONDS + 1)
    assert status(server, issuer.token(head={"kid": "new"})) == 503  # nobody can tell
    assert status(server, issuer.token()) == 200


def test_over_the_limit_whoever_nobody_can_tell_is_one_too_many(
    server: RunningServer, issuer: Issuer, settings: Any
) -> None:
    issuer.broken = (500, b"")
    settings.RATE_LIMIT_PER_MINUTE = 1
    body = {"session_id": "s", "message": {"type": "user_message", "content": "Hi"}}
    with holder(server, issuer.token()) as client:
        assert [client.post(talk.PATH, json=body).status_code for _ in range(2)] == [503, 429]


def test_what_is_no_public_key_is_left_out(server: RunningServer, issuer: Issuer) -> None:
    secret = base64.urlsafe_b64encode(b"k" * 32).decode()
    issuer.more = [
        {"kty": "oct", "kid": "shared", "k": secret},
        "text",
        None,
        {"kty": "RSA", "kid": "half"},
        {"kid": "x"},
    ]
    assert status(server, issuer.token()) == 200
    forged = jwt.encode(
        {"sub": "alice", "iss": NAME, "aud": AUDIENCE, "exp": time.time() + 60}, b"k" * 32, "HS256", {"kid": "shared"}
    )
    assert status(server, forged) == 401
    assert status(server, issuer.token(head={"kid": "half"})) == 401


# --- settings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("JWT_ISSUER", ""),
        ("JWT_AUDIENCE", ""),
        ("JWT_ALGORITHMS", ["HS256"]),
        ("JWT_ALGORITHMS", ["RS256", "none"]),
        ("JWT_JWKS_URL", "file:///etc/passwd"),
    ],
)
def test_settings_that_would_let_anybody_in_stop_the_start(
    issuer: Issuer, settings: Any, name: str, value: Any
) -> None:
    assert [found for found in run_checks() if found.id == "agents_app.E006"] == []
    setattr(settings, name, value)
    assert [found for found in run_checks() if found.id == "agents_app.E006"]
