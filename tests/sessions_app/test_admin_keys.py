"""Keys in the admin: shown once by the page that makes them, revoked by whoever may, never shown again."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from sessions_app import keys
from sessions_app.models import APIKey
from tests.flows.test_api_keys import everything_stored
from tests.sessions_app.test_admin import html, listing, operator, own_page, visitor

__all__ = ["operator", "visitor"]
pytestmark = pytest.mark.django_db
ADD = "admin:sessions_app_apikey_add"
NEVER = {"expires_at_0": "", "expires_at_1": ""}
KEY = re.compile(r"key-[0-9a-f]{8}\.[A-Za-z0-9_-]{43}")


def test_a_new_key_is_shown_by_one_page_and_kept_by_nothing(operator: Client) -> None:
    answer = operator.post(reverse(ADD), {"name": "the <b>gateway</b>", **NEVER})
    page = answer.content.decode()
    [key] = KEY.findall(page)
    row = APIKey.objects.get()
    assert "no-store" in answer["Cache-Control"]
    assert "the &lt;b&gt;gateway&lt;/b&gt;" in page
    assert (row.created_by, row.digest) == ("operator:anna", keys.digest(key.encode()).hex())
    secret = key.partition(".")[2]
    for address in (listing("apikey"), own_page(row), reverse("admin:index")):
        shown = html(operator, address)
        assert secret not in shown
        assert row.digest not in shown
    assert secret not in everything_stored()
    assert LogEntry.objects.filter(object_repr=row.key_id).exists()


@pytest.mark.parametrize("fields", [{"name": ""}, {"name": "x" * 101}, {"name": "x", "expires_at_0": "2020-01-01"}])
def test_what_cannot_be_a_key_is_asked_again(operator: Client, fields: dict[str, str]) -> None:
    answer = operator.post(reverse(ADD), {**NEVER, "expires_at_1": "00:00:00", **fields})
    assert answer.status_code == 200
    assert "errorlist" in answer.content.decode()
    assert not APIKey.objects.exists()


def test_chosen_keys_are_revoked_and_the_environments_is_not(operator: Client) -> None:
    for name in ("one", "two"):
        keys.create(name, by="olga", expires_at=timezone.now() + timedelta(days=1))
    keys.mark_used("env", timezone.now())
    chosen = [row.pk for row in APIKey.objects.exclude(name="two")]
    said = operator.post(listing("apikey"), {"action": "revoke", "_selected_action": chosen}, follow=True)
    assert "1 key is revoked." in said.content.decode()
    ended = dict(APIKey.objects.values_list("name", "revoked_by"))
    assert ended == {"one": "operator:anna", "two": "", "AGENT_RUNTIME__INTERNAL_API_KEY": ""}


def test_who_may_only_look_neither_makes_nor_revokes(visitor: Client) -> None:
    viewer = User.objects.create(username="viewer", is_staff=True)
    viewer.user_permissions.set(Permission.objects.filter(codename="view_apikey"))
    visitor.force_login(viewer)
    row, _ = keys.create("one", by="olga")
    assert visitor.get(reverse(ADD)).status_code == 403
    assert visitor.post(reverse(ADD), {"name": "mine", **NEVER}).status_code == 403
    visitor.post(listing("apikey"), {"action": "revoke", "_selected_action": [row.pk]}, follow=True)
    assert visitor.post(own_page(row), {"name": "forged"}).status_code == 403
    assert visitor.post(reverse("admin:sessions_app_apikey_delete", args=[row.pk])).status_code == 403
    [left] = APIKey.objects.all()
    assert (left.name, left.revoked_at) == ("one", None)
