"""Webhooks against a real receiver: signed, tried again, logged; refused addresses; nothing secret told or kept."""

from __future__ import annotations

import asyncio
import io
import ipaddress
import logging
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from agents_app import outbound
from agents_app.handlers import NotDelivered
from agents_app.webhooks import send_test
from sessions_app import database, deliveries, events, services, webhooks
from sessions_app.errors import WebhookInvalid
from sessions_app.models import Event, EventDelivery, Webhook, WebhookAttempt
from tests.conftest import RunningServer
from tests.receiver import Behaviour, Receiver, answering, cutting, nonsense, receiving

PATIENCE_SECONDS = 30
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def receiver(settings: Any) -> Iterator[Receiver]:
    settings.WEBHOOK_ALLOWED_NETWORKS = ["127.0.0.1/32"]
    with receiving() as one:
        yield one


@pytest.fixture
def other(receiver: Receiver) -> Iterator[Receiver]:
    with receiving() as one:
        yield one


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, [
            list(EventDelivery.objects.values("handler", "state", "last_error", "next_at")),
            list(WebhookAttempt.objects.values("webhook", "status", "error")),
        ]
        time.sleep(0.02)


def states(webhook: Webhook) -> list[str]:
    return list(deliveries.listed(handler=webhook.handler).order_by("pk").values_list("state", flat=True))


def log(webhook: Webhook) -> list[tuple[int | None, str]]:
    return list(webhook.attempts.order_by("pk").values_list("status", "error"))


def time_passes(webhook: Webhook) -> None:
    """What waits to be tried again is due."""
    EventDelivery.objects.filter(handler=webhook.handler, state="due").update(next_at=timezone.now())


# --- told --------------------------------------------------------------------------------------------------------


def verified(secret: str, headers: dict[str, str], body: bytes) -> bool:
    """As the documentation tells receivers to."""
    [code] = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "webhooks.md").read_text(), re.DOTALL)
    told: dict[str, Any] = {}
    exec(code, told)  # noqa: S102  our own page
    return bool(told["verified"](secret, headers, body))


def test_a_turn_is_told_signed_and_without_what_was_said(
    running: RunningServer, client: httpx.Client, receiver: Receiver
) -> None:
    webhook, secret = webhooks.add(receiver.url, patterns="MessageReceived, Task*, Agent*", who="ops")
    message = {"type": "user_message", "content": "the secret plan", "agent_type": "ask"}
    headers = {"X-Request-ID": "corr-17"}
    client.post("/agent/message/stream", json={"session_id": "s1", "message": message}, headers=headers)
    until(lambda: "TaskCompleted" in receiver.types and set(states(webhook)) == {"delivered"})
    assert set(receiver.types) == {
        "AgentAssigned", "MessageReceived", "TaskStarted", "AgentSwitchRequested", "AgentSwitched", "TaskCompleted",
    }  # fmt: skip
    for came in receiver.came:
        assert verified(secret, came.headers, came.body)
        assert not verified("another secret", came.headers, came.body)
        assert not verified(secret, came.headers, came.body + b" ")
        assert not verified(secret, {**came.headers, "X-Webhook-Timestamp": str(int(time.time()) + 1)}, came.body)
        assert came.json["correlation_id"] == "corr-17"
        assert b"secret plan" not in came.body
        event = Event.objects.get(event_id=came.headers["X-Webhook-Id"])
        assert (came.json["event_id"], came.json["seq"]) == (str(event.event_id), event.seq)
        assert (came.json["session_id"], came.json["run_id"]) == ("s1", event.run_id)
    [switched] = [came.json["data"] for came in receiver.came if came.json["type"] == "AgentSwitched"]
    assert (switched["from_agent"], switched["to_agent"]) == ("orchestrator", "ask")
    assert "reason" not in switched
    assert log(webhook) == [(204, "")] * 6


def test_content_is_told_to_those_that_ask_for_it(
    running: RunningServer, client: httpx.Client, receiver: Receiver
) -> None:
    webhooks.add(receiver.url, patterns="MessageReceived,MessageCompleted", include_content=True, who="ops")
    message = {"type": "user_message", "content": "a word to all", "agent_type": "ask"}
    client.post("/agent/message/stream", json={"session_id": "s1", "message": message})
    until(lambda: len(receiver.came) == 2)
    told = {came.json["type"]: came.json["message"] for came in receiver.came}
    assert told["MessageReceived"] == {"role": "user", "content": "a word to all"}
    assert told["MessageCompleted"]["role"] == "assistant"
    assert told["MessageCompleted"]["content"]


def test_only_plain_keys_of_the_data_are_told(running: RunningServer, receiver: Receiver) -> None:
    webhook, _ = webhooks.add(receiver.url, patterns="AgentSwitched", who="ops")
    services.create_session("s1")
    services.switch_agent("s1", "coder", reason="because the person said hunter2")
    until(lambda: states(webhook) == ["delivered"])
    assert b"hunter2" not in receiver.came[0].body


def test_nothing_is_written_or_asked_for_events_that_no_webhook_wants(db: None) -> None:
    def statements(name: str) -> list[str]:
        with CaptureQueriesContext(connection) as told:
            services.create_session(name)
        return [query["sql"].split()[0] for query in told.captured_queries]

    without = statements("none")
    webhooks.add("https://example.com/", patterns="Task*", who="ops")
    webhooks.refresh()
    assert statements("other types") == without
    webhooks.add("https://example.com/", patterns="Session*", who="ops")
    webhooks.refresh()
    assert len(statements("one type")) == len(without) + 1
    assert EventDelivery.objects.count() == 1


def test_a_webhook_added_elsewhere_is_known_within_seconds(running: RunningServer, receiver: Receiver) -> None:
    webhook, _ = webhooks.add(receiver.url, who="ops")
    webhooks.forget()  # as in a process that did not add it
    until(webhooks.known)
    services.create_session("s1")
    until(lambda: "delivered" in states(webhook))


# --- failing -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behaviour", "status", "error"),
    [
        (answering(500), 500, "HTTP 500"),
        (cutting, None, "RemoteProtocolError"),
        (nonsense, None, "RemoteProtocolError"),
    ],
    ids=["500", "cut", "nonsense"],
)
def test_a_failure_is_logged_tried_again_and_at_last_dead(
    running: RunningServer, receiver: Receiver, settings: Any, behaviour: Behaviour, status: int | None, error: str
) -> None:
    settings.WEBHOOK_ATTEMPTS = 2
    receiver.behaves = behaviour
    webhook, _ = webhooks.add(receiver.url, patterns="SessionCreated", who="ops")
    services.create_session("s1")
    until(lambda: states(webhook) == ["due"] and log(webhook) == [(status, error)])
    waiting = EventDelivery.objects.get()
    until(lambda: EventDelivery.objects.get().last_error == error)
    assert waiting.attempts == 1
    assert EventDelivery.objects.get().next_at > timezone.now()
    time_passes(webhook)
    until(lambda: states(webhook) == ["dead"])
    assert log(webhook) == [(status, error)] * 2
    receiver.behaves = answering(200)
    assert deliveries.replay_dead(webhook.handler) == 1
    until(lambda: states(webhook) == ["delivered"])
    assert len({came.headers["X-Webhook-Id"] for came in receiver.came}) == 1


@pytest.mark.parametrize("how", ["hang", "drip"])
def test_one_that_hangs_is_given_up_and_delays_no_other(
    running: RunningServer, receiver: Receiver, other: Receiver, settings: Any, how: str
) -> None:
    settings.WEBHOOK_ATTEMPTS, settings.WEBHOOK_TIMEOUT_SECONDS = 1, 20
    receiver.behaves = getattr(receiver, how)
    slow, _ = webhooks.add(receiver.url, patterns="SessionCreated", who="ops")
    quick, _ = webhooks.add(other.url, patterns="SessionCreated", who="ops")
    for number in range(8):
        services.create_session(f"s{number}")
    until(lambda: states(quick) == ["delivered"] * 8)
    until(lambda: states(slow).count("running") == 4)
    receiver.released.set()
    until(lambda: not set(states(slow)) & {"running", "due"})


@pytest.mark.parametrize("how", ["hang", "drip"])
def test_the_whole_request_has_one_timeout(running: RunningServer, receiver: Receiver, settings: Any, how: str) -> None:
    settings.WEBHOOK_ATTEMPTS, settings.WEBHOOK_TIMEOUT_SECONDS = 1, 0.3
    receiver.behaves = getattr(receiver, how)
    webhook, _ = webhooks.add(receiver.url, patterns="SessionCreated", who="ops")
    services.create_session("s1")
    until(lambda: states(webhook) == ["dead"])
    assert log(webhook) == [(None, "No answer within 0.3 s.")]


def test_redirects_are_not_followed(running: RunningServer, receiver: Receiver, other: Receiver, settings: Any) -> None:
    settings.WEBHOOK_ATTEMPTS = 1
    receiver.behaves = answering(307, Location=other.url)
    webhook, _ = webhooks.add(receiver.url, patterns="SessionCreated", who="ops")
    services.create_session("s1")
    until(lambda: states(webhook) == ["dead"])
    assert log(webhook) == [(307, "HTTP 307: redirects are not followed.")]
    assert other.came == []


def test_410_gone_disables_the_webhook(running: RunningServer, receiver: Receiver) -> None:
    receiver.behaves = answering(410)
    webhook, _ = webhooks.add(receiver.url, patterns="SessionCreated", who="ops")
    services.create_session("s1")
    until(lambda: states(webhook) == ["dead"])
    webhook.refresh_from_db()
    assert (webhook.enabled, webhook.disabled_because) == (False, "Its receiver answered 410 Gone.")
    services.create_session("s2")
    assert states(webhook) == ["dead"]
    assert len(receiver.came) == 1


def test_what_a_disabled_webhook_is_owed_is_a_dead_letter_and_can_be_replayed(
    running: RunningServer, receiver: Receiver
) -> None:
    receiver.behaves = answering(503)
    webhook, _ = webhooks.add(receiver.url, patterns="SessionCreated", who="ops")
    services.create_session("s1")
    until(lambda: len(log(webhook)) == 1)
    until(lambda: states(webhook) == ["due"])
    webhooks.disable(webhook.pk, because="too noisy")
    time_passes(webhook)
    until(lambda: states(webhook) == ["dead"])
    assert EventDelivery.objects.get().last_error == "The webhook is disabled."
    receiver.behaves = answering(200)
    webhooks.enable(webhook.pk, who="ops")
    deliveries.replay_dead()
    until(lambda: states(webhook) == ["delivered"])


def test_a_receiver_that_is_not_there_is_a_failure_like_others(running: RunningServer, settings: Any) -> None:
    settings.WEBHOOK_ALLOWED_NETWORKS, settings.WEBHOOK_ATTEMPTS = ["127.0.0.1"], 1
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    webhook, _ = webhooks.add(f"http://127.0.0.1:{port}/", patterns="SessionCreated", who="ops")
    services.create_session("s1")
    until(lambda: states(webhook) == ["dead"])
    assert log(webhook) == [(None, "ConnectError")]


def test_a_receiver_without_tls_is_told_apart(receiver: Receiver, django_db_blocker: Any) -> None:
    answer = asyncio.run(outbound.post(receiver.url.replace("http", "https"), body=b"{}", headers={}))
    assert answer.error == "Its certificate is not valid, or it speaks no TLS."


# --- addresses ---------------------------------------------------------------------------------------------------

PRIVATE = (
    "127.0.0.1", "127.9.9.9", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",  # noqa: S104
    "0.1.2.3", "192.0.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "::",
    "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2001:0:7f00:1::", "fe80::1", "fec0::1", "fc00::1", "fd00:ec2::254",
    "ff02::1", "2001:db8::1", "100::1",
)  # fmt: skip
PUBLIC = ("8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808")


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_refused(address: str) -> None:
    assert not outbound.may_be_reached(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_not(address: str) -> None:
    assert outbound.may_be_reached(ipaddress.ip_address(address))


def test_a_setting_allows_networks_and_no_others(settings: Any) -> None:
    settings.WEBHOOK_ALLOWED_NETWORKS = ["10.0.0.0/8", "::1"]
    allowed = {text for text in PRIVATE if outbound.may_be_reached(ipaddress.ip_address(text))}
    assert allowed == {"10.1.2.3", "::1", "::ffff:10.0.0.1"}


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0.0.0.0", "[::ffff:127.0.0.1]"],  # noqa: S104
)
def test_no_spelling_of_this_machine_is_reached(receiver: Receiver, settings: Any, host: str) -> None:
    settings.WEBHOOK_ALLOWED_NETWORKS = []
    answer = asyncio.run(outbound.post(f"http://{host}:{receiver.port}/", body=b"{}", headers={}))
    assert answer.error in (outbound.PRIVATE, outbound.UNKNOWN, "InvalidURL")
    assert receiver.came == []


def test_a_name_is_resolved_once_and_its_address_is_what_is_reached(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resolver that answers with an allowed address first and with another one ever after (DNS rebinding)."""
    asked: list[str] = []

    def rebinding(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        asked.append(str(host))
        address = "127.0.0.1" if len(asked) == 1 else "127.0.0.2"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    url = f"http://rebind.example:{receiver.port}/hook"
    answer = asyncio.run(outbound.post(url, body=b"{}", headers={}))
    assert (answer.status, asked) == (204, ["rebind.example"])
    assert receiver.came[0].headers["Host"] == f"rebind.example:{receiver.port}"
    answer = asyncio.run(outbound.post(url, body=b"{}", headers={}))
    assert "private" in answer.error
    assert len(receiver.came) == 1


def test_one_private_address_among_public_ones_is_enough_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    mixed = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, 80)) for one in ("8.8.8.8", "169.254.169.254")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: mixed)
    assert "private" in asyncio.run(outbound.post("http://mixed.example/", body=b"", headers={})).error


def test_no_proxy_of_the_environment_is_used(
    receiver: Receiver, other: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", other.url)
    monkeypatch.setenv("ALL_PROXY", other.url)
    assert asyncio.run(outbound.post(receiver.url, body=b"{}", headers={})).status == 204
    assert other.came == []


@pytest.mark.parametrize(
    "url",
    [
        "", "example.com", "ftp://example.com/", "file:///etc/passwd", "gopher://example.com/", "//example.com/",
        "http://", "http:///x", "http://user:pw@example.com/", "http://exa mple.com/", "http://example.com:0/",
        "http://example.com:99999/", "http://example.com/a b", "http://example.com/\r\nX: y", "http://[::1/",
        "https://example.com/" + "x" * 2000, "javascript:alert(1)",
    ],
)  # fmt: skip
def test_what_is_no_web_address_is_refused_when_it_is_added(db: None, url: str) -> None:
    with pytest.raises(WebhookInvalid):
        webhooks.add(url, who="ops")
    assert not Webhook.objects.exists()


@pytest.mark.parametrize("patterns", ["", " , ", "NoSuchEvent", "Task*, Nothing*"])
def test_patterns_that_no_event_has_are_refused(db: None, patterns: str) -> None:
    with pytest.raises(WebhookInvalid):
        webhooks.add("https://example.com/", patterns=patterns, who="ops")


# --- secrets -----------------------------------------------------------------------------------------------------


def test_the_secret_and_the_address_are_nowhere_to_be_read(
    running: RunningServer, receiver: Receiver, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.WEBHOOK_ATTEMPTS = 1
    receiver.behaves = answering(500)
    webhook, secret = webhooks.add(f"{receiver.url}?token=hunter2", patterns="SessionCreated", who="ops")
    with caplog.at_level(logging.DEBUG):
        services.create_session("s1")
        until(lambda: states(webhook) == ["dead"])
    told = caplog.text + manage("list") + manage("log", str(webhook.pk)) + str(EventDelivery.objects.values().get())
    assert secret not in told
    assert "hunter2" not in told.replace(repr(webhook.url), "")
    assert secret not in str(Webhook.objects.values().get())
    assert "nobody may keep" not in str(list(WebhookAttempt.objects.values()))


def test_a_secret_of_another_secret_key_is_told_and_replaced(
    running: RunningServer, receiver: Receiver, settings: Any
) -> None:
    settings.WEBHOOK_ATTEMPTS = 1
    webhook, _ = webhooks.add(receiver.url, patterns="SessionCreated", who="ops")
    settings.SECRET_KEY = "another-one-that-is-long-enough-for-this"
    services.create_session("s1")
    until(lambda: states(webhook) == ["dead"])
    assert "SECRET_KEY has changed" in EventDelivery.objects.get().last_error
    secret = webhooks.rotate_secret(webhook, who="ops")
    deliveries.replay_dead()
    until(lambda: states(webhook) == ["delivered"])
    assert verified(secret, receiver.came[0].headers, receiver.came[0].body)


# --- manage.py webhooks ------------------------------------------------------------------------------------------


def manage(*arguments: str) -> str:
    out = io.StringIO()
    call_command("webhooks", *arguments, stdout=out)
    return out.getvalue()


def test_the_command_adds_tests_lists_and_disables(transactional_db: None, receiver: Receiver) -> None:
    added = manage("add", f"{receiver.url}?token=x", "--events", "Task*", "--with-content")
    webhook = Webhook.objects.get()
    assert (webhook.patterns, webhook.include_content, webhook.enabled) == ("Task*", True, True)
    [secret] = [line.split()[1] for line in added.splitlines() if line.startswith("secret")]
    assert "Taken: HTTP 204" in manage("test", str(webhook.pk))
    assert receiver.types == ["WebhookTest"]
    assert verified(secret, receiver.came[0].headers, receiver.came[0].body)
    assert "test  HTTP 204" in manage("log", str(webhook.pk))
    listed = manage("list")
    assert f"http://127.0.0.1:{receiver.port}/hook?…  Task*  with content  enabled" in listed
    assert secret not in listed
    assert "disabled: By shell:" in manage("disable", str(webhook.pk))
    assert "enabled" in manage("enable", str(webhook.pk))
    assert secret not in manage("rotate", str(webhook.pk))
    receiver.behaves = answering(503)
    with pytest.raises(CommandError, match="Not taken: HTTP 503"):
        manage("test", str(webhook.pk))


@pytest.mark.parametrize(
    "arguments", [["test", "1"], ["disable", "7"], ["add", "ftp://x"], ["add", "http://x", "--events", "No"]]
)
def test_the_command_says_what_is_wrong(db: None, arguments: list[str]) -> None:
    with pytest.raises(CommandError):
        manage(*arguments)


def test_a_test_that_cannot_be_signed_is_told(transactional_db: None, receiver: Receiver, settings: Any) -> None:
    webhook, _ = webhooks.add(receiver.url, who="ops")
    settings.SECRET_KEY = "another-one-that-is-long-enough-for-this"
    with pytest.raises(NotDelivered):
        asyncio.run(send_test(webhook))
    database.stop()
    assert receiver.came == []


def test_types_of_the_log_are_what_patterns_are_held_against() -> None:
    assert {"SessionCreated", "TaskCompleted", "ToolCallRequested"} <= events.TYPES
