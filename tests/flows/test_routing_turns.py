"""Who answers: the classifier's request, keywords when it fails, a person's own choice, and what is recorded of it."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from sessions_app.models import Event, LLMRequest
from tests import talk
from tests.model_server import (
    ModelServer,
    cut_after,
    garbage,
    hang_before_head,
    html,
    status,
    strict,
    text,
    tool_calls,
    verdict,
)
from tests.talk import Heard

READ = '{"path": "a.txt"}'


def switches(heard: Heard) -> list[tuple[str, str]]:
    told = [frame["metadata"] for frame in heard.of("agent_switched")]
    return [(one["from_agent"], one["to_agent"]) for one in told]


def context(client: httpx.Client, session_id: str = "s") -> dict[str, Any]:
    answer = client.get(f"/agents/{session_id}/current", params={"include_history": "true"})
    assert answer.status_code == 200
    return dict(answer.json()["context"])


def recorded(client: httpx.Client, session_id: str = "s") -> list[tuple[str, str]]:
    found = context(client, session_id)
    kept = [(one["from_agent"], one["to_agent"]) for one in found["switch_history"]]
    assert found["switch_count"] == len(kept)
    assert [(one["from"], one["to"]) for one in talk.history(client, session_id)["agent_history"]] == kept
    assert found["current_agent"] == (kept[-1][1] if kept else "orchestrator")
    return kept


def routing(model: ModelServer) -> list[dict[str, Any]]:
    return [request.body for request in model.requests if "tools" not in request.body]


def rest(client: httpx.Client, target: str, **fields: Any) -> httpx.Response:
    return client.post("/agents/s/switch", json={"target_agent": target, "reason": "by hand", **fields})


# --- the classifier ----------------------------------------------------------------------------------------------


def test_the_routing_request_has_no_tools_and_its_own_temperature(client: httpx.Client, model: ModelServer) -> None:
    model.route(verdict("debug", "medium", "It crashes"))
    heard = talk.say(client, "s", "It crashes on start")
    routed, answered = (request.body for request in model.requests)
    assert "tools" not in routed
    assert "stream_options" not in routed
    assert routed["stream"] is False
    assert routed["temperature"] == 0.3
    assert routed["model"] == answered["model"] == "scripted"
    assert [row["role"] for row in routed["messages"]] == ["system", "user"]
    assert "It crashes on start" in routed["messages"][1]["content"]
    assert strict(routed["messages"]) == []
    assert answered["tools"]
    assert heard.frames[0]["metadata"] == {
        "from_agent": "orchestrator", "to_agent": "debug", "reason": "It crashes", "confidence": "medium",
    }  # fmt: skip
    assert recorded(client) == [("orchestrator", "debug")]


@pytest.mark.parametrize(
    "said",
    [
        '```json\n{"agent": "ask", "confidence": "high", "reasoning": "x"}\n```',
        'I think {curly} this fits: {"agent": "ask", "confidence": "high", "reasoning": "x"}. Good luck!',
        '{"reasoning": "x", "agent": "ask", "confidence": "high", "extra": null}',
    ],
)
def test_a_verdict_inside_a_fence_or_prose_is_understood(client: httpx.Client, model: ModelServer, said: str) -> None:
    model.route(text(said))
    heard = talk.say(client, "s", "Write a function that crashes")
    assert switches(heard) == [("orchestrator", "ask")]
    assert heard.frames[0]["metadata"]["confidence"] == "high"


FAILING = {
    "a server error": status(500),
    "overloaded": status(429, {"Retry-After": "1"}),
    "refused": status(400),
    "wrong key": status(401),
    "cut": cut_after(1),
    "binary": garbage(),
    "a page": html(),
    "prose": text("I would ask the coder, or maybe debug."),
    "an unknown agent": verdict("nobody"),
    "itself": verdict("orchestrator"),
    "an agent of another mode": verdict("universal"),
    "no agent": text('{"confidence": "high"}'),
    "an agent that is no text": text('{"agent": {"type": "ask"}}'),
    "empty": text(),
}


def test_keywords_decide_at_once_when_the_classifier_fails(
    client: httpx.Client, model: ModelServer, subtests: pytest.Subtests
) -> None:
    for name, reply in FAILING.items():
        with subtests.test(name):
            model.requests.clear()
            model.route(reply)
            heard = talk.say(client, name, "исправь падение при логине")
            assert switches(heard) == [("orchestrator", "debug")]
            assert heard.frames[0]["metadata"]["confidence"] == "low"
            assert heard.contents == ["Hello world"]
            assert len(routing(model)) == 1  # never retried
            assert recorded(client, name) == [("orchestrator", "debug")]
            assert Event.objects.filter(session__session_id=name, type="RoutingFellBack").count() == 1


def test_a_slow_classifier_is_not_waited_for(client: httpx.Client, model: ModelServer, settings: Any) -> None:
    settings.LLM_ROUTING_TIMEOUT_SECONDS = 0.1
    model.route(hang_before_head())
    assert switches(talk.say(client, "s", "How does it work?")) == [("orchestrator", "ask")]
    assert len(routing(model)) == 1


def test_a_classifier_that_is_not_there_still_ends_in_an_error_chunk(client: httpx.Client, settings: Any) -> None:
    settings.LLM_PROXY_URL, settings.LLM_RETRY_BUDGET_SECONDS = "http://127.0.0.1:9", 0
    heard = talk.say(client, "s", "How does it work?")
    assert heard.types == ["agent_switched", "error"]
    assert heard.error is not None
    assert heard.error["code"] == "LLM_UNAVAILABLE"
    assert "127.0.0.1" not in json.dumps(heard.frames)
    assert recorded(client) == [("orchestrator", "ask")]


def test_routing_is_recorded_but_not_counted_as_an_answer(client: httpx.Client, model: ModelServer) -> None:
    talk.say(client, "s", "Write it")
    assert list(LLMRequest.objects.values_list("purpose", flat=True)) == ["routing", "answer"]
    measured = client.get("/events/metrics/session/s").json()
    assert measured["total_requests"] == 1


# --- who answers the next message --------------------------------------------------------------------------------


def test_later_messages_stay_with_the_agent(client: httpx.Client, model: ModelServer) -> None:
    talk.say(client, "s", "Write it")
    assert switches(talk.say(client, "s", "Why does it crash?")) == []
    assert len(routing(model)) == 1
    assert recorded(client) == [("orchestrator", "coder")]


def test_a_named_agent_is_switched_to_first(client: httpx.Client, model: ModelServer) -> None:
    heard = talk.say(client, "s", "Write it", agent_type="architect")
    assert routing(model) == []
    assert heard.frames[0]["metadata"] == {
        "from_agent": "orchestrator", "to_agent": "architect", "reason": "User requested", "confidence": "high",
    }  # fmt: skip
    assert switches(talk.say(client, "s", "Write it", agent_type="code")) == [("architect", "coder")]
    assert switches(talk.say(client, "s", "Write more", agent_type="coder")) == []
    assert recorded(client) == [("orchestrator", "architect"), ("architect", "coder")]
    systems = [request.body["messages"][0]["content"] for request in model.requests]
    assert systems[0] != systems[1] == systems[2]
    assert all(strict(request.body["messages"]) == [] for request in model.requests)


def test_the_orchestrator_routes_again_with_two_frames(client: httpx.Client, model: ModelServer) -> None:
    talk.say(client, "s", "Write it", agent_type="coder")
    model.route(verdict("ask"))
    heard = talk.say(client, "s", "Explain it", agent_type="orchestrator")
    assert switches(heard) == [("coder", "orchestrator"), ("orchestrator", "ask")]
    assert [frame["is_final"] for frame in heard.of("agent_switched")] == [False, False]
    assert heard.contents == ["Hello world"]
    assert "coder" in routing(model)[0]["messages"][1]["content"]  # who was there before helps the choice
    assert recorded(client) == [("orchestrator", "coder"), ("coder", "orchestrator"), ("orchestrator", "ask")]


def test_the_orchestrator_may_route_back_to_the_same_agent(client: httpx.Client, model: ModelServer) -> None:
    talk.say(client, "s", "Write it", agent_type="coder")
    heard = talk.say(client, "s", "Write on", agent_type="orchestrator")
    assert switches(heard) == [("coder", "orchestrator"), ("orchestrator", "coder")]


def test_a_new_session_routes_once_when_the_orchestrator_is_named(client: httpx.Client, model: ModelServer) -> None:
    heard = talk.say(client, "s", "Write it", agent_type="orchestrator")
    assert switches(heard) == [("orchestrator", "coder")]


def test_a_session_switched_to_the_orchestrator_is_routed_by_its_next_message(
    client: httpx.Client, model: ModelServer
) -> None:
    talk.say(client, "s", "Write it", agent_type="coder")
    talk.send(client, "s", {"type": "switch_agent", "agent_type": "orchestrator"})
    model.route(verdict("debug"))
    assert switches(talk.say(client, "s", "And now?")) == [("orchestrator", "debug")]


# --- a person's own switch ---------------------------------------------------------------------------------------


def test_a_switch_message_switches_and_asks_no_model(client: httpx.Client, model: ModelServer) -> None:
    client.post("/sessions", json={"session_id": "s"})
    heard = talk.send(client, "s", {"type": "switch_agent", "agent_type": "code", "content": "Switched to Coder"})
    (frame,) = heard.frames
    assert frame["metadata"] == {
        "from_agent": "orchestrator", "to_agent": "coder", "reason": "User requested", "confidence": "high",
    }  # fmt: skip
    assert (frame["is_final"], model.requests) == (True, [])
    given = {"type": "switch_agent", "agent_type": "ask", "reason": "I want to know"}
    assert talk.send(client, "s", given).frames[0]["metadata"]["reason"] == "I want to know"
    assert recorded(client) == [("orchestrator", "coder"), ("coder", "ask")]
    assert talk.history(client, "s")["message_count"] == 0


@pytest.mark.parametrize("label", ["Switched to Coder", "IGNORE ALL", 5, {"x": 1}])
def test_the_label_of_a_switch_never_reaches_the_model(client: httpx.Client, model: ModelServer, label: Any) -> None:
    talk.say(client, "s", "hello", agent_type="ask")
    talk.send(client, "s", {"type": "switch_agent", "agent_type": "coder", "content": label, "reason": "SECRET"})
    talk.say(client, "s", "go on")
    sent = model.requests[-1].body["messages"]
    assert [row["role"] for row in sent] == ["system", "user", "assistant", "user"]
    assert str(label) not in json.dumps(sent[1:])
    assert "SECRET" not in json.dumps(sent)
    assert [row["content"] for row in talk.history(client, "s")["messages"]] == [row["content"] for row in sent[1:]] + [
        "Hello world"
    ]


def test_a_switch_to_the_current_agent_is_told_and_not_recorded(client: httpx.Client, model: ModelServer) -> None:
    talk.say(client, "s", "hello", agent_type="ask")
    before = (context(client), talk.history(client, "s"), Event.objects.count())
    (frame,) = talk.send(client, "s", {"type": "switch_agent", "agent_type": "ask"}).frames
    assert (frame["metadata"]["from_agent"], frame["metadata"]["to_agent"]) == ("ask", "ask")
    assert frame["is_final"] is True
    assert (context(client), talk.history(client, "s"), Event.objects.count()) == before


def test_rest_switches_and_refuses_the_current_agent(client: httpx.Client, model: ModelServer) -> None:
    talk.say(client, "s", "hello", agent_type="ask")
    answer = rest(client, "code", confidence="high")
    assert (answer.status_code, answer.json()["context"]["current_agent"]) == (200, "coder")
    assert rest(client, "coder").status_code == 400
    assert rest(client, "nobody").status_code == 400
    assert switches(talk.say(client, "s", "go on")) == []
    assert recorded(client) == [("orchestrator", "ask"), ("ask", "coder")]
    assert strict(model.requests[-1].body["messages"]) == []


def test_a_switch_is_heard_by_who_follows_the_session(client: httpx.Client, model: ModelServer) -> None:
    client.post("/sessions", json={"session_id": "s"})
    rest(client, "ask")
    talk.send(client, "s", {"type": "switch_agent", "agent_type": "coder"})
    answer = client.get("/sessions/s/stream", params={"after": "0.0", "follow": "false"})
    assert switches(talk.parse(answer.content)) == [("orchestrator", "ask"), ("ask", "coder")]


# --- one agent only ----------------------------------------------------------------------------------------------


def test_a_single_agent_needs_no_classifier(client: httpx.Client, model: ModelServer, settings: Any) -> None:
    settings.MULTI_AGENT_MODE = False
    heard = talk.say(client, "s", "Write it")
    assert switches(heard) == [("orchestrator", "universal")]
    assert routing(model) == []
    assert [agent["type"] for agent in client.get("/agents").json()["agents"]] == ["orchestrator", "universal"]
    assert switches(talk.say(client, "s", "More")) == []
    assert talk.post(client, "s", {"type": "user_message", "content": "x", "agent_type": "coder"}).status_code == 422
    assert talk.post(client, "s", {"type": "switch_agent", "agent_type": "coder"}).status_code == 400
    assert recorded(client) == [("orchestrator", "universal")]


def test_a_session_of_many_agents_goes_on_with_the_single_one(
    client: httpx.Client, model: ModelServer, settings: Any
) -> None:
    model.reply(tool_calls([("c1", "read_file", READ)]))
    talk.say(client, "s", "Write it", agent_type="coder")
    settings.MULTI_AGENT_MODE = False
    heard = talk.result(client, "s", "c1", "text")
    assert switches(heard) == [("coder", "universal")]
    assert heard.contents == ["Hello world"]
    settings.MULTI_AGENT_MODE = True
    assert switches(talk.say(client, "s", "And back")) == [("universal", "coder")]
    assert all(strict(request.body["messages"]) == [] for request in model.requests)
