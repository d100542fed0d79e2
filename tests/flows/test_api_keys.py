"""Keys beside the environment's: they open, they end everywhere at once, and nothing keeps them."""

from __future__ import annotations

import ast
import asyncio
import re
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from runtime_project import keyring as keyring_module
from runtime_project.keyring import Keyring
from sessions_app import audit, database, keys, services
from sessions_app.errors import KeyInvalid, KeyNotFound, StorageUnavailable
from sessions_app.models import APIKey, Approval, AuditEntry
from tests import listening, talk, waiting
from tests.conftest import KEY, RunningServer
from tests.model_replies import Gate, text, tool_calls, verdict
from tests.model_server import ModelServer

ROOT = Path(__file__).resolve().parents[2]


def made(name: str = "gateway", **options: Any) -> tuple[str, str]:
    """The id of a new key, and the key."""
    row, key = keys.create(name, by="anna", **options)
    return row.key_id, key


def holder(server: RunningServer, key: str) -> httpx.Client:
    return httpx.Client(base_url=server.url, headers={"X-Internal-Auth": key}, timeout=30)


def opens(server: RunningServer, key: str) -> bool:
    status = httpx.get(f"{server.url}/sessions", headers={"X-Internal-Auth": key}).status_code
    assert status in (200, 401)
    return status == 200


def test_several_keys_open_at_once_and_one_that_is_revoked_does_not(server: RunningServer) -> None:
    (first_id, first), (_, second) = made("first"), made("second")
    assert opens(server, first)
    assert opens(server, second)
    assert opens(server, KEY)
    assert keys.revoke(first_id, by="anna")
    waiting.until(lambda: not opens(server, first))
    assert opens(server, second)
    assert opens(server, KEY)


@pytest.mark.parametrize("spoilt", [lambda key: key[:-1], str.upper, lambda key: key + "x", lambda key: key[12:]])
def test_nearly_a_key_is_no_key(server: RunningServer, spoilt: Any) -> None:
    _, key = made()
    assert not opens(server, spoilt(key))
    assert opens(server, key)
    assert not opens(server, APIKey.objects.get().digest)


def test_a_key_that_expires_is_refused_then(server: RunningServer) -> None:
    key_id, key = made(expires_at=timezone.now() + timedelta(days=1))
    assert opens(server, key)
    APIKey.objects.filter(key_id=key_id).update(expires_at=timezone.now())
    waiting.until(lambda: not opens(server, key))


def test_a_decision_names_the_key_by_its_id(server: RunningServer, model: ModelServer) -> None:
    key_id, key = made()
    model.reply(tool_calls([("c1", "write_file", '{"path": "a.md", "content": "x"}')]), text("done"))
    with holder(server, key) as client:
        talk.say(client, "s", "write", agent_type="coder")
        talk.send(client, "s", {"type": "hitl_decision", "call_id": "c1", "decision": "reject"})
        [decided] = client.get("/events/audit-log?event_type=hitl_decision_made").json()["audit_log"]
    assert decided["who"] == key_id == Approval.objects.get().decided_by


# --- nothing keeps a key -----------------------------------------------------------------------------------------


def everything_stored() -> str:
    with connection.cursor() as cursor:
        rows = []
        for table in connection.introspection.table_names():
            cursor.execute(f'SELECT * FROM "{table}"')  # noqa: S608  the database's own names
            rows += cursor.fetchall()
    return repr(rows)


def test_a_key_is_nowhere_in_the_database_nor_in_the_log(
    server: RunningServer, model: ModelServer, caplog: pytest.LogCaptureFixture
) -> None:
    model.route(verdict("ask"))
    model.reply(text("hello"))
    with caplog.at_level("DEBUG"):
        _, key = made()
        with holder(server, key) as client:
            talk.say(client, "s", "hi")
        opens(server, KEY)
        waiting.until(lambda: APIKey.objects.filter(last_used_at=None).count() == 0 and APIKey.objects.count() == 2)
    secret = key.partition(".")[2]
    assert len(secret) >= 43
    stored = everything_stored()
    for planted in (key, secret, KEY, keys.digest(KEY.encode()).hex()):
        assert planted not in stored
    ours = [one.getMessage() for one in caplog.records if not one.name.startswith(("httpx", "httpcore", "uvicorn"))]
    assert not [line for line in ours if secret in line or KEY in line]


def test_keys_are_compared_in_constant_time_only() -> None:
    """No `==`, `in` or dictionary is asked about a key or its digest."""
    for name in ("keyring.py", "callers.py"):
        tree = ast.parse((ROOT / "runtime_project" / name).read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Compare) and not isinstance(node.ops[0], ast.Is | ast.IsNot):
                asked = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
                assert not asked & {"digest", "given", "value", "secret"}, ast.unparse(node)


# --- connections that are open when a key ends -------------------------------------------------------------------


def test_a_socket_of_a_revoked_key_is_closed_and_its_turn_goes_on(server: RunningServer, model: ModelServer) -> None:
    key_id, key = made()
    services.create_session("t")
    model.reply(text("half ", gate := Gate(), "whole"))
    link = connect(f"{server.websocket_url}/ws/s", additional_headers={"X-Internal-Auth": key}, proxy=None)
    with link, listening.Socket(server.websocket_url, "t") as other:
        link.send('{"type": "user_message", "content": "hi", "agent_type": "ask"}')
        while "half" not in str(link.recv(30)):
            pass
        keys.revoke(key_id, by="anna")
        assert code_at_end(link) == 4401
        other.send({"type": "cancel"})
        assert other.next(30)["type"] == "ack"
    gate.open()
    server.idle()
    with holder(server, KEY) as client:
        assert talk.history(client, "s")["messages"][-1]["content"] == "half whole"


def code_at_end(link: ClientConnection) -> int | None:
    with pytest.raises(ConnectionClosed) as closed:
        for _ in iter(lambda: link.recv(30), None):
            pass
    return closed.value.rcvd.code if closed.value.rcvd else None


def test_a_stream_of_a_revoked_key_ends_as_a_body_should(server: RunningServer, client: httpx.Client) -> None:
    key_id, key = made()
    services.create_session("s")
    revoked = holder(server, key)
    with revoked, listening.following(revoked, "s") as ending, listening.following(client, "s") as staying:
        ending.begun()
        staying.begun()
        keys.revoke(key_id, by="anna")
        ending.ended(30)
        assert (ending.status, staying.over) == (200, False)


# --- what it costs -----------------------------------------------------------------------------------------------


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """One entry for each time the keys were read from the database."""
    found: list[float] = []
    read = keys.active

    def counted() -> Any:
        found.append(0)
        return read()

    monkeypatch.setattr(keyring_module.keys, "active", counted)
    return found


async def test_the_environments_key_never_asks_the_database(readings: list[float], transactional_db: None) -> None:
    ring = Keyring()
    assert {await ring.find(KEY.encode()) for _ in range(100)} == {"env"}
    await asyncio.gather(*ring._noting)
    assert readings == []


async def test_many_calls_share_a_reading(readings: list[float], transactional_db: None) -> None:
    key_id, key = await database.write("", made)
    ring = Keyring()
    found = await asyncio.gather(*(ring.find(key.encode()) for _ in range(50)))
    assert set(found) == {key_id}
    assert len(readings) == 1
    assert set(await asyncio.gather(*(ring.find(b"wrong") for _ in range(50)))) == {None}
    assert len(readings) <= 2
    await asyncio.gather(*ring._noting)


async def test_while_the_database_is_away_known_keys_go_on_and_unknown_ones_are_not_judged(
    monkeypatch: pytest.MonkeyPatch, transactional_db: None
) -> None:
    key_id, key = await database.write("", made)
    ring = Keyring()
    assert await ring.find(key.encode()) == key_id
    await asyncio.gather(*ring._noting)

    def away() -> Any:
        raise StorageUnavailable

    monkeypatch.setattr(keyring_module.keys, "active", away)
    ring._read_at -= 3600
    assert await ring.find(key.encode()) == key_id
    assert await ring.holds(key_id)
    with pytest.raises(StorageUnavailable):
        await ring.find(b"never seen")


# --- the last use ------------------------------------------------------------------------------------------------


def used(key_id: str) -> Any:
    return APIKey.objects.filter(key_id=key_id).values_list("last_used_at", flat=True).first()


def test_the_last_use_is_kept_also_of_the_environments_key(server: RunningServer) -> None:
    key_id, key = made()
    assert opens(server, key)
    assert opens(server, KEY)
    waiting.until(lambda: used(key_id) and used("env"))
    environment = APIKey.objects.get(key_id="env")
    assert (environment.digest, environment.revoked_at) == ("", None)
    with pytest.raises(KeyNotFound):
        keys.revoke("env", by="anna")


@pytest.mark.django_db
def test_the_last_use_is_written_once_a_minute() -> None:
    key_id, _ = made()
    start = timezone.now()
    told = []
    for seconds in (0, 1, 59, 60, 61, 121):
        keys.mark_used(key_id, start + timedelta(seconds=seconds))
        told.append((used(key_id) - start).total_seconds())
    assert told == [0, 0, 0, 60, 60, 121]


# --- manage.py keys ----------------------------------------------------------------------------------------------


def manage(*args: str) -> tuple[str, str]:
    out, err = StringIO(), StringIO()
    call_command("keys", *args, stdout=out, stderr=err)
    return out.getvalue().strip(), err.getvalue().strip()


def test_an_operator_makes_lists_and_revokes_keys(server: RunningServer) -> None:
    key, said = manage("create", "the gateway", "--days", "30")
    key_id = key.partition(".")[0]
    assert re.fullmatch(r"key-[0-9a-f]{8}\.[A-Za-z0-9_-]{43}", key)
    assert said.startswith(f"{key_id} for the gateway.")
    assert opens(server, key)
    listed, _ = manage("list")
    assert f"{key_id}  the gateway  active" in listed
    assert key not in listed
    assert manage("revoke", key_id)[0].startswith(f"{key_id} is revoked")
    assert manage("revoke", key_id)[0] == f"{key_id} was revoked before"
    assert f"{key_id}  the gateway  revoked" in manage("list")[0]
    waiting.until(lambda: not opens(server, key))
    told = AuditEntry.objects.filter(subject=key_id).order_by("number").values_list("action", "who")
    assert list(told) == [("key.create", audit.shell_user()), ("key.revoke", audit.shell_user())]
    with pytest.raises(CommandError, match="There is no key 'nobody'"):
        manage("revoke", "nobody")


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["", "  ", "x" * 101, "a\x00b", "a\x1bb"])
def test_a_key_needs_a_name_that_can_be_shown(name: str) -> None:
    with pytest.raises(KeyInvalid):
        keys.create(name, by="anna")
    with pytest.raises(KeyInvalid):
        keys.create("fine", by="anna", expires_at=timezone.now())
    assert not APIKey.objects.exists()
