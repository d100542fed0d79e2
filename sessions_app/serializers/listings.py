"""The rows of the lists under /api/v1."""

from __future__ import annotations

from rest_framework import serializers

from sessions_app.models import Approval, Event, Message, Run, ToolCall
from sessions_app.serializers.sessions import WireToolCall


class MessageItem(serializers.ModelSerializer[Message]):
    id = serializers.CharField()
    tool_calls = WireToolCall(many=True, allow_null=True)

    class Meta:
        model = Message
        fields = (
            "id", "number", "role", "content", "name", "tool_call_id", "tool_calls", "agent", "state", "run",
            "created_at",
        )  # fmt: skip


class RunItem(serializers.ModelSerializer[Run]):
    session_id = serializers.CharField(source="session.session_id")

    class Meta:
        model = Run
        fields = (
            "id", "session_id", "state", "agent", "attempt", "steps", "switches", "mistakes", "error_code",
            "correlation_id", "idempotency_key", "created_at", "started_at", "ended_at",
            "active_seconds", "cancel_requested_at",
        )  # fmt: skip


class ToolCallItem(serializers.ModelSerializer[ToolCall]):
    session_id = serializers.CharField(source="session.session_id")
    tool_name = serializers.CharField(source="name")
    arguments = serializers.DictField()

    class Meta:
        model = ToolCall
        fields = (
            "call_id", "session_id", "run", "tool_name", "agent", "arguments", "state", "requires_approval",
            "policy_version", "requested_at", "ended_at",
        )  # fmt: skip


class ApprovalItem(serializers.ModelSerializer[Approval]):
    session_id = serializers.CharField(source="session.session_id")
    call_id = serializers.CharField(source="call.call_id")
    tool_name = serializers.CharField(source="call.name")
    arguments = serializers.DictField()

    class Meta:
        model = Approval
        fields = (
            "call_id", "session_id", "tool_name", "state", "reason", "arguments", "arguments_hash", "policy_version",
            "decided_by", "feedback", "created_at", "expires_at", "decided_at",
        )  # fmt: skip


class EventItem(serializers.ModelSerializer[Event]):
    data = serializers.DictField()  # type: ignore[assignment]

    class Meta:
        model = Event
        fields = (
            "seq", "type", "at", "event_id", "run", "message", "correlation_id", "causation_id", "version", "data",
        )  # fmt: skip
