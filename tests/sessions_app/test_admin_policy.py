"""The approval rules in the admin: put in order by buttons, compared from version to version."""

from __future__ import annotations

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from sessions_app import policies
from sessions_app.models import AuditEntry, PolicyRule, PolicyVersion
from tests.sessions_app.test_admin import operator, visitor

__all__ = ["operator", "visitor"]
pytestmark = pytest.mark.django_db
ANNA = "operator:anna"
LIST = reverse("admin:sessions_app_policyrule_changelist")


@pytest.fixture
def rules() -> dict[str, PolicyRule]:
    with policies.changing("setup"):
        PolicyRule.objects.all().delete()
        made = [PolicyRule.objects.create(pattern=name, order=at) for name, at in (("a", 5), ("b", 7), ("c", 7))]
    return {rule.pattern: rule for rule in made}


def press(client: Client, rule: PolicyRule, name: str) -> int:
    return client.post(reverse("admin:sessions_app_policyrule_do", args=[rule.pk, name])).status_code


def order() -> str:
    return "".join(rule["pattern"] for rule in policies.rules())


def test_each_press_of_a_button_moves_a_rule_one_place_and_makes_one_version(
    operator: Client, rules: dict[str, PolicyRule]
) -> None:
    first, audited = policies.version().number, AuditEntry.objects.filter(action="policy.change").count()
    for pressed, expected in (("c up", "acb"), ("c up", "cab"), ("a down", "cba"), ("c down", "bca")):
        name, deed = pressed.split()
        assert press(operator, rules[name], deed) == 302
        assert order() == expected == "".join(rule["pattern"] for rule in policies.version().rules)
    made = PolicyVersion.objects.filter(number__gt=first)
    assert [(one.who, one.note) for one in made.order_by("number")] == [
        (ANNA, "Moved c up"), (ANNA, "Moved c up"), (ANNA, "Moved a down"), (ANNA, "Moved c down"),
    ]  # fmt: skip
    assert AuditEntry.objects.filter(action="policy.change").count() == audited + 4


def test_a_rule_at_the_end_stays_where_it_is_and_makes_no_version(
    operator: Client, rules: dict[str, PolicyRule]
) -> None:
    press(operator, rules["c"], "up")  # the numbers differ from now on
    before = policies.version().number
    assert press(operator, rules["a"], "up") == press(operator, rules["b"], "down") == 302
    assert (order(), policies.version().number) == ("acb", before)
    assert LogEntry.objects.count() == 1


def test_a_rule_is_switched_off_and_on(operator: Client, rules: dict[str, PolicyRule]) -> None:
    press(operator, rules["b"], "off")
    assert [rule["enabled"] for rule in policies.version().rules] == [True, False, True]
    assert 'class="rule is-off"' in operator.get(LIST).content.decode()
    press(operator, rules["b"], "on")
    assert all(rule["enabled"] for rule in policies.version().rules)


def test_a_rule_that_is_gone_or_a_deed_that_is_not_is_told_and_changes_nothing(
    operator: Client, rules: dict[str, PolicyRule]
) -> None:
    gone = PolicyRule(pk=10**15)
    assert press(operator, rules["a"], "sideways") == 404
    assert press(operator, gone, "up") == press(operator, gone, "off") == 302
    assert "meanwhile" in operator.get(LIST).content.decode()
    assert operator.get(reverse("admin:sessions_app_policyrule_do", args=[rules["a"].pk, "up"])).status_code == 405
    assert order() == "abc"


def test_only_who_may_change_rules_sees_the_buttons_and_may_press_them(
    visitor: Client, rules: dict[str, PolicyRule]
) -> None:
    viewer = User.objects.create(username="viewer", is_staff=True)
    viewer.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    visitor.force_login(viewer)
    page = visitor.get(LIST).content.decode()
    assert 'class="rule"' in page
    assert "formaction" not in page
    assert [press(visitor, rules["c"], name) for name in ("up", "down", "on", "off")] == [403] * 4
    assert order() == "abc"


def test_the_list_costs_the_same_queries_with_one_rule_and_with_many(operator: Client) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as made:
            assert operator.get(LIST).status_code == 200
        return len(made)

    operator.get(LIST)
    few = queries()
    with policies.changing("setup"):
        PolicyRule.objects.bulk_create([PolicyRule(pattern=f"p{at}", order=at) for at in range(200)])
    assert queries() == few


def test_a_new_rule_is_tried_last_until_it_is_moved(operator: Client, rules: dict[str, PolicyRule]) -> None:
    page = operator.get(reverse("admin:sessions_app_policyrule_add"))
    assert page.context["adminform"].form["order"].value() == "17"


def test_a_versions_page_says_what_changed_before_and_since(operator: Client, rules: dict[str, PolicyRule]) -> None:
    first = policies.version()
    with policies.changing("bob"):
        PolicyRule.objects.filter(pattern="b").update(action="forbid", reason="<b>no\u202e</b>", expires_seconds=90)
    with policies.changing("bob"):
        PolicyRule.objects.filter(pattern="a").delete()
    second = PolicyVersion.objects.get(number=first.number + 1)
    page = operator.get(reverse("admin:sessions_app_policyversion_change", args=[second.pk]))
    (changed,) = page.context["since_before"]
    assert changed["fields"] == [
        ("Action", "needs approval", "forbid"), ("Reason", "—", "<b>no\u202e</b>"),
        ("Approvals expire after", "—", "1 min 30 s"),
    ]  # fmt: skip
    assert [one["kind"] for one in page.context["until_newest"]] == ["removed"]
    source = page.content.decode()
    assert "&lt;b&gt;no⟦U+202E⟧&lt;/b&gt;" in source
    assert "\u202e" not in source
    newest = operator.get(reverse("admin:sessions_app_policyversion_change", args=[policies.version().pk]))
    assert newest.context["is_newest"]
    assert "roll-back" not in newest.content.decode()
