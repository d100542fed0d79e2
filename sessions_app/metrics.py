"""The numbers behind /events/*: queries over stored rows, the same from every process and after every restart."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from django.db.models import Count, FloatField, Max, Q, Sum
from django.db.models.fields.json import KT
from django.db.models.functions import Cast
from django.utils import timezone

from sessions_app import events, owners
from sessions_app.models import DeliveryState, Event, EventDelivery, LLMRequest
from sessions_app.session_ids import is_session_id

# What each type of the audit log is called outside, and what an entry tells beside the common fields: name -> data key.
AUDIT_TYPES: dict[str, tuple[str, dict[str, str]]] = {
    events.AGENT_SWITCHED: (
        "agent_switched",
        {"from_agent": "from_agent", "to_agent": "to_agent", "reason": "reason", "confidence": "confidence"},
    ),
    events.TOOL_APPROVAL_DECIDED: (
        "hitl_decision_made",
        {"tool_name": "tool_name", "call_id": "call_id", "decision": "decision", "who": "who", "feedback": "feedback"},
    ),
    events.TASK_FAILED: ("agent_error", {"agent": "agent", "error_type": "code"}),
    events.TOOL_APPROVAL_REQUIRED: (
        "tool_approval_required",
        {"tool_name": "tool_name", "call_id": "call_id", "reason": "reason", "arguments": "arguments"},
    ),
    events.TOOL_CALL_FAILED: (
        "tool_execution_failed",
        {"tool_name": "tool_name", "call_id": "call_id", "agent": "agent", "error_message": "error"},
    ),
}
STORED_TYPES = {outside: stored for stored, (outside, _) in AUDIT_TYPES.items()}
TOOL_COUNTERS = {
    events.TOOL_CALL_REQUESTED: "requested",
    events.TOOL_CALL_COMPLETED: "completed",
    events.TOOL_CALL_FAILED: "failed",
    events.TOOL_APPROVAL_REQUIRED: "requires_approval",
}
COUNTED_TYPES = (*AUDIT_TYPES, *TOOL_COUNTERS, events.TASK_COMPLETED)
GROUPED_BY = ("from_agent", "to_agent", "agent", "tool_name", "decision", "code")


def overview() -> dict[str, Any]:
    """The answer of /events/metrics, from one statement."""
    metrics: dict[str, Any] = {
        "agent_switches": defaultdict(int),
        "agent_processing": defaultdict(_no_work),
        "tool_executions": defaultdict(lambda: dict.fromkeys(TOOL_COUNTERS.values(), 0)),
        "hitl_decisions": defaultdict(lambda: {"APPROVE": 0, "EDIT": 0, "REJECT": 0}),
        "errors": defaultdict(lambda: defaultdict(int)),
    }
    for group in _groups():
        _count(metrics, group)
    return {"metrics": metrics, "computed": dict(_computed(metrics)), "timestamp": timezone.now()}


def _no_work() -> dict[str, int]:
    return {"count": 0, "total_duration_ms": 0, "success_count": 0, "failure_count": 0}


def _groups() -> Iterator[dict[str, Any]]:
    named = {f"by_{key}": KT(f"data__{key}") for key in GROUPED_BY}
    duration = Sum(Cast(KT("data__duration_ms"), FloatField()))
    counted = owners.visible(events.of_types(Event.objects.all(), COUNTED_TYPES), "session")
    rows = counted.annotate(**named).order_by()
    for row in rows.values("type", *named).annotate(n=Count("id"), ms=duration):
        yield {key.removeprefix("by_"): value or "" for key, value in row.items()}


def _count(metrics: dict[str, Any], group: dict[str, Any]) -> None:
    type_, n = group["type"], group["n"]
    if type_ == events.AGENT_SWITCHED:
        metrics["agent_switches"][f"{group['from_agent']}_to_{group['to_agent']}"] += n
    elif type_ == events.TOOL_APPROVAL_DECIDED:
        metrics["hitl_decisions"][group["tool_name"]][group["decision"].upper()] += n
    elif type_ in TOOL_COUNTERS:
        metrics["tool_executions"][group["tool_name"]][TOOL_COUNTERS[type_]] += n
    else:
        _count_task(metrics, group, failed=type_ == events.TASK_FAILED)


def _count_task(metrics: dict[str, Any], group: dict[str, Any], *, failed: bool) -> None:
    work = metrics["agent_processing"][group["agent"]]
    work["count"] += group["n"]
    work["total_duration_ms"] += round(group["ms"] or 0)
    work["failure_count" if failed else "success_count"] += group["n"]
    if failed:
        metrics["errors"][group["agent"]][group["code"]] += group["n"]


def _computed(metrics: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for agent, work in metrics["agent_processing"].items():
        yield f"{agent}_avg_duration_ms", round(work["total_duration_ms"] / work["count"], 2)
    for tool, done in metrics["tool_executions"].items():
        ended = done["completed"] + done["failed"]
        yield f"{tool}_success_rate", round(done["completed"] / ended, 3) if ended else 0.0


def of_session(session_id: str) -> dict[str, Any] | None:
    """What the agents of one session asked of the model, oldest first; None when nothing yet. Routing is left out."""
    if not is_session_id(session_id):
        return None
    asked = LLMRequest.objects.filter(session__session_id=session_id, purpose=LLMRequest.ANSWER)
    rows = list(owners.visible(asked, "session").order_by("id"))
    return {"session_id": session_id, "requests": rows, **_totals(rows)} if rows else None


def _totals(rows: list[LLMRequest]) -> dict[str, int | float]:
    count, duration = len(rows), sum(row.duration_ms for row in rows)
    tokens = sum(row.total_tokens for row in rows)
    successful = sum(row.success for row in rows)
    return {
        "total_requests": count,
        "successful_requests": successful,
        "failed_requests": count - successful,
        "total_duration_ms": duration,
        "average_duration_ms": round(duration / count, 2),
        "total_prompt_tokens": sum(row.prompt_tokens for row in rows),
        "total_completion_tokens": sum(row.completion_tokens for row in rows),
        "total_tokens": tokens,
        "average_tokens_per_request": round(tokens / count, 2),
        "requests_with_tools": sum(row.has_tool_calls for row in rows),
    }


def audit_log(*, session_id: str | None, event_type: str | None, limit: int) -> list[Event]:
    """The newest `limit` entries, the newest last."""
    stored = list(AUDIT_TYPES) if not event_type else [STORED_TYPES.get(event_type, "")]
    found = events.of_types(Event.objects.all(), stored)
    rows = owners.visible(found, "session").select_related("session").order_by("-id")
    if session_id:
        rows = rows.filter(session__session_id=session_id)
    return list(rows[:limit])[::-1]


def audit_entry(event: Event) -> dict[str, Any]:
    """The fields of an entry beside its time and ids."""
    outside, told = AUDIT_TYPES[event.type]
    return {"event_type": outside, **{name: event.data.get(key) for name, key in told.items()}}


def stats() -> dict[str, Any]:
    """Of the log and its deliveries to handlers; one that will be tried again counts as neither."""
    log = owners.visible(Event.objects.all(), "session")
    totals = log.aggregate(total_published=Count("id"), last_event_time=Max("at"))
    ended = owners.visible(EventDelivery.objects.all(), "event__session").aggregate(
        successful_handlers=Count("id", filter=Q(state=DeliveryState.DELIVERED)),
        failed_handlers=Count("id", filter=Q(state=DeliveryState.DEAD)),
    )
    tried = sum(ended.values())
    return {**totals, **ended, "success_rate": round(ended["successful_handlers"] / tried, 3) if tried else 1.0}
