"""The numbers of /events/*, from stored rows."""

from __future__ import annotations

from typing import Any

import pytest

from sessions_app import metrics, services
from sessions_app.models import DeliveryState, Event, EventDelivery
from tests.sessions_app import told

pytestmark = pytest.mark.django_db


def test_overview_counts_everything_that_was_told(django_assert_num_queries: Any) -> None:
    told.session()
    told.session("again")
    with django_assert_num_queries(1):
        found = metrics.overview()
    assert found["metrics"] == {
        "agent_switches": {"orchestrator_to_coder": 2},
        "agent_processing": {
            "coder": {"count": 4, "total_duration_ms": 800, "success_count": 2, "failure_count": 2},
        },
        "tool_executions": {
            "write_file": {"requested": 2, "completed": 2, "failed": 2, "requires_approval": 2},
        },
        "hitl_decisions": {"write_file": {"APPROVE": 4, "EDIT": 2, "REJECT": 2}},
        "errors": {"coder": {"LLM_CUT": 2}},
    }
    assert found["computed"] == {"coder_avg_duration_ms": 200.0, "write_file_success_rate": 0.5}


def test_overview_of_nothing_is_empty() -> None:
    found = metrics.overview()
    assert found["metrics"] == {
        "agent_switches": {},
        "agent_processing": {},
        "tool_executions": {},
        "hitl_decisions": {},
        "errors": {},
    }
    assert found["computed"] == {}


def test_session_metrics_count_answers_and_not_routing() -> None:
    told.session()
    found = metrics.of_session("told")
    assert found is not None
    requests = found.pop("requests")
    assert [row.success for row in requests] == [True, False]
    assert found == {
        "session_id": "told",
        "total_requests": 2,
        "successful_requests": 1,
        "failed_requests": 1,
        "total_duration_ms": 150,
        "average_duration_ms": 75.0,
        "total_prompt_tokens": 20,
        "total_completion_tokens": 10,
        "total_tokens": 30,
        "average_tokens_per_request": 15.0,
        "requests_with_tools": 1,
    }


@pytest.mark.parametrize("name", ["silent", "nobody", "a\x00b", ""])
def test_sessions_that_asked_nothing_have_no_metrics(name: str) -> None:
    services.create_session("silent")
    assert metrics.of_session(name) is None


def test_audit_log_tells_the_critical_events_oldest_first() -> None:
    told.session()
    entries = [metrics.audit_entry(event) for event in metrics.audit_log(session_id=None, event_type=None, limit=100)]
    assert [entry["event_type"] for entry in entries] == [
        "agent_switched",
        "tool_approval_required",
        *["hitl_decision_made"] * 4,
        "tool_execution_failed",
        "agent_error",
    ]
    assert entries[0] == {
        "event_type": "agent_switched",
        "from_agent": "orchestrator",
        "to_agent": "coder",
        "reason": "code",
        "confidence": "high",
    }
    assert entries[1]["arguments"] == {"path": "a.txt"}
    assert (entries[2]["decision"], entries[2]["who"]) == ("approve", "gateway")
    assert entries[-2]["error_message"] == "disk full"
    assert (entries[-1]["agent"], entries[-1]["error_type"]) == ("coder", "LLM_CUT")


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({}, 16),
        ({"session_id": "told"}, 8),
        ({"session_id": "nobody"}, 0),
        ({"event_type": "hitl_decision_made"}, 8),
        ({"event_type": "hitl_decision_made", "session_id": "told"}, 4),
        ({"event_type": "no such type"}, 0),
        ({"event_type": ""}, 16),
        ({"limit": 3}, 3),
    ],
)
def test_audit_log_is_narrowed_by_session_type_and_limit(asked: dict[str, Any], found: int) -> None:
    told.session()
    told.session("again")
    entries = metrics.audit_log(**{"session_id": None, "event_type": None, "limit": 100, **asked})
    assert len(entries) == found
    assert [event.pk for event in entries] == sorted(event.pk for event in entries)
    if found == 3:
        assert entries[-1].session.session_id == "again"


def test_stats_count_deliveries_that_have_ended() -> None:
    told.session()
    events = Event.objects.all()
    states = [DeliveryState.DELIVERED] * 3 + [DeliveryState.DEAD, DeliveryState.DUE, DeliveryState.RUNNING]
    for event, state in zip(events, states, strict=False):
        EventDelivery.objects.create(event=event, handler="log", state=state)
    found = metrics.stats()
    assert (found["successful_handlers"], found["failed_handlers"], found["success_rate"]) == (3, 1, 0.75)


def test_stats_count_the_log() -> None:
    assert metrics.stats()["last_event_time"] is None
    told.session()
    found = metrics.stats()
    assert found["total_published"] == Event.objects.count()
    assert found["last_event_time"] == Event.objects.order_by("-at")[0].at
    assert (found["successful_handlers"], found["failed_handlers"], found["success_rate"]) == (0, 0, 1.0)
