"""The agents' pages: what operators set, see, compare and restore, and who may."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.apps import apps
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission, User
from django.test import Client
from django.urls import reverse

from agents_app import agents, definitions, overrides
from agents_app.admin.agent_forms import DraftForm
from sessions_app import agent_versions, roles
from sessions_app.admin import shown
from sessions_app.models import AgentVersion, AuditEntry
from tests.sessions_app.test_admin_hostile import HOSTILE, Page

pytestmark = pytest.mark.django_db
CODER = agents.defined("coder")
BY_SCRIPT = {"accept": "application/x-ndjson"}
LIST = reverse("admin:sessions_app_agentversion_changelist")


def page(name: str = "agent", agent: str = "coder") -> str:
    return reverse(f"admin:sessions_app_agentversion_{name}", args=[agent])


def numbered(name: str, number: int) -> str:
    return reverse(f"admin:sessions_app_agentversion_{name}", args=[number])


def signed_in(name: str, *permissions: str, **fields: Any) -> Client:
    visitor = Client(headers={"accept-language": "en"})
    user = User.objects.create(username=name, is_staff=True, **fields)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    visitor.force_login(user)
    return visitor


@pytest.fixture
def operator() -> Client:
    return signed_in("anna", is_superuser=True)


def filled(**changed: Any) -> dict[str, Any]:
    """The coder's form as a browser sends it when nobody has touched it, and what a person changed."""
    form = DraftForm(CODER, agent_versions.of("coder").first())
    told = {name: form[name].value() for name in form.fields}
    told = {name: "on" if value is True else value for name, value in told.items()}
    return {name: value for name, value in told.items() if value is not None and value is not False} | changed


def hidden(body: str, name: str) -> str:
    """What a hidden field of the page holds."""
    return re.findall(rf'<input type="hidden" name="{name}" value="(\d+)"', body)[0]


def test_what_is_ticked_is_set_and_the_rest_stays_the_codes(operator: Client) -> None:
    told = {"prompt_set": "on", "prompt": "Be\r\nbrief.\r\n", "temperature": "0.9", "note": "shorter"}
    answer = operator.post(page(), filled(**told), follow=True)
    assert "Version 1 applies now" in answer.content.decode()
    made = AgentVersion.objects.get()
    assert (made.agent, made.who, made.note) == ("coder", "operator:anna", "shorter")
    assert made.overrides == {"prompt": "Be\nbrief.\n"}
    assert agents.get("coder").prompt == "Be\nbrief.\n"
    entry = AuditEntry.objects.get(action="agent.change")
    assert (entry.who, entry.subject) == ("operator:anna", "agent:coder")
    assert "brief" not in entry.after
    assert LogEntry.objects.get().get_admin_url()


def test_the_form_that_nobody_touched_changes_nothing(operator: Client) -> None:
    agent_versions.save("coder", {"prompt": "x\n\ny ", "tools": ["read_file"], "temperature": 0.5}, who="bert")
    answer = operator.post(page(), filled(), follow=True)
    assert "Nothing has changed." in answer.content.decode()
    assert AgentVersion.objects.count() == 1


def test_every_part_can_be_set_at_once(operator: Client, settings: Any) -> None:
    settings.LLM_PROXY_URL = "http://127.0.0.1:1"
    told = {f"{part}_set": "on" for part in overrides.open_parts(CODER)} | {
        "prompt": "P", "tools": ["echo"], "file_rules": "docs/**\r\n\r\n *.md ", "model": " big/1 ", "temperature": "1",
    }  # fmt: skip
    operator.post(page(), filled(**told))
    assert AgentVersion.objects.get().overrides == {
        "prompt": "P", "tools": ["echo"], "file_rules": ["docs/**", "*.md"], "model": "big/1", "temperature": 1.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("part", "value", "why"),
    [
        ("prompt", " ", "without a prompt"),
        ("prompt", "x" * 60_000, "at most"),
        ("tools", ["read_file", "no_such_tool"], "no_such_tool is not one of the available choices"),
        ("tools", ["switch_mode"], "switch_mode is not one of the available choices"),
        ("file_rules", "ok/**\n/etc/**", "it must be relative"),
        ("model", "gpt", "LLM_PROXY_URL"),
        ("model", "", "1 to 255"),
        ("temperature", "3", "from 0 to 2"),
        ("temperature", "warm", "Enter a number."),
        ("temperature", "nan", "Enter a number."),
        ("temperature", "", "from 0 to 2"),
    ],
)
def test_a_refused_form_says_why_at_the_field_and_keeps_what_was_written(
    operator: Client, part: str, value: Any, why: str
) -> None:
    answer = operator.post(page(), filled(**{f"{part}_set": "on", part: value, "note": "my reason"}))
    body = answer.content.decode()
    at = body.index(f'id="part-{part}"')
    assert why in body[at : body.index("</section>", at)]
    assert "my reason" in body
    assert not AgentVersion.objects.exists()


def test_the_orchestrator_is_offered_neither_tools_nor_rules(operator: Client) -> None:
    body = operator.get(page(agent="orchestrator")).content.decode()
    assert 'id="part-prompt"' in body
    assert 'id="part-tools"' not in body
    forged = {"prompt": "Route.", "prompt_set": "on", "tools_set": "on", "tools": ["read_file"], "seen": "0"}
    operator.post(page(agent="orchestrator"), forged)
    assert AgentVersion.objects.get().overrides == {"prompt": "Route."}


def test_two_who_edit_at_once_do_not_overwrite_each_other(operator: Client) -> None:
    stale = filled(temperature_set="on", temperature="0.1")
    agent_versions.save("coder", {"temperature": 0.7}, who="bert")
    answer = operator.post(page(), stale)
    assert "version 1 meanwhile" in answer.content.decode()
    assert AgentVersion.objects.count() == 1
    operator.post(page(), stale | {"seen": "1"})
    assert agent_versions.version("coder").overrides == {"temperature": 0.1}


def test_a_version_is_compared_and_restored_and_the_code_is_one_click_away(operator: Client) -> None:
    agent_versions.save("coder", {"prompt": "one\ntwo\n"}, who="bert")
    agent_versions.save("coder", {"prompt": "one\n2\n", "temperature": 0.4}, who="bert")
    body = operator.get(numbered("version", 2)).content.decode()
    for line in ("<span>two</span>", "<span>2</span>", "<span>0.4</span>"):
        assert line in body
    assert "Make this the definition again" not in body
    back = operator.get(numbered("version", 1) + "?with=now").content.decode()
    changed = re.findall(r'<li class="(\w+)"><b[^>]*>.</b><span[^>]*>[^<]*</span><span>([^<]*)</span>', back)
    assert changed == [("removed", "2"), ("added", "two"), ("removed", "0.4")]
    assert operator.get(numbered("version", 1) + "?with=code").status_code == 200
    operator.post(numbered("restore", 1), {"seen": hidden(back, "seen")})
    assert agents.get("coder").prompt == "one\ntwo\n"
    operator.post(page("reset"), filled())
    assert agents.get("coder").prompt == CODER.prompt
    assert [one.note for one in agent_versions.of("coder")[:2]] == ["As in the code", "Rolled back to version 1"]
    row = agent_versions.version("coder")
    change = reverse("admin:sessions_app_agentversion_change", args=[row.pk])
    assert operator.get(change).headers["location"] == numbered("version", row.number)


def test_neither_rolling_back_nor_the_code_overwrites_what_nobody_has_seen(operator: Client) -> None:
    for warmth in (0.1, 0.2):
        agent_versions.save("coder", {"temperature": warmth}, who="bert")
    stale, form = hidden(operator.get(numbered("version", 1)).content.decode(), "seen"), filled()
    agent_versions.save("coder", {"temperature": 0.3}, who="bert")
    for address, told in ((numbered("restore", 1), {"seen": stale}), (page("reset"), form), (page("reset"), {})):
        said = operator.post(address, told, follow=True).content.decode()
        assert "version 3 meanwhile; nothing was changed" in said
    assert agent_versions.version("coder").number == 3
    for garbage in ("", "-1", "x", "²", "9" * 40):
        assert operator.post(numbered("restore", 1), {"seen": garbage}).status_code == 302
    assert agent_versions.version("coder").number == 3


def test_what_does_not_fit_any_more_is_said_on_every_page(operator: Client) -> None:
    AgentVersion.objects.create(agent="coder", number=1, overrides={"tools": ["gone"], "temperature": "hot"})
    AgentVersion.objects.create(agent="vanished", number=2, overrides={"prompt": "x"})
    AgentVersion.objects.create(agent="debug", number=3, overrides=["garbage"])
    for address in (LIST, page(), numbered("version", 1)):
        assert "There is no tool gone." in operator.get(address).content.decode(), address
    assert "not in the code any more" in operator.get(LIST).content.decode()
    for address in (numbered("version", 2), page(agent="debug"), numbered("version", 3)):
        assert operator.get(address).status_code == 200
    operator.post(numbered("restore", 3), {"seen": "3"})  # garbage sets nothing: it applies already
    assert operator.get(page(agent="vanished")).status_code == 404
    assert operator.post(numbered("restore", 2)).status_code == 404


@pytest.mark.parametrize(
    ("role", "sees", "tries", "changes"),
    [(roles.VIEWER, 200, 403, 403), (roles.OPERATOR, 200, 200, 403), (roles.ADMINISTRATOR, 200, 200, 302)],
)
def test_each_role_may_what_it_is_for(role: str, sees: int, tries: int, changes: int) -> None:
    roles.make(apps)
    browser = signed_in(role)
    User.objects.get(username=role).groups.add(Group.objects.get(name=role))
    agent_versions.save("coder", {"temperature": 0.2}, who="bert")
    agent_versions.save("coder", {"temperature": 0.3}, who="bert")
    assert [browser.get(one).status_code for one in (LIST, page(), numbered("version", 1))] == [sees] * 3
    assert browser.post(page("try"), filled(message="hi")).status_code == tries
    body = browser.get(page()).content.decode()
    assert ("Try the draft" in body) is (tries == 200)
    assert ("Save as a new version" in body) is (changes == 302)
    changing = [(page(), filled(temperature="0.4")), (numbered("restore", 1), {}), (page("reset"), {})]
    for address, told in changing:
        told["seen"] = str(agent_versions.newest_number())
        assert browser.post(address, told).status_code == changes, address
    assert AgentVersion.objects.count() == (5 if changes == 302 else 2)


def test_strangers_see_nothing_and_a_get_changes_nothing(operator: Client) -> None:
    stranger = signed_in("eve")
    agent_versions.save("coder", {"temperature": 0.2}, who="bert")
    for address in (LIST, page(), numbered("version", 1)):
        assert stranger.get(address).status_code == 403
        assert Client().get(address).status_code == 302
    for address in (page("try"), page("reset"), numbered("restore", 1)):
        assert operator.get(address).status_code == 405
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(User.objects.get(username="anna"))
    assert strict.post(page(), filled(temperature="0.4")).status_code == 403
    assert operator.get(numbered("version", 99)).status_code == 404


@pytest.mark.parametrize("payload", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_is_text_on_every_page(operator: Client, payload: str) -> None:
    AgentVersion.objects.create(
        agent="coder", number=1, overrides={"prompt": f"{payload}\nold"}, who=payload, note=payload
    )
    told = {
        "prompt": f"{payload}\nnew", "tools": [payload], "file_rules": [payload], "model": payload,
        "temperature": payload, payload: payload,
    }  # fmt: skip
    AgentVersion.objects.create(agent="coder", number=2, overrides=told, who=payload, note=payload)
    AgentVersion.objects.create(agent=payload[:32], number=3, overrides=told, who=payload)
    for address in (LIST, page(), *(numbered("version", number) for number in (1, 2, 3))):
        body = operator.get(address).content.decode()
        assert Page(body).dangers == [], address
    visible = shown.visible(payload)
    if visible != payload:
        assert visible in operator.get(numbered("version", 2)).content.decode()


def test_the_list_costs_the_same_queries_with_more_versions(
    operator: Client, django_assert_max_num_queries: Any
) -> None:
    for number in range(1, 60):
        AgentVersion.objects.create(agent="coder", number=number, overrides={"temperature": number / 60})
    for address in (LIST, page()):
        with django_assert_max_num_queries(8):
            operator.get(address)


def test_the_playground_works_with_the_built_in_model_and_with_no_script(operator: Client) -> None:
    told = filled(prompt_set="on", prompt="Be brief.", message="Please read the README", note="kept")
    body = operator.post(page("try"), told).content.decode()
    assert "read_file" in body
    assert "asked for, not run" in body
    assert "Be brief." in body
    assert not AgentVersion.objects.exists()
    assert agents.get("coder") == definitions.agents.defined("coder")


def test_a_draft_that_is_none_is_refused_without_asking(operator: Client) -> None:
    wrong = filled(temperature_set="on", temperature="9", message="hi")
    body = operator.post(page("try"), wrong, headers=BY_SCRIPT).content.decode()
    assert "Temperature: It is a number from 0 to 2." in body
    assert "<html" not in body
    for message in ("", " ", "x" * 20_001):
        body = operator.post(page("try"), filled(message=message), headers=BY_SCRIPT).content.decode()
        assert "Message: " in body
