"""`manage.py agents`, and what check and doctor say of settings that the code no longer follows."""

from __future__ import annotations

import json
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from agents_app import checks
from sessions_app import agent_versions
from sessions_app.models import AgentVersion, AuditEntry

pytestmark = pytest.mark.django_db


def told(*words: str) -> str:
    out = StringIO()
    call_command("agents", *words, stdout=out)
    return out.getvalue()


def test_agents_are_listed_shown_compared_and_rolled_back() -> None:
    agent_versions.save("coder", {"prompt": "one\ntwo"}, who="anna", note="first\x1b[2J")
    agent_versions.save("coder", {"prompt": "one\n2", "temperature": 0.5}, who="bert")
    listed = told("list")
    assert "architect     as in the code" in listed
    assert "coder         2  " in listed
    assert [line.split()[0] for line in told("list", "coder").splitlines()] == ["2", "1"]
    assert "\x1b" not in told("list", "coder")
    assert json.loads(told("show", "coder")) == {"prompt": "one\n2", "temperature": 0.5}
    compared = ["prompt:", "  @@ -1,2 +1,2 @@", "   one", "  -two", "  +2", "temperature:", "  +0.5"]
    assert told("diff", "coder").splitlines() == compared
    assert "  -one" not in told("diff", "coder", "0")
    assert told("restore", "coder", "1") == "coder is that again, as version 3.\n"
    assert told("restore", "coder", "0") == "coder is that again, as version 4.\n"
    assert told("restore", "coder", "0") == "Nothing has changed.\n"
    assert AuditEntry.objects.order_by("-number")[0].who.startswith("shell:")


@pytest.mark.parametrize(
    "words", [("show", "coder"), ("restore", "coder", "7"), ("diff", "nobody"), ("restore", "x", "0")]
)
def test_what_is_not_there_is_said(words: tuple[str, ...]) -> None:
    with pytest.raises(CommandError):
        told(*words)


def test_check_and_doctor_note_what_does_not_fit_and_call_nothing_broken() -> None:
    AgentVersion.objects.create(agent="coder", number=1, overrides={"tools": ["gone"]})
    assert checks.overrides_fit_the_code(None) == []
    [warning] = checks.overrides_fit_the_code(None, databases=["default"])
    assert warning.id == "agents_app.W002"
    assert "There is no tool gone." in warning.msg
    out = StringIO()
    call_command("doctor", stdout=out)
    assert "note: Agent 'coder', version 1, tools: left out" in out.getvalue()
    assert "Nothing is broken." in out.getvalue()
    assert "note: Agent 'coder'" in told("list")
