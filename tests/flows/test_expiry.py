"""What clients hear of sessions that have expired and of logs whose beginning is not kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest
from django.utils import timezone

from agents_app import cleaning
from sessions_app import cleanup, services
from sessions_app.models import Event, Schedule, Session
from sessions_app.retention import Retention
from tests import talk
from tests.conftest import RunningServer
from tests.listening import following
from tests.model_server import ModelServer, text

WAIT_SECONDS = 30


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "it did not come to be in time"
        time.sleep(0.05)


def clean() -> None:
    kept = Retention.by_settings()
    for chore in cleanup.wanted(kept):
        for portion in chore.portions(kept):
            chore.apply(kept, portion)


def grow_old(days: float = 10) -> None:
    then = timezone.now() - timedelta(days=days)
    Session.objects.update(last_activity=then, created_at=then)
    Event.objects.update(at=then)


def test_an_expired_session_says_so_in_a_chunk_and_under_v1_with_a_status(
    client: httpx.Client, model: ModelServer, settings: Any
) -> None:
    talk.say(client, "s1", "hello", agent_type="ask")
    settings.SESSION_IDLE_EXPIRE_HOURS = 24
    grow_old()
    clean()
    heard = talk.say(client, "s1", "hello again")
    assert heard.error is not None
    assert heard.error["code"] == "SESSION_EXPIRED"
    assert "Start a new one" in heard.error["content"]
    assert next(m["content"] for m in talk.history(client, "s1")["messages"]) == "hello"
    message = {"type": "user_message", "content": "hello"}
    refused = client.post("/api/v1" + talk.PATH, json={"session_id": "s1", "message": message})
    assert (refused.status_code, refused.json()["code"]) == (409, "SESSION_EXPIRED")
    assert client.get("/sessions").json()["total"] == 0


def test_a_cursor_from_before_what_is_kept_is_gone(client: httpx.Client, model: ModelServer, settings: Any) -> None:
    model.always(text("Answer"))
    first = talk.send(client, "s1", {"type": "user_message", "content": "one", "agent_type": "ask", "message_id": "m1"})
    settings.EVENT_RETENTION_DAYS = 7
    grow_old()
    second = talk.say(client, "s1", "two")
    clean()
    for cursor in ("0.0", first.cursors[0]):
        answer = client.get("/sessions/s1/stream", params={"after": cursor, "follow": "false"})
        assert (answer.status_code, answer.json()["code"]) == (410, "CURSOR_EXPIRED")
    kept = client.get("/sessions/s1/stream", params={"after": second.cursors[0], "follow": "false"})
    assert talk.parse(kept.content).contents == ["Answer"]
    assert [m["content"] for m in talk.history(client, "s1")["messages"]] == ["one", "Answer", "two", "Answer"]
    again = talk.send(client, "s1", {"type": "user_message", "content": "one", "agent_type": "ask", "message_id": "m1"})
    assert again.error is not None
    assert again.error["code"] == "CURSOR_EXPIRED"
    assert len(model.requests) == 2


def test_a_follower_goes_on_when_what_it_has_heard_is_removed(
    client: httpx.Client, model: ModelServer, settings: Any
) -> None:
    talk.say(client, "s1", "hello", agent_type="ask")
    settings.SESSION_IDLE_EXPIRE_HOURS, settings.EVENT_RETENTION_DAYS = 24, 7
    grow_old()
    model.always(text("And on"))
    with following(client, "s1") as stream:
        stream.begun()
        clean()
        services.activate("s1")
        talk.say(client, "s1", "hello again")
        stream.until(lambda heard: "And on" in heard.contents)


def test_the_server_cleans_up_by_itself(
    client: httpx.Client, server: RunningServer, model: ModelServer, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleaning.cleaner, "seconds", 0.1)
    talk.say(client, "s1", "hello", agent_type="ask")
    talk.say(client, "s2", "hello", agent_type="ask")
    Session.objects.filter(session_id="s1").update(last_activity=timezone.now() - timedelta(days=2))
    settings.SESSION_IDLE_EXPIRE_HOURS = 24
    until(lambda: Session.objects.filter(session_id="s1", is_active=False).exists())
    until(lambda: Schedule.objects.filter(due_at__gt=timezone.now()).exists())
    assert Session.objects.get(session_id="s2").is_active
