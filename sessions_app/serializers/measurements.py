"""The answers of /events/*."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from sessions_app import metrics
from sessions_app.models import Event, LLMRequest
from sessions_app.serializers.inbound import AuditQuery
from sessions_app.serializers.sessions import wire_time


class ModelRequest(serializers.ModelSerializer[LLMRequest]):
    timestamp = serializers.DateTimeField(source="started_at")
    error = serializers.SerializerMethodField()

    class Meta:
        model = LLMRequest
        fields = (
            "timestamp", "model", "duration_ms", "prompt_tokens", "completion_tokens", "total_tokens",
            "has_tool_calls", "success", "error",
        )  # fmt: skip

    def get_error(self, request: LLMRequest) -> str | None:
        return request.error or None


class SessionMetrics(serializers.Serializer[Any]):
    """From what metrics.of_session returns."""

    session_id = serializers.CharField()
    total_requests = serializers.IntegerField()
    successful_requests = serializers.IntegerField()
    failed_requests = serializers.IntegerField()
    total_duration_ms = serializers.IntegerField()
    average_duration_ms = serializers.FloatField()
    total_prompt_tokens = serializers.IntegerField()
    total_completion_tokens = serializers.IntegerField()
    total_tokens = serializers.IntegerField()
    average_tokens_per_request = serializers.FloatField()
    requests_with_tools = serializers.IntegerField()
    requests = ModelRequest(many=True)


class NoMetrics(serializers.Serializer[Any]):
    error = serializers.CharField()


class MeasuredSessions(serializers.Serializer[Any]):
    sessions = serializers.ListField(child=serializers.CharField())
    count = serializers.IntegerField()


class Work(serializers.Serializer[Any]):
    count = serializers.IntegerField()
    total_duration_ms = serializers.IntegerField()
    success_count = serializers.IntegerField()
    failure_count = serializers.IntegerField()


class Executions(serializers.Serializer[Any]):
    requested = serializers.IntegerField()
    completed = serializers.IntegerField()
    failed = serializers.IntegerField()
    requires_approval = serializers.IntegerField()


class Decisions(serializers.Serializer[Any]):
    APPROVE = serializers.IntegerField()
    EDIT = serializers.IntegerField()
    REJECT = serializers.IntegerField()


class MetricsFacts(serializers.Serializer[Any]):
    agent_switches = serializers.DictField(child=serializers.IntegerField(), help_text="a_to_b: times")
    agent_processing = serializers.DictField(child=Work(), help_text="By agent.")
    tool_executions = serializers.DictField(child=Executions(), help_text="By tool.")
    hitl_decisions = serializers.DictField(child=Decisions(), help_text="By tool.")
    errors = serializers.DictField(  # type: ignore[assignment]
        child=serializers.DictField(child=serializers.IntegerField()), help_text="By agent and code."
    )


class Metrics(serializers.Serializer[Any]):
    metrics = MetricsFacts()
    computed = serializers.DictField(
        child=serializers.FloatField(), help_text="<agent>_avg_duration_ms, <tool>_success_rate"
    )
    timestamp = serializers.DateTimeField()


class AuditEntry(serializers.ModelSerializer[Event]):
    """The common fields; each type adds its own, as the examples show."""

    timestamp = serializers.DateTimeField(source="at")
    event_type = serializers.ChoiceField(sorted(metrics.STORED_TYPES))
    session_id = serializers.CharField(source="session.session_id")
    correlation_id = serializers.CharField(allow_null=True)

    class Meta:
        model = Event
        fields = ("timestamp", "event_type", "event_id", "session_id", "correlation_id")

    def to_representation(self, instance: Event) -> dict[str, Any]:
        return {
            "timestamp": wire_time(instance.at),
            "event_id": str(instance.event_id),
            "session_id": instance.session.session_id,
            "correlation_id": instance.correlation_id or None,
            **metrics.audit_entry(instance),
        }


class AuditLog(serializers.Serializer[Any]):
    audit_log = AuditEntry(many=True)
    count = serializers.IntegerField()
    filters = AuditQuery()


class Stats(serializers.Serializer[Any]):
    total_published = serializers.IntegerField()
    successful_handlers = serializers.IntegerField()
    failed_handlers = serializers.IntegerField()
    last_event_time = serializers.DateTimeField(allow_null=True)
    success_rate = serializers.FloatField()
