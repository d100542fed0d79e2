"""The agents' pages in a browser: what is typed is set, a draft is tried in place, and its answer is text."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from agents_app import agents
from sessions_app.admin import shown
from sessions_app.models import AgentVersion, Session
from tests.browser.conftest import Operator
from tests.model_server import Gate, ModelServer, status, text, tool_calls
from tests.sessions_app.test_admin_hostile import HOSTILE
from tests.waiting import until

pytestmark = [
    pytest.mark.browser,
    # WhiteNoise hands Django a plain file: on ASGI it is read whole, with a warning, and closed by the collector.
    pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume synchronous iterators"),
    pytest.mark.filterwarnings("ignore:Exception ignored in. <_io.FileIO:pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
]
CODER = "sessions_app/agentversion/of/coder/"


@pytest.fixture(autouse=True)
def _patient() -> None:
    expect.set_options(timeout=20_000)


def test_a_draft_is_tried_then_saved_compared_and_taken_back(operator: Operator, model: ModelServer) -> None:
    page = operator.open(CODER)
    page.fill("#id_prompt", "You are a draft.")
    expect(page.locator("input[name=prompt_set]")).to_be_checked()
    expect(page.locator("input[name=model_set]")).not_to_be_checked()
    page.uncheck("input[name=tools][value=execute_command]")
    model.reply(tool_calls([("a", "read_file", '{"path": "README.md"}')], text="Looking."))
    page.fill("#message", "Go")
    page.press("#message", "Control+Enter")
    expect(page.locator("#result .answer")).to_have_text("Looking.")
    expect(page.locator("#result .call")).to_contain_text("README.md")
    assert model.requests[-1].body["messages"][0]["content"] == "You are a draft."
    assert "execute_command" not in str(model.requests[-1].body["tools"])
    assert not AgentVersion.objects.exists()
    assert not Session.objects.exists()
    page.fill("input[name=note]", "shorter")
    page.click("text=Save as a new version")
    expect(page.locator(".messagelist")).to_contain_text("Version 1 applies now")
    assert agents.get("coder").prompt == "You are a draft."
    page.click("#versions td a")
    expect(page.locator(".difference .added").first).to_contain_text("You are a draft.")
    operator.open(CODER)
    page.click("text=All as in the code")
    expect(page.locator("#versions")).to_contain_text("As in the code")
    assert agents.get("coder").prompt == agents.defined("coder").prompt
    assert operator.complaints == []


def test_an_answer_is_seen_as_it_comes_and_can_be_stopped(operator: Operator, model: ModelServer) -> None:
    page = operator.open(CODER)
    gate = Gate()
    model.reply(text("Half an ", gate, "answer"), status(401), text("Well."))
    page.fill("#message", "Go")
    page.click("#try")
    expect(page.locator("#waiting")).to_be_visible()
    expect(page.locator("#try")).to_be_disabled()
    expect(page.locator("#result .answer")).to_have_text("Half an ")
    page.click("#stop")
    expect(page.locator("#waiting")).to_be_hidden()
    until(lambda: model.connections_closed_by_client == 1)
    page.click("#try")
    expect(page.locator("#result .fault")).to_contain_text("HTTP 401")
    page.click("#try")
    expect(page.locator("#result .answer")).to_have_text("Well.")
    page.check("input[name=temperature_set]")
    page.fill("#id_temperature", "7")
    page.click("#try")
    expect(page.locator("#result .errorlist")).to_contain_text("Temperature")
    assert operator.complaints == []


def test_hostile_answers_and_prompts_are_text(operator: Operator, model: ModelServer) -> None:
    for number, payload in enumerate(HOSTILE.values(), 1):
        AgentVersion.objects.create(agent="coder", number=number, overrides={"prompt": payload}, note=payload)
        page = operator.open(CODER)
        model.reply(text(payload))
        page.fill("#message", payload)
        page.click("#try")
        expect(page.locator("#result .answer")).to_contain_text(shown.visible(payload)[:4])
        assert page.locator("#result .answer > *").count() == 0
        operator.open(f"sessions_app/agentversion/version/{number}/")
    assert operator.complaints == []
