"""A draft of an agent tried from the admin: what the model is asked, what the page shows, and that nothing stays."""

from __future__ import annotations

import html
import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from django.apps import apps
from django.contrib.auth.models import Permission, User
from django.test import Client

from agents_app import agents, playground
from sessions_app import breakers
from sessions_app.admin import shown
from tests import talk
from tests.conftest import RunningServer
from tests.model_server import (
    Gate,
    ModelServer,
    cut_after,
    garbage,
    hang_before_head,
    status,
    text,
    tool_calls,
)
from tests.model_server import html as web_page
from tests.sessions_app.test_admin_hostile import HOSTILE, Page
from tests.waiting import until

LINES = "application/x-ndjson"
TRY = "/admin/sessions_app/agentversion/of/coder/try/"
DRAFT = {
    "prompt_set": "on", "prompt": "You are a draft.", "tools_set": "on", "tools": ["read_file", "write_file"],
    "model_set": "on", "model": "other/large", "temperature_set": "on", "temperature": "0.5", "message": "Go",
    "file_rules_set": "on", "file_rules": "docs/**",
}  # fmt: skip


@pytest.fixture
def browser(server: RunningServer) -> Iterator[httpx.Client]:
    """Somebody who may look and try, and no more, in the real server."""
    user = User.objects.create(username="olga", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=("view_agentversion", "try_agentversion")))
    session = Client()
    session.force_login(user)
    cookies = {"sessionid": session.cookies["sessionid"].value, "csrftoken": "t" * 32}
    headers = {"X-CSRFToken": "t" * 32, "Accept": LINES, "Accept-Language": "en"}
    with httpx.Client(base_url=server.url, cookies=cookies, headers=headers, timeout=60) as one:
        yield one


def attempt(browser: httpx.Client, **changed: Any) -> str:
    answer = browser.post(TRY, data=DRAFT | changed)
    assert answer.status_code == 200
    assert "no-store" in answer.headers["cache-control"]
    assert answer.headers["content-type"] == LINES
    *pieces, last = map(json.loads, answer.text.splitlines())
    assert all(set(piece) == {"text"} for piece in pieces)
    return html.unescape(last["html"])


def counts() -> dict[str, int]:
    ours = [model for model in apps.get_app_config("sessions_app").get_models() if model.__name__ != "Beat"]
    return {model.__name__: model.objects.count() for model in ours}  # type: ignore[attr-defined]


def test_the_model_is_asked_as_the_draft_says_and_nothing_is_stored_or_run(
    browser: httpx.Client, model: ModelServer
) -> None:
    before = counts()
    model.reply(tool_calls([("a", "read_file", '{"path": "README.md"}')], text="Looking. "))
    body = attempt(browser)
    [asked] = model.requests
    assert (asked.body["model"], asked.body["temperature"]) == ("other/large", 0.5)
    assert asked.body["messages"] == [
        {"role": "system", "content": "You are a draft."},
        {"role": "user", "content": "Go"},
    ]
    assert [tool["function"]["name"] for tool in asked.body["tools"]][:2] == ["read_file", "write_file"]
    for told in ("Looking. ", "read_file", "README.md", "asked for, not run", "11 + 7"):
        assert told in body
    assert "It would be refused" not in body
    assert counts() == before
    assert agents.get("coder") == agents.defined("coder")


@pytest.mark.parametrize(
    ("name", "arguments", "why"),
    [
        ("execute_command", '{"command": "ls"}', "not yours to use"),
        ("write_file", '{"path": "src/a", "content": ""}', "you may only write docs/**"),
        ("read_file", '{"path": ', "It would be refused"),
        ("read_file", '{"path": 5}', "Invalid arguments"),
        ("no_such_tool", "", "does not exist"),
    ],
)
def test_a_call_that_a_turn_would_refuse_is_shown_with_the_reason(
    browser: httpx.Client, model: ModelServer, name: str, arguments: str, why: str
) -> None:
    model.reply(tool_calls([("a", name, arguments)]))
    assert why in attempt(browser)


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (status(401, body={"error": {"message": "bad key sk-123"}}), "refused the request. (LLM_REFUSED: HTTP 401)"),
        (status(404, body={"error": {"message": "no model other/large"}}), "(LLM_REFUSED: HTTP 404)"),
        (status(400, body={"error": {"code": "context_length_exceeded", "message": "x"}}), "no longer fits"),
        (garbage(), "could not be understood"),
        (web_page(), "could not be understood"),
        (cut_after(3), "one two three"),
        (cut_after(3), "broke off"),
    ],
)
def test_a_failure_of_the_model_is_a_clear_message(
    browser: httpx.Client, model: ModelServer, reply: Any, told: str
) -> None:
    before = counts()
    model.always(reply)
    body = attempt(browser)
    assert told in body
    assert "sk-123" not in body
    assert {name: n for name, n in counts().items() if name != "Breaker"} == {
        name: n for name, n in before.items() if name != "Breaker"
    }


def test_it_ends_in_time_whatever_the_model_does(
    browser: httpx.Client, model: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(playground, "SECONDS", 1.0)
    model.reply(hang_before_head())
    assert "LLM_TIMEOUT" in attempt(browser)
    until(lambda: model.connections_closed_by_client == len(model.requests))


def test_it_ends_in_size_and_keeps_what_was_heard(browser: httpx.Client, model: ModelServer, settings: Any) -> None:
    settings.MAX_ANSWER_BYTES = 50
    model.reply(text("x" * 40, "y" * 40))
    body = attempt(browser)
    assert "ANSWER_TOO_LONG" in body
    assert "x" * 40 in body


def test_a_trial_hears_of_an_open_breaker_and_never_opens_it(
    browser: httpx.Client, client: httpx.Client, model: ModelServer, settings: Any
) -> None:
    settings.BREAKER_FAILURES, settings.BREAKER_RESET_SECONDS = 1, 600
    model.reply(cut_after(1))
    attempt(browser)
    assert breakers.state().state == "closed"  # a draft may name a model that nobody has
    model.reply(cut_after(1))
    talk.say(client, "s", "Go", agent_type="coder")
    assert breakers.state().state == "open"
    body = attempt(browser)
    assert "cannot be reached right now" in body
    assert len(model.requests) == 2


def test_so_many_and_no_more(browser: httpx.Client, model: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(playground, "_places", threading.BoundedSemaphore(1))
    gate = Gate()
    model.reply(text("Slow ", gate, "answer"))
    with httpx.Client(base_url=browser.base_url, cookies=browser.cookies, headers=browser.headers, timeout=60) as other:
        found: list[str] = []
        slow = threading.Thread(target=lambda: found.append(attempt(other)))
        slow.start()
        until(lambda: model.requests)
        assert "being tried already" in attempt(browser)
        gate.open()
        slow.join(60)
    assert "Slow answer" in found[0]
    assert "Hello world" in attempt(browser)


@pytest.mark.parametrize("payload", HOSTILE.values(), ids=HOSTILE)
def test_hostile_answers_are_text(browser: httpx.Client, model: ModelServer, payload: str) -> None:
    model.reply(tool_calls([("a", payload[:60], json.dumps({payload: payload}))], text=payload))
    body = json.loads(browser.post(TRY, data=DRAFT).text.splitlines()[-1])["html"]
    assert Page(body).dangers == []
    assert shown.visible(payload) in html.unescape(body)


def test_the_answer_is_shown_while_it_is_written(browser: httpx.Client, model: ModelServer) -> None:
    gate = Gate()
    model.reply(text("Early ", gate, "late"))
    with browser.stream("POST", TRY, data=DRAFT) as answer:
        lines = answer.iter_lines()
        assert json.loads(next(lines)) == {"text": "Early "}
        gate.open()
        assert json.loads(next(lines)) == {"text": "late"}
        assert "Early late" in json.loads(next(lines))["html"]


def test_who_stops_listening_stops_the_request(browser: httpx.Client, model: ModelServer) -> None:
    model.reply(text("Early ", Gate(), "never"))
    with browser.stream("POST", TRY, data=DRAFT) as answer:
        assert json.loads(next(answer.iter_lines())) == {"text": "Early "}
    until(lambda: model.connections_closed_by_client == 1)


def test_without_a_script_the_whole_page_comes_with_the_answer(browser: httpx.Client, model: ModelServer) -> None:
    answer = browser.post(TRY, data=DRAFT, headers={"accept": "text/html"})
    assert "Hello world" in answer.text
    assert "You are a draft." in answer.text
    assert "</html>" in answer.text
