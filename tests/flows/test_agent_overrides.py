"""What operators set for an agent, as the model, the client and the records meet it."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from agents_app import agents, definitions
from sessions_app import agent_versions
from sessions_app.errors import StorageUnavailable
from sessions_app.models import AgentVersion, Event, LLMRequest, Message, ToolCall
from tests.model_server import ModelServer, Request, status, strict, text, tool_calls, verdict
from tests.stream_truth import Listener, usable
from tests.waiting import until

OVERRIDES = {
    "prompt": "You are terse.", "model": "other/large", "temperature": 0.25, "tools": ["read_file", "write_file"],
    "file_rules": ["docs/**"],
}  # fmt: skip


@pytest.fixture
def me(client: httpx.Client) -> Listener:
    return Listener(client)


def override(agent: str, told: dict[str, Any]) -> AgentVersion:
    made = agent_versions.save(agent, told, who="anna")
    assert made is not None
    definitions.refresh()
    return made


def names(request: Request) -> list[str]:
    return [tool["function"]["name"] for tool in request.body.get("tools", ())]


def test_the_model_is_asked_as_the_override_says_and_the_record_names_the_version(
    me: Listener, model: ModelServer
) -> None:
    me.say("hi", agent_type="coder")
    made = override("coder", OVERRIDES)
    me.say("again")
    before, after = model.requests
    assert before.body["model"] == "scripted"
    assert "temperature" not in before.body
    assert (after.body["model"], after.body["temperature"]) == ("other/large", 0.25)
    assert after.body["messages"][0] == {"role": "system", "content": "You are terse."}
    assert strict(after.body["messages"]) == []
    assert names(after) == ["read_file", "write_file", "attempt_completion", "ask_followup_question"]
    assert list(LLMRequest.objects.order_by("pk").values_list("agent_version", flat=True)) == [None, made.number]
    override("coder", {})
    me.say("and again")
    assert model.requests[-1].body["messages"][0]["content"] == agents.defined("coder").prompt
    assert LLMRequest.objects.latest("pk").agent_version == made.number + 1


def test_a_change_made_elsewhere_reaches_this_process_by_itself(me: Listener, model: ModelServer) -> None:
    me.say("hi", agent_type="coder")
    agent_versions.save("coder", OVERRIDES, who="anna")  # as another process would: nothing here is told of it
    until(lambda: agents.get("coder").model == "other/large")
    me.say("again")
    assert model.requests[-1].body["model"] == "other/large"
    agent_versions.save("coder", {}, who="anna")
    until(lambda: agents.get("coder").version == 2)
    me.say("and again")
    assert model.requests[-1].body["model"] == "scripted"


def test_the_first_turn_of_a_process_already_knows(
    me: Listener, model: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent_versions.save("coder", OVERRIDES, who="anna")
    monkeypatch.setattr(definitions, "_seen", None)  # as a process that has just begun
    me.say("hi", agent_type="coder")
    assert model.requests[-1].body["model"] == "other/large"


def test_a_tool_that_was_taken_away_is_refused_to_the_model(me: Listener, model: ModelServer) -> None:
    override("coder", OVERRIDES)
    model.reply(tool_calls([("c", "execute_command", '{"command": "ls"}')]))
    heard = me.say("run it", agent_type="coder")
    assert heard.calls == []
    told = model.requests[-1].body["messages"][-1]["content"]
    assert "not yours to use" in told
    assert ToolCall.objects.get().state == "refused"
    usable(me, model)


def test_file_rules_hold_for_what_is_written_and_for_what_a_person_edits(me: Listener, model: ModelServer) -> None:
    override("coder", OVERRIDES)
    model.reply(
        tool_calls([("a", "write_file", '{"path": "src/a.py", "content": ""}')]),
        tool_calls([("b", "write_file", '{"path": "docs/a.md", "content": ""}')]),
    )
    heard = me.say("write", agent_type="coder")
    assert [call["call_id"] for call in heard.calls] == ["b"]
    assert "you may only write docs/**" in model.requests[-1].body["messages"][-1]["content"]
    edited = me.decide("b", "edit", modified_arguments={"path": "src/b.py", "content": ""})
    assert edited.error is not None
    assert "docs/**" in edited.error["content"]


def test_a_tool_that_was_given_is_offered_and_may_be_called(me: Listener, model: ModelServer) -> None:
    override("ask", {"tools": ["calculator", "execute_command"]})
    model.reply(tool_calls([("c", "calculator", '{"expression": "6*7"}')]))
    me.say("count", agent_type="ask")
    assert names(model.requests[0])[:2] == ["calculator", "execute_command"]
    assert "switch_mode" in names(model.requests[0])
    assert model.requests[-1].body["messages"][-1]["content"] == "42"


def test_the_orchestrators_model_and_temperature_are_those_of_routing(me: Listener, model: ModelServer) -> None:
    made = override("orchestrator", {"model": "small", "temperature": 0.0, "prompt": "Not for verdicts."})
    model.route(verdict("debug"))
    me.say("it crashes")
    routing, answer = model.requests
    assert (routing.body["model"], routing.body["temperature"]) == ("small", 0.0)
    assert "tools" not in routing.body
    assert "Not for verdicts." not in str(routing.body["messages"])
    assert answer.body["model"] == "scripted"
    assert LLMRequest.objects.get(purpose="routing").agent_version == made.number


def test_the_fallback_models_follow_the_overridden_one(me: Listener, model: ModelServer, settings: Any) -> None:
    settings.LLM_FALLBACK_MODELS = ["spare"]
    override("coder", {"model": "other/large"})
    model.reply(
        status(404, body={"error": {"message": "no such model", "code": "model_not_found"}}), text("from spare")
    )
    heard = me.say("hi", agent_type="coder")
    assert [request.body["model"] for request in model.requests] == ["other/large", "spare"]
    assert heard.tokens == "from spare"


def test_what_no_longer_fits_is_left_out_and_the_turn_goes_on(
    me: Listener, model: ModelServer, caplog: pytest.LogCaptureFixture
) -> None:
    AgentVersion.objects.create(agent="coder", number=1, overrides={"tools": ["read_file", "gone"], "prompt": 5})
    AgentVersion.objects.create(agent="vanished", number=2, overrides={"prompt": "x"})
    definitions.refresh()
    assert me.say("hi", agent_type="coder").tokens == "Hello world"
    assert names(model.requests[0])[0] == "read_file"
    assert model.requests[0].body["messages"][0]["content"] == agents.defined("coder").prompt
    assert "There is no tool gone" in caplog.text
    assert [line.split(":")[0] for line in definitions.misfits()] == [
        "Agent 'coder', version 1, tools", "Agent 'coder', version 1, prompt",
        "Agent 'vanished' of version 2 is not in the code.",
    ]  # fmt: skip


def test_the_agents_list_shows_what_applies(client: httpx.Client) -> None:
    agent_versions.save("coder", OVERRIDES, who="anna")
    told = {agent["type"]: agent for agent in client.get("/agents").json()["agents"]}
    assert told["coder"]["allowed_tools"] == ["read_file", "write_file", "attempt_completion", "ask_followup_question"]
    assert told["coder"]["has_file_restrictions"] is True
    assert "prompt" not in told["coder"]


@pytest.mark.django_db
def test_while_the_storage_is_away_what_was_read_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    class Away:
        @staticmethod
        async def read(*_: Any) -> None:
            raise StorageUnavailable

    override("coder", OVERRIDES)
    monkeypatch.setattr(definitions, "database", Away)
    asyncio.run(definitions.tick())
    assert agents.get("coder").temperature == 0.25
    monkeypatch.setattr(definitions, "_seen", None)
    with pytest.raises(StorageUnavailable):
        asyncio.run(definitions.loaded())


def test_nothing_of_a_version_reaches_clients_or_the_log(me: Listener, model: ModelServer) -> None:
    override("coder", {"prompt": "The secret recipe"})
    heard = me.say("hi", agent_type="coder")
    assert "recipe" not in str(heard.frames)
    assert not Event.objects.filter(data__icontains="recipe").exists()
    assert not Message.objects.filter(content__contains="recipe").exists()
