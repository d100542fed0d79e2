"""The agents' versions as they are stored: numbered, never lost, told in the audit."""

from __future__ import annotations

import json
import threading

import pytest
from django.db import connection

from sessions_app import agent_versions, audit
from sessions_app.agent_versions import ChangedMeanwhile, VersionNotFound
from sessions_app.models import AgentVersion, AuditEntry

SECRET = "You are nobody's business"


@pytest.mark.django_db
def test_the_newest_version_of_each_agent_applies() -> None:
    agent_versions.save("coder", {"temperature": 0.1}, who="anna")
    agent_versions.save("ask", {"model": "small"}, who="anna")
    made = agent_versions.save("coder", {"temperature": 0.2}, who="bert", note="warmer")
    assert made is not None
    assert (made.number, made.who, made.note) == (3, "bert", "warmer")
    assert {name: one.overrides for name, one in agent_versions.newest().items()} == {
        "coder": {"temperature": 0.2},
        "ask": {"model": "small"},
    }
    assert agent_versions.newest_number() == 3
    assert agent_versions.version("coder").number == 3
    before = agent_versions.before(made)
    assert before is not None
    assert before.number == 1


@pytest.mark.django_db
def test_what_changes_nothing_makes_no_version() -> None:
    assert agent_versions.save("coder", {}, who="anna") is None
    agent_versions.save("coder", {"model": "m"}, who="anna")
    assert agent_versions.save("coder", {"model": "m"}, who="anna") is None
    assert AgentVersion.objects.count() == AuditEntry.objects.count() == 1


@pytest.mark.django_db
def test_back_to_the_code_and_a_roll_back_are_versions_too() -> None:
    agent_versions.save("coder", {"model": "m"}, who="anna")
    agent_versions.save("coder", {}, who="anna", note="as in the code")
    made = agent_versions.restore("coder", 1, who="bert")
    assert made is not None
    assert (made.number, made.overrides, made.note) == (3, {"model": "m"}, "Rolled back to version 1")
    assert agent_versions.restore("coder", 3, who="bert") is None
    with pytest.raises(VersionNotFound):
        agent_versions.restore("ask", 1, who="bert")


@pytest.mark.django_db
def test_who_looked_at_an_older_version_changes_nothing() -> None:
    agent_versions.save("coder", {"model": "m"}, who="anna", seen=0)
    with pytest.raises(ChangedMeanwhile) as refused:
        agent_versions.save("coder", {"model": "n"}, who="bert", seen=0)
    assert refused.value.newest == 1
    assert agent_versions.version("coder").overrides == {"model": "m"}


@pytest.mark.django_db
def test_the_audit_names_the_operator_and_has_no_prompt() -> None:
    agent_versions.save("coder", {"prompt": SECRET, "tools": ["read_file"], "temperature": 0.5}, who="anna")
    agent_versions.save("coder", {"prompt": "short"}, who="bert")
    first, second = AuditEntry.objects.filter(session=None).order_by("number")
    assert (first.action, first.who, first.subject, first.before) == ("agent.change", "anna", "agent:coder", "")
    told = {"version": 1, "prompt": audit.digest(SECRET), "tools": ["read_file"], "temperature": "0.5"}
    assert json.loads(first.after) == json.loads(second.before) == told
    assert json.loads(second.after) == {"version": 2, "prompt": audit.digest("short")}
    assert "short" not in second.after


@pytest.mark.django_db(transaction=True)
def test_of_many_who_save_at_once_nobody_loses_a_version() -> None:
    barrier, refused = threading.Barrier(4), []

    def save(name: str) -> None:
        barrier.wait(30)
        try:
            agent_versions.save("coder", {"model": name}, who=name)
        except ChangedMeanwhile as error:
            refused.append(error)
        finally:
            connection.close()

    agent_versions.save("ask", {"model": "m"}, who="first")  # before the very first there is nothing to lock
    threads = [threading.Thread(target=save, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    numbers = list(AgentVersion.objects.order_by("number").values_list("number", flat=True))
    assert numbers == list(range(1, 6))
    assert refused == []
