"""Agents, /events/* and the lists of /api/v1 over REST."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import httpx
import pytest

from sessions_app import services
from tests.flows.rest_answers import got, refused
from tests.sessions_app import told


def test_agents_are_listed_with_their_tools(client: httpx.Client) -> None:
    found = got(client, "/agents")
    agents = {agent["type"]: agent for agent in found["agents"]}
    assert set(agents) == {"orchestrator", "coder", "architect", "debug", "ask"}
    assert found["total"] == 5
    assert set(agents["coder"]) == {"type", "name", "description", "allowed_tools", "has_file_restrictions"}
    assert agents["architect"]["has_file_restrictions"] is True
    assert agents["coder"]["has_file_restrictions"] is False
    assert {"read_file", "write_file", "execute_command"} <= set(agents["coder"]["allowed_tools"])
    assert "apply_diff" not in agents["coder"]["allowed_tools"]


def test_the_current_agent_and_its_history(client: httpx.Client) -> None:
    told.session()
    context = got(client, "/agents/told/current")["context"]
    assert set(context) == {
        "id", "session_id", "current_agent", "switch_count", "switch_history", "last_switch_at", "created_at",
    }  # fmt: skip
    assert (context["current_agent"], context["switch_count"], context["switch_history"]) == ("coder", 1, None)
    (item,) = got(client, "/agents/told/current", include_history="true")["context"]["switch_history"]
    assert datetime.fromisoformat(item.pop("switched_at"))
    assert item == {"from_agent": "orchestrator", "to_agent": "coder", "reason": "code", "confidence": "high"}


def test_a_session_is_given_to_another_agent(client: httpx.Client) -> None:
    services.create_session("mine")
    answer = client.post("/agents/mine/switch", json={"target_agent": "code", "reason": "by hand"})
    assert answer.status_code == 200
    context = answer.json()["context"]
    assert (context["current_agent"], context["switch_count"]) == ("coder", 1)
    assert context["switch_history"][0]["reason"] == "by hand"
    assert context["switch_history"][0]["confidence"] is None
    assert got(client, "/sessions/mine/history")["current_agent"] == "coder"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"target_agent": "orchestrator", "reason": "same"}, 400),
        ({"target_agent": "nobody", "reason": "unknown"}, 400),
        ({"target_agent": "universal", "reason": "not in this mode"}, 400),
        ({"target_agent": "", "reason": "empty"}, 400),
        ({"target_agent": "coder"}, 422),
        ({"reason": "no target"}, 422),
        ({"target_agent": 5, "reason": "x"}, 422),
        ({"target_agent": "coder", "reason": None}, 422),
        ({"target_agent": "coder", "reason": "x", "confidence": 0.9}, 422),
        ({"target_agent": "coder", "reason": "x", "confidence": "x" * 33}, 422),
        ({}, 422),
    ],
)
def test_wrong_switches_are_refused_and_change_nothing(client: httpx.Client, body: dict[str, Any], status: int) -> None:
    session = services.create_session("mine")
    refused(client.post("/agents/mine/switch", json=body), status)
    assert told.switches(session) == []


def test_switching_an_unknown_session_is_404(client: httpx.Client) -> None:
    body = {"target_agent": "coder", "reason": "x"}
    assert refused(client.post("/agents/nobody/switch", json=body), 404) == "Session nobody not found"


def test_metrics_are_the_stored_ones(client: httpx.Client) -> None:
    told.session()
    found = got(client, "/events/metrics")
    assert set(found) == {"metrics", "computed", "timestamp"}
    assert found["metrics"]["agent_switches"] == {"orchestrator_to_coder": 1}
    assert found["metrics"]["hitl_decisions"] == {"write_file": {"APPROVE": 2, "EDIT": 1, "REJECT": 1}}
    assert found["computed"]["coder_avg_duration_ms"] == 200.0


def test_session_metrics_are_of_its_answers(client: httpx.Client) -> None:
    told.session()
    found = got(client, "/events/metrics/session/told")
    assert (found["session_id"], found["total_requests"], found["requests_with_tools"]) == ("told", 2, 1)
    assert set(found["requests"][0]) == {
        "timestamp", "model", "duration_ms", "prompt_tokens", "completion_tokens", "total_tokens", "has_tool_calls",
        "success", "error",
    }  # fmt: skip
    assert [request["error"] for request in found["requests"]] == [None, "LLM_CUT"]
    assert got(client, "/events/metrics/sessions") == {"sessions": ["told"], "count": 1}


def test_no_metrics_yet_is_404_with_an_error(client: httpx.Client) -> None:
    services.create_session("silent")
    for name in ("silent", "nobody"):
        answer = client.get(f"/events/metrics/session/{name}")
        assert (answer.status_code, answer.json()) == (404, {"error": f"No metrics found for session {name}"})


def test_the_audit_log_keeps_its_filters(client: httpx.Client) -> None:
    told.session()
    found = got(client, "/events/audit-log")
    assert found["filters"] == {"session_id": None, "event_type": None, "limit": 100}
    assert found["count"] == len(found["audit_log"]) == 8
    switch = found["audit_log"][0]
    common = {"timestamp", "event_type", "event_id", "session_id", "correlation_id"}
    assert set(switch) == common | {"from_agent", "to_agent", "reason", "confidence"}
    assert (switch["session_id"], switch["correlation_id"]) == ("told", "corr-1")
    narrowed = got(client, "/events/audit-log", session_id="told", event_type="hitl_decision_made", limit=2)
    assert narrowed["filters"] == {"session_id": "told", "event_type": "hitl_decision_made", "limit": 2}
    assert [entry["decision"] for entry in narrowed["audit_log"]] == ["reject", "approve"]
    assert got(client, "/events/audit-log", event_type="\x00")["audit_log"] == []


@pytest.mark.parametrize(("limit", "status"), [("0", 400), ("1001", 400), ("x", 422)])
def test_the_audit_logs_limit_is_checked(client: httpx.Client, limit: str, status: int) -> None:
    refused(client.get("/events/audit-log", params={"limit": limit}), status)


def test_stats_of_the_log(client: httpx.Client) -> None:
    assert got(client, "/events/stats")["last_event_time"] is None
    services.create_session("mine")
    found = got(client, "/events/stats")
    assert (found["total_published"], found["success_rate"]) == (2, 1.0)
    assert datetime.fromisoformat(found["last_event_time"]).tzinfo


def test_v1_pages_and_filters(client: httpx.Client) -> None:
    run = told.waiting_run(told.session())
    services.create_session("other")
    messages = got(client, "/api/v1/sessions/told/messages", limit=2, offset=1)
    assert ([row["number"] for row in messages["results"]], messages["total"]) == ([2, 3], 4)
    assert got(client, "/api/v1/sessions/told/messages", role="user")["total"] == 1
    events = got(client, "/api/v1/sessions/told/events", after=2, limit=3)
    assert [row["seq"] for row in events["results"]] == [3, 4, 5]
    assert got(client, "/api/v1/sessions/told/events", type="SessionCreated")["total"] == 1
    assert [row["id"] for row in got(client, "/api/v1/runs", session_id="told", state="waiting")["results"]] == [run.pk]
    assert got(client, "/api/v1/runs", state="failed")["total"] == 0
    (call,) = got(client, "/api/v1/tool-calls", session_id="told", state="pending")["results"]
    assert (call["tool_name"], call["run"], call["session_id"]) == ("write_file", run.pk, "told")
    (approval,) = got(client, "/api/v1/approvals", state="pending")["results"]
    assert (approval["call_id"], approval["arguments"]["path"]) == ("call_1", "a.txt")
    assert got(client, "/api/v1/sessions", search="TOL")["total"] == 1
    assert got(client, "/api/v1/sessions", current_agent="coder")["sessions"][0]["id"] == "told"


@pytest.mark.parametrize(
    "path",
    [
        "runs?state=sleeping",
        "runs?created_after=yesterday",
        "tool-calls?run=x",
        "approvals?limit=x",
        "runs?agent=%00",
        "sessions?search=%00",
        "sessions/told/events?after=x",
    ],
)
def test_v1_refuses_wrong_filters(client: httpx.Client, path: str) -> None:
    told.session()
    fields = refused(client.get(f"/api/v1/{path}"), 422)
    assert fields[0]["loc"][0] == "query"


@pytest.mark.parametrize("number", ["9" * 40, "-" + "9" * 40, "1e40", "0.5"])
def test_v1_takes_numbers_of_any_size(client: httpx.Client, number: str) -> None:
    told.session()
    assert client.get("/api/v1/sessions/told/events", params={"after": number}).status_code in (200, 400, 422)
    assert client.get("/api/v1/tool-calls", params={"run": number}).status_code in (200, 400, 422)


def test_v1_cancels_one_run(client: httpx.Client) -> None:
    run = told.waiting_run(told.session())
    assert client.post(f"/api/v1/runs/{run.pk}/cancel").json()["run_id"] == run.pk
    assert client.post(f"/api/v1/runs/{run.pk}/cancel").json()["run_id"] is None
    assert refused(client.post("/api/v1/runs/999999/cancel"), 404) == "Run 999999 not found"
    assert refused(client.get(f"/api/v1/runs/{'9' * 40}"), 404)
