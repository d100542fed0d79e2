"""The groups that the migration makes, and what their members may do in the admin."""

from __future__ import annotations

from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, User
from django.test import Client
from django.urls import reverse

from agents_app.admin import deeds
from sessions_app import batches, roles
from sessions_app.admin import actions
from sessions_app.models import AuditEntry, Batch, Breaker, Event, EventDelivery, Run, Session, Webhook
from tests.sessions_app import admin_rows

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _groups() -> None:
    roles.make(apps)  # as the migration does: a test that empties all tables takes them along


def member(role: str) -> tuple[User, Client]:
    user = User.objects.create(username=role, is_staff=True)
    user.groups.add(Group.objects.get(name=role))
    browser = Client()
    browser.force_login(user)
    return user, browser


@pytest.mark.parametrize(
    ("role", "may", "may_not"),
    [
        ("viewer", ["view_session", "view_event", "view_auditentry"], ["change_session", "change_approval"]),
        (
            "operator",
            ["view_session", "change_session", "change_approval", "change_eventdelivery", "change_breaker"],
            ["delete_session", "change_policyrule", "add_apikey", "add_webhook", "add_session"],
        ),
        (
            "administrator",
            ["delete_session", "change_policyrule", "add_apikey", "add_webhook", "change_session"],
            [],
        ),
    ],
)
def test_each_role_may_what_it_is_for_and_no_more(role: str, may: list[str], may_not: list[str]) -> None:
    user, _ = member(role)
    assert [name for name in may if not user.has_perm(f"sessions_app.{name}")] == []
    assert [name for name in may_not if user.has_perm(f"sessions_app.{name}")] == []
    assert user.has_perm("auth.change_user") is (role == "administrator")
    assert not user.has_perm("admin.delete_logentry")


@pytest.mark.parametrize("role", [roles.VIEWER, roles.OPERATOR, roles.ADMINISTRATOR])
def test_members_open_every_page_that_they_may_see(role: str) -> None:
    _, browser = member(role)
    session = admin_rows.conversation("s")
    for table in admin_rows.TABLES:
        assert browser.get(reverse(f"admin:sessions_app_{table}_changelist")).status_code == 200, table
    assert browser.get(reverse("admin:sessions_app_session_change", args=[session.pk])).status_code == 200
    assert browser.get(reverse("admin:index")).status_code == 200


def test_making_them_again_keeps_what_was_added() -> None:
    viewers = Group.objects.get(name=roles.VIEWER)
    before = viewers.permissions.count()
    viewers.permissions.add(*Group.objects.get(name=roles.OPERATOR).permissions.all())
    more = viewers.permissions.count()
    roles.make(apps)
    assert before < more == viewers.permissions.count()


# --- the matrix --------------------------------------------------------------------------------------------------


def posts() -> list[tuple[str, list[object], dict[str, object], str]]:
    """Every address that changes something, with its form, and the least role that may: what a button is sent to."""
    session = admin_rows.conversation("s")
    run = Run.objects.get()
    batch = batches.prepare("deactivate", [session.pk], who="operator:operator")
    deletion = batches.prepare("delete", [session.pk], who="operator:administrator")
    webhook = Webhook.objects.create(url="https://example.com/", patterns="*")
    breaker = Breaker.objects.create(name="llm")
    delivery = EventDelivery.objects.order_by("pk")[0]

    def chosen(action: str, row: Any) -> dict[str, object]:
        return {"action": action, "confirmed": action, "_selected_action": [row.pk], "index": "0"}

    sessions = [action.name for action in actions.ACTIONS if action.permission == "change"]
    return [
        *(("session_changelist", [], chosen(name, session), roles.OPERATOR) for name in [*sessions, "export"]),
        *(("session_changelist", [], chosen(name, session), roles.ADMINISTRATOR) for name in ("purge", "delete")),
        ("session_delete_older", [], {"before": "2020-01-01T00:00:00Z"}, roles.ADMINISTRATOR),
        ("session_repair", [], {}, roles.OPERATOR),
        *(("session_do", [session.pk, name], {"text": "x"}, roles.OPERATOR) for name in deeds.DEEDS),
        *(("run_changelist", [], chosen(name, run), roles.OPERATOR) for name in ("cancel", "retry")),
        ("batch_start", [batch.pk], {}, roles.OPERATOR),
        ("batch_stop", [batch.pk], {}, roles.OPERATOR),
        ("batch_start", [deletion.pk], {}, roles.ADMINISTRATOR),
        ("batch_stop", [deletion.pk], {}, roles.ADMINISTRATOR),
        ("approval_inbox_decide", [], {}, roles.OPERATOR),
        *(("eventdelivery_changelist", [], chosen(name, delivery), roles.OPERATOR) for name in ("replay", "discard")),
        ("breaker_changelist", [], chosen("reset", breaker), roles.OPERATOR),
        ("webhook_changelist", [], chosen("rotate_secret", webhook), roles.ADMINISTRATOR),
    ]


def stored() -> list[object]:
    """What any of them would change: the rows themselves, and the traces that every one leaves."""
    tables = (Session, Run, Batch, Breaker, Webhook, EventDelivery, AuditEntry, Event)
    return [list(table._default_manager.order_by("pk").values()) for table in tables] + [LogEntry.objects.count()]


@pytest.mark.parametrize("role", [roles.VIEWER, roles.OPERATOR])
def test_whoever_may_not_is_refused_by_the_server_and_nothing_changes(role: str) -> None:
    _, browser = member(role)
    known = [roles.VIEWER, roles.OPERATOR, roles.ADMINISTRATOR]
    refused = [one for one in posts() if known.index(one[3]) > known.index(role)]
    before = stored()
    for name, args, form, _role in refused:
        answer = browser.post(reverse(f"admin:sessions_app_{name}", args=args), form)
        # An action that one may not choose is none of the list's: Django shows the list again.
        assert answer.status_code == 403 or (name.endswith("_changelist") and answer.status_code in (200, 302)), name
        assert stored() == before, (name, form)


def test_an_operators_buttons_change_something_each() -> None:
    """So that the refusals above are for the lack of a permission, and for nothing else."""
    _, browser = member(roles.OPERATOR)
    for name, args, form, least in posts():
        if least == roles.OPERATOR and name in ("batch_start", "eventdelivery_changelist", "breaker_changelist"):
            assert browser.post(reverse(f"admin:sessions_app_{name}", args=args), form).status_code == 302
    assert Batch.objects.filter(state="queued").count() == 1
    assert LogEntry.objects.count() >= 3


def test_no_action_of_any_list_is_without_a_permission() -> None:
    for model_admin in admin.site._registry.values():
        for action, name, _ in model_admin._get_base_actions():
            assert getattr(action, "allowed_permissions", None) or name == "delete_selected", (model_admin, name)
