"""Rules shown, compared, moved, rolled back and tried: from the shell and from the admin."""

from __future__ import annotations

import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from django.contrib.auth.models import Permission, User
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.urls import reverse

from agents_app.policy import RuleSet
from agents_app.rehearsal import rehearse
from sessions_app import policies
from sessions_app.models import Approval, AuditEntry, Event, PolicyRule, PolicyVersion, Session, ToolCall, ToolCallState
from tests.agents_app.test_policy import rule
from tests.sessions_app import told

pytestmark = pytest.mark.django_db


def policy(*arguments: str) -> str:
    out = io.StringIO()
    call_command("policy", *arguments, stdout=out)
    return out.getvalue()


@pytest.fixture
def stored() -> Session:
    """One call that waits for approval (write_file a.txt), one that was read, one refused by a schema."""
    session = told.session("s")
    write = ToolCall.objects.get()
    fields = {"session": session, "run": write.run, "message": write.message, "agent": "coder"}
    ToolCall.objects.create(
        **fields, call_id="c2", name="read_file", arguments={"path": "\u202ekey"}, state="completed"
    )
    ToolCall.objects.create(**fields, call_id="c3", name="read_file", state=ToolCallState.REFUSED)
    ToolCall.objects.create(
        **fields, call_id="c4", name="read_file", arguments={"path": "x"}, state=ToolCallState.REFUSED, policy_version=1
    )
    ToolCall.objects.create(**fields, call_id="c5", name="switch_mode", state="completed")
    return session


def test_the_stored_calls_are_judged_again_as_they_were_asked_for(stored: Session) -> None:
    ToolCall.objects.filter(call_id="call_1").update(arguments={"path": "edited"})
    assert Approval.objects.get().arguments["path"] == "a.txt"
    before = list(Event.objects.values_list("pk")), list(ToolCall.objects.values("state", "arguments"))
    report = rehearse(RuleSet.of([rule("write_file", "forbid", paths="a.txt", reason="Frozen")]), days=1)
    assert (report.calls, dict(report.was)) == (3, {"ask": 1, "allow": 1, "forbid": 1})
    assert dict(report.would_be) == {"forbid": 1, "allow": 2}
    changes = {(one.tool, one.was.value, one.would_be.value): one.count for one in report.changed()}
    assert changes == {("read_file", "forbid", "allow"): 1, ("write_file", "ask", "forbid"): 1}
    (example,) = next(one for one in report.changed() if one.tool == "write_file").examples
    assert (example.session_id, example.call_id, example.reason) == ("s", "call_1", "Frozen")
    assert before == (list(Event.objects.values_list("pk")), list(ToolCall.objects.values("state", "arguments")))


def test_rules_are_tried_from_the_shell(stored: Session, tmp_path: Path) -> None:
    file = tmp_path / "rules.json"
    file.write_text(json.dumps([{"pattern": "read_file", "action": "forbid", "reason": "No\u202e"}]))
    out = policy("try", "--file", str(file), "--days", "30")
    assert "3 calls of the last 30 days." in out
    assert "These rules would have asked 1 times, allowed 0, forbidden 2." in out
    assert "read_file: 1 x allow -> forbid" in out
    assert "\u202e" not in out
    assert "forbidden 0" in policy("try")


def test_rules_are_exported_imported_compared_and_rolled_back(tmp_path: Path) -> None:
    first = policies.version().number
    file = tmp_path / "rules.json"
    file.write_text(policy("export"))
    assert len(json.loads(file.read_text())) == 6
    file.write_text(json.dumps([{"pattern": "*", "action": "forbid", "paths": "secrets/**", "reason": "Secrets"}]))
    assert f"1 rules, version {first + 1}." in policy("import", str(file), "--note", "tighter")
    assert PolicyRule.objects.get().paths == "secrets/**"
    made = PolicyVersion.objects.get(number=first + 1)
    assert (made.who.startswith("shell:"), made.note) == (True, "tighter")
    assert "+   10 forbid *  paths=secrets/**  # Secrets" in policy("diff", str(first))
    assert f"as version {first + 2}" in policy("rollback", str(first))
    assert PolicyRule.objects.count() == 6
    assert policy("show").splitlines() == policy("show", str(first)).splitlines()
    assert policy("list").splitlines()[0].endswith(f"Rolled back to version {first}")
    actions = AuditEntry.objects.filter(session=None).values_list("action", "subject")
    assert set(actions) <= {("policy.change", f"policy:{first + 1}"), ("policy.change", f"policy:{first + 2}")}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "not valid JSON"),
        ("{}", "must be a list"),
        ("[5]", "Rule 1 must be an object"),
        ('[{"pattern": "x", "needs": 1}]', "unknown fields: needs"),
        ("[{}]", "pattern"),
        ('[{"pattern": "x", "action": "maybe"}]', "action"),
        ('[{"pattern": "x", "argument": "command", "expression": "("}]', "No RE2 expression"),
        ('[{"pattern": "x", "expression": "a"}]', "belong together"),
        ('[{"pattern": "x", "valid_until": "tomorrow"}]', "valid_until"),
        ('[{"pattern": "x", "valid_until": "2026-01-01T00:00:00"}]', "valid_until"),
        ('[{"pattern": "x", "order": "first"}]', "order"),
        ('[{"pattern": "x", "paths": 5}]', "Rule 1"),
    ],
)
def test_rules_that_cannot_be_are_refused_and_change_nothing(tmp_path: Path, content: str, says: str) -> None:
    before = policies.rules()
    file = tmp_path / "rules.json"
    file.write_text(content)
    for command in (("import", str(file)), ("try", "--file", str(file))):
        with pytest.raises(CommandError) as refused:
            policy(*command)
        assert says in str(refused.value)
    assert policies.rules() == before


@pytest.mark.parametrize(
    "command", [("show", "99"), ("export", "99"), ("diff", "99"), ("rollback", "99"), ("try", "--days", "0")]
)
def test_what_is_not_there_is_an_error(command: tuple[str, ...]) -> None:
    with pytest.raises(CommandError):
        policy(*command)


@pytest.mark.django_db(transaction=True)
def test_operators_who_change_rules_at_once_make_one_version_each_and_lose_nothing() -> None:
    policies.record("setup")  # the migration makes a first version, and a test that empties all tables takes it along
    before = PolicyVersion.objects.count()

    def change(who: str) -> None:
        try:
            for number in range(3):
                with policies.changing(who):
                    PolicyRule.objects.create(pattern=f"{who}{number}")
        finally:
            connection.close()

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(change, ["ann", "bob", "eve"]))
    sizes = [len(one.rules) for one in PolicyVersion.objects.order_by("number")][before:]
    assert len(sizes) == 9
    assert sizes == sorted(set(sizes)), "each holds all that was committed before it"


# --- the admin ---------------------------------------------------------------------------------------------------


@pytest.fixture
def operator() -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("ann"))
    return client


def test_a_form_makes_one_version_in_the_operators_name(operator: Client) -> None:
    first = policies.version().number
    form = {"pattern": "read_*", "action": "forbid", "paths": "secrets/**", "order": 1, "enabled": "on"}
    assert operator.post(reverse("admin:sessions_app_policyrule_add"), form).status_code == 302
    made = policies.version()
    assert (made.number, made.who, made.rules[0]["paths"]) == (first + 1, "operator:ann", "secrets/**")
    assert operator.post(reverse("admin:sessions_app_policyrule_add"), {**form, "argument": "x"}).status_code == 200
    assert policies.version().number == first + 1


def test_rules_are_tried_on_a_page(operator: Client, stored: Session) -> None:
    address = reverse("admin:sessions_app_policyrule_try")
    assert "write_file" in operator.get(address).content.decode()
    given = {"days": 7, "rules": json.dumps([{"pattern": "read_file", "action": "forbid"}])}
    page = operator.post(address, given).content.decode()
    assert "read_file</span>: 1 ×" in page
    assert "\u202e" not in page
    for wrong in ({"days": 0, "rules": "[]"}, {"days": 7, "rules": "{"}, {"days": 7, "rules": '[{"pattern": ""}]'}):
        answer = operator.post(address, wrong)
        assert (answer.status_code, "errorlist" in answer.content.decode()) == (200, True)


def test_an_older_version_is_made_the_rules_again(operator: Client) -> None:
    first = policies.version()
    page = reverse("admin:sessions_app_policyversion_change", args=[first.pk])
    restore = reverse("admin:sessions_app_policyversion_restore", args=[first.pk])
    assert restore not in operator.get(page).content.decode(), "nothing differs from the rules that count"
    PolicyRule.objects.all().delete()
    assert restore in operator.get(page).content.decode()
    question = operator.get(restore)
    assert [one["kind"] for one in question.context["differences"]] == ["added"] * len(first.rules)
    assert policies.rules() == []
    for seen in ("", "x", "9" * 40, str(first.number)):  # the rules that were looked at are not those of now
        assert operator.post(restore, {"seen": seen}).url == restore
        assert policies.rules() == []
    newest = question.context["newest"].number
    assert operator.post(restore, {"seen": newest}).status_code == 302
    assert policies.version().who == "operator:ann"
    assert policies.rules() == first.rules
    viewer = User.objects.create_user("viewer", is_staff=True)
    operator.force_login(viewer)
    assert operator.post(restore, {"seen": newest}).status_code == 403
    assert operator.get(restore).status_code == 403
    assert operator.get(reverse("admin:sessions_app_policyrule_try")).status_code == 403


# --- one rule, before it is saved ---

FORM = {"pattern": "read_file", "action": "forbid", "reason": "No <b>", "order": 5, "enabled": "on", "_try": "1"}


def test_a_new_rule_is_tried_before_it_is_saved(operator: Client, stored: Session) -> None:
    before = policies.version().number, PolicyRule.objects.count(), AuditEntry.objects.count()
    page = operator.post(reverse("admin:sessions_app_policyrule_add"), FORM)
    source = page.content.decode()
    told = {str(words): numbers for words, numbers in page.context["counts"]}
    assert told == {
        "With this rule they would have": [1, 0, 2],
        "As they are, the rules would have": [1, 2, 0],
        "In fact": [1, 1, 1],
    }
    (line,) = page.context["lines"]
    assert (line["tool"], line["count"], str(line["would_be"])) == ("read_file", 2, "forbid")
    assert source.count(reverse("admin:sessions_app_session_change", args=[stored.pk])) == 2
    assert "\u202e" not in source
    assert 'value="No &lt;b&gt;"' in source, "what was typed is still there"
    assert before == (policies.version().number, PolicyRule.objects.count(), AuditEntry.objects.count())


def test_a_changed_rule_is_tried_in_its_place(operator: Client, stored: Session) -> None:
    rule_ = PolicyRule.objects.get(pattern="write_file")
    address = reverse("admin:sessions_app_policyrule_change", args=[rule_.pk])
    changed = {**FORM, "pattern": "write_file", "action": "allow", "order": rule_.order}
    page = operator.post(address, changed)
    assert [(line["tool"], line["count"], str(line["would_be"])) for line in page.context["lines"]] == [
        ("write_file", 1, "allow")
    ]
    assert "write_file" in str(page.context["title"])
    rule_.refresh_from_db()
    assert rule_.action == "ask"
    page = operator.post(address, {**changed, "order": 1, "paths": "elsewhere/**"})
    assert "No call would have fared otherwise." in page.content.decode(), "the tool asks by its own default"
    page = operator.post(address, {**changed, "enabled": "", "argument": "path"})
    assert (page.status_code, page.context["report"]) == (200, None)
    assert "belong together" in page.content.decode()


def test_who_may_not_change_a_rule_may_not_try_one_in_its_form(stored: Session) -> None:
    rule_ = PolicyRule.objects.get(pattern="write_file")
    change = reverse("admin:sessions_app_policyrule_change", args=[rule_.pk])
    viewer = User.objects.create_user("viewer", is_staff=True)
    viewer.user_permissions.set(Permission.objects.filter(codename__in=["view_policyrule", "view_toolcall"]))
    client = Client()
    client.force_login(viewer)
    assert client.post(change, FORM).status_code == 403
    assert client.post(reverse("admin:sessions_app_policyrule_add"), FORM).status_code == 403
    assert 'name="_try"' not in client.get(change).content.decode()
    viewer.user_permissions.set(Permission.objects.filter(codename__endswith="_policyrule"))
    client.force_login(User.objects.get(pk=viewer.pk))
    assert client.post(change, FORM).status_code == 403, "the report shows calls"
    assert client.post(reverse("admin:sessions_app_policyrule_change", args=[10**9]), FORM).status_code == 302
