"""What operators do to webhooks and dead letters in the admin."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from sessions_app import deliveries, events, services, webhooks
from sessions_app.deliveries import RetryPolicy
from sessions_app.models import AuditEntry, EventDelivery, Webhook, WebhookAttempt
from tests.receiver import Receiver, answering, receiving

pytestmark = pytest.mark.django_db(transaction=True)
WEBHOOKS, DELIVERIES = (reverse(f"admin:sessions_app_{name}_changelist") for name in ("webhook", "eventdelivery"))
ADD = reverse("admin:sessions_app_webhook_add")
HANDLER = "of the admin's tests"


@pytest.fixture
def operator(client: Client) -> Client:
    return signed_in("anna", is_superuser=True)


def signed_in(name: str, *permissions: str, **fields: Any) -> Client:
    visitor = Client(headers={"accept-language": "en"})
    user = User.objects.create(username=name, is_staff=True, **fields)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    visitor.force_login(user)
    return visitor


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def receiver(settings: Any) -> Iterator[Receiver]:
    settings.WEBHOOK_ALLOWED_NETWORKS = ["127.0.0.1/32"]
    with receiving() as one:
        yield one


def act(client: Client, page: str, action: str, *rows: Any, **more: str) -> Any:
    form = {"action": action, "_selected_action": [row.pk for row in rows], **more}
    return client.post(page, form, follow=True)


def test_a_webhook_is_added_and_its_secret_is_shown_once(operator: Client) -> None:
    form = {"url": " https://example.com/hook ", "patterns": "Task*,ToolCallFailed", "enabled": "on"}
    answer = operator.post(ADD, form)
    webhook = Webhook.objects.get()
    assert (webhook.url, webhook.patterns) == ("https://example.com/hook", "Task*, ToolCallFailed")
    assert (webhook.created_by, webhook.enabled, webhook.include_content) == ("operator:anna", True, False)
    secret = webhooks.secret_of(webhook)
    assert secret in answer.content.decode()
    assert "no-store" in answer["Cache-Control"]
    page = reverse("admin:sessions_app_webhook_change", args=[webhook.pk])
    for address in (WEBHOOKS, page):
        shown = operator.get(address).content.decode()
        assert secret not in shown
        assert webhook.sealed_secret not in shown
    assert ("Task*", webhook.handler) in events._stored


@pytest.mark.parametrize(
    ("field", "value"), [("url", "ftp://example.com"), ("url", "http://u:p@example.com"), ("patterns", "Nothing*")]
)
def test_a_wrong_webhook_is_refused_at_its_field(operator: Client, field: str, value: str) -> None:
    form = {"url": "https://example.com", "patterns": "*", field: value}
    answer = operator.post(ADD, form)
    assert answer.status_code == 200
    assert "Invalid webhook" in answer.content.decode()
    assert not Webhook.objects.exists()


def test_it_is_changed_and_disabled_but_not_deleted(operator: Client) -> None:
    webhook, secret = webhooks.add("https://example.com/", who="ops")
    page = reverse("admin:sessions_app_webhook_change", args=[webhook.pk])
    operator.post(page, {"url": "https://example.com/new", "patterns": "Task*"})
    webhook.refresh_from_db()
    assert (webhook.url, webhook.enabled, webhook.disabled_because) == (
        "https://example.com/new",
        False,
        "By operator:anna.",
    )
    assert webhooks.secret_of(webhook) == secret
    assert events._stored == ()
    operator.post(page, {"url": "https://example.com/new", "patterns": "Task*", "enabled": "on"})
    webhook.refresh_from_db()
    assert (webhook.enabled, webhook.disabled_because) == (True, "")
    assert operator.post(reverse("admin:sessions_app_webhook_delete", args=[webhook.pk])).status_code == 403


def test_a_test_is_sent_and_its_outcome_is_told_and_kept(operator: Client, receiver: Receiver) -> None:
    webhook, _ = webhooks.add(receiver.url, who="ops")
    assert "HTTP 204" in act(operator, WEBHOOKS, "send_test", webhook).content.decode()
    assert receiver.types == ["WebhookTest"]
    receiver.behaves = answering(500)
    assert "HTTP 500" in act(operator, WEBHOOKS, "send_test", webhook).content.decode()
    tests = AuditEntry.objects.filter(action="webhook.test", who="operator:anna", subject=str(webhook.pk))
    assert tests.count() == 2
    attempts = list(WebhookAttempt.objects.order_by("pk").values_list("event", "status", "error"))
    assert attempts == [(None, 204, ""), (None, 500, "HTTP 500")]
    page = operator.get(reverse("admin:sessions_app_webhookattempt_changelist"))
    assert "HTTP 500" in page.content.decode()


def test_a_new_secret_is_shown_once_and_its_giver_is_remembered(operator: Client) -> None:
    webhook, secret = webhooks.add("https://example.com/", who="ops")
    asked = act(operator, WEBHOOKS, "rotate_secret", webhook).content.decode()
    assert "receiver must know the new one" in asked
    assert webhooks.secret_of(webhook) == secret
    shown = act(operator, WEBHOOKS, "rotate_secret", webhook, confirmed="rotate_secret").content.decode()
    webhook.refresh_from_db()
    assert webhooks.secret_of(webhook) != secret
    assert webhooks.secret_of(webhook) in shown
    assert LogEntry.objects.get().get_change_message() == "Gave a new secret"


def test_who_may_only_look_can_neither_send_nor_change(receiver: Receiver) -> None:
    webhook, secret = webhooks.add(receiver.url, who="ops")
    visitor = signed_in("bob", "view_webhook")
    act(visitor, WEBHOOKS, "send_test", webhook)
    act(visitor, WEBHOOKS, "rotate_secret", webhook, confirmed="rotate_secret")
    assert receiver.came == []
    webhook.refresh_from_db()
    assert webhooks.secret_of(webhook) == secret
    assert visitor.post(ADD, {"url": "https://example.com", "patterns": "*"}).status_code == 403


# --- dead letters ------------------------------------------------------------------------------------------------


@pytest.fixture
def dead() -> list[EventDelivery]:
    """Two dead letters."""
    events.subscribe("SessionCreated", HANDLER)
    try:
        services.create_session("s1")
        services.create_session("s2")
    finally:
        events.unsubscribe(HANDLER)
    for one in deliveries.claim(HANDLER, owner="me", lease_seconds=30, limit=2):
        deliveries.fail(one, "HTTP 503", policy=RetryPolicy(max_attempts=1), chance=0)
    return list(deliveries.listed(state="dead").order_by("pk"))


@pytest.mark.parametrize(("action", "state"), [("replay", "due"), ("discard", "discarded")])
def test_dead_letters_are_settled_one_by_one(
    operator: Client, dead: list[EventDelivery], action: str, state: str
) -> None:
    assert "HTTP 503" in operator.get(DELIVERIES, {"state__exact": "dead"}).content.decode()
    assert act(operator, DELIVERIES, action, dead[0], confirmed=action).context["messages"]
    assert [EventDelivery.objects.get(pk=one.pk).state for one in dead] == [state, "dead"]
    assert LogEntry.objects.get().get_change_message() == action.capitalize()


def test_discarding_asks_first_and_takes_what_was_seen(operator: Client, dead: list[EventDelivery]) -> None:
    form = {"action": "discard", "_selected_action": [dead[0].pk], "select_across": "1"}
    asked = operator.post(f"{DELIVERIES}?state__exact=dead", form)
    assert asked.context["selected"] == [one.pk for one in dead]
    assert deliveries.counts()["dead"] == 2
    act(operator, DELIVERIES, "discard", *dead, confirmed="discard")
    assert deliveries.counts()["discarded"] == 2


def test_dead_letters_are_settled_in_bulk(operator: Client, dead: list[EventDelivery]) -> None:
    form = {"action": "replay", "_selected_action": [dead[0].pk], "select_across": "1"}
    operator.post(f"{DELIVERIES}?state__exact=dead", form)
    assert deliveries.counts()["due"] == 2


def test_who_may_only_look_settles_nothing(dead: list[EventDelivery]) -> None:
    visitor = signed_in("bob", "view_eventdelivery")
    act(visitor, DELIVERIES, "replay", *dead)
    act(visitor, DELIVERIES, "discard", *dead, confirmed="discard")
    assert deliveries.counts()["dead"] == 2


def test_who_did_what_to_webhooks_and_dead_letters_is_in_the_audit(operator: Client, dead: list[EventDelivery]) -> None:
    webhook, _ = webhooks.add("https://example.com/?token=hunter2", who="shell:ops")
    webhooks.disable(webhook.pk, because="too noisy", who="shell:ops")
    act(operator, WEBHOOKS, "rotate_secret", webhook, confirmed="rotate_secret")
    act(operator, DELIVERIES, "discard", dead[0], confirmed="discard")
    told = list(AuditEntry.objects.filter(session=None).order_by("pk").values_list("action", "who", "subject"))
    assert told == [
        ("webhook.add", "shell:ops", str(webhook.pk)),
        ("webhook.change", "shell:ops", str(webhook.pk)),
        ("webhook.rotate", "operator:anna", str(webhook.pk)),
        ("delivery.discard", "operator:anna", ""),
    ]
    assert "hunter2" not in str(list(AuditEntry.objects.values()))
