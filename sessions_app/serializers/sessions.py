"""Sessions, their messages, approvals and agents, as the contract shapes them.

`id` of a session is the name its client chose; primary keys stay inside.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from rest_framework import serializers

from sessions_app.models import AgentSwitch, Approval, Message, MessageState, Run, Session


def wire_time(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


class SessionItem(serializers.ModelSerializer[Session]):
    id = serializers.CharField(source="session_id")
    title = serializers.SerializerMethodField()
    description = serializers.SerializerMethodField()

    class Meta:
        model = Session
        fields = (
            "id", "session_id", "title", "description", "message_count", "created_at", "last_activity", "is_active",
            "current_agent",
        )  # fmt: skip

    def get_title(self, session: Session) -> str | None:
        return session.title or None

    def get_description(self, session: Session) -> str | None:
        return session.description or None


class CreatedSession(serializers.ModelSerializer[Session]):
    id = serializers.CharField(source="session_id")

    class Meta:
        model = Session
        fields = ("id", "session_id", "message_count", "created_at", "is_active", "current_agent")


class FunctionCall(serializers.Serializer[Any]):
    name = serializers.CharField()
    arguments = serializers.CharField(help_text="JSON text.")


class WireToolCall(serializers.Serializer[Any]):
    """A call in OpenAI's shape."""

    id = serializers.CharField()
    type = serializers.ChoiceField(["function"])
    function = FunctionCall()


class HistoryMessage(serializers.Serializer[Any]):
    """From a plain row of queries.messages; what is empty is left out."""

    role = serializers.ChoiceField(Message.ROLES)
    content = serializers.CharField(allow_blank=True)
    name = serializers.CharField(required=False)
    tool_call_id = serializers.CharField(required=False)
    tool_calls = WireToolCall(many=True, required=False)
    interrupted = serializers.BooleanField(required=False, help_text="true when the text was cut.")

    def to_representation(self, instance: dict[str, Any]) -> dict[str, Any]:
        message = {"role": instance["role"], "content": instance["content"]}
        message |= {key: instance[key] for key in ("name", "tool_call_id", "tool_calls") if instance[key]}
        return {**message, "interrupted": True} if instance["state"] == MessageState.INTERRUPTED else message


class StoredMessage(serializers.Serializer[Any]):
    """From a plain row of queries.messages; what is empty is null."""

    id = serializers.CharField()
    role = serializers.ChoiceField(Message.ROLES)
    content = serializers.CharField(allow_blank=True)
    name = serializers.CharField(allow_null=True)
    tool_call_id = serializers.CharField(allow_null=True)
    tool_calls = WireToolCall(many=True, allow_null=True)
    created_at = serializers.DateTimeField()
    interrupted = serializers.BooleanField(required=False, help_text="true when the text was cut.")

    def to_representation(self, instance: dict[str, Any]) -> dict[str, Any]:
        message = {"id": str(instance["id"]), "role": instance["role"], "content": instance["content"]}
        message |= {key: instance[key] or None for key in ("name", "tool_call_id", "tool_calls")}
        message["created_at"] = wire_time(instance["created_at"])
        return {**message, "interrupted": True} if instance["state"] == MessageState.INTERRUPTED else message


class SessionFacts(serializers.Serializer[Any]):
    id = serializers.CharField(source="session.session_id")
    title = serializers.SerializerMethodField()
    description = serializers.SerializerMethodField()
    message_count = serializers.IntegerField(source="count")
    messages = StoredMessage(many=True, allow_null=True)
    last_activity = serializers.DateTimeField(source="session.last_activity")
    is_active = serializers.BooleanField(source="session.is_active")
    created_at = serializers.DateTimeField(source="session.created_at")
    duration_seconds = serializers.SerializerMethodField()

    def get_title(self, found: dict[str, Any]) -> str | None:
        return found["session"].title or None

    def get_description(self, found: dict[str, Any]) -> str | None:
        return found["session"].description or None

    def get_duration_seconds(self, found: dict[str, Any]) -> float:
        session: Session = found["session"]
        return (session.last_activity - session.created_at).total_seconds()


class SessionDetails(serializers.Serializer[Any]):
    """From what queries.details returns."""

    session = SessionFacts(source="*")


class HistorySwitch(serializers.Serializer[AgentSwitch]):
    to = serializers.CharField(source="to_agent")
    reason = serializers.CharField()
    timestamp = serializers.DateTimeField(source="switched_at")

    def get_fields(self) -> dict[str, Any]:
        return {"from": serializers.CharField(source="from_agent"), **super().get_fields()}


class History(serializers.Serializer[Any]):
    """From what queries.history returns."""

    session_id = serializers.CharField(source="session.session_id")
    messages = HistoryMessage(many=True)
    message_count = serializers.IntegerField(source="count")
    last_activity = serializers.DateTimeField(source="session.last_activity")
    current_agent = serializers.CharField(source="session.current_agent")
    agent_history = HistorySwitch(source="switches", many=True)


class PendingApproval(serializers.ModelSerializer[Approval]):
    request_id = serializers.CharField(source="call.call_id")
    request_type = serializers.SerializerMethodField()
    subject = serializers.CharField(source="call.name")
    details = serializers.SerializerMethodField()
    call_id = serializers.CharField(source="call.call_id")
    tool_name = serializers.CharField(source="call.name")
    arguments = serializers.DictField()

    class Meta:
        model = Approval
        fields = (
            "request_id", "request_type", "subject", "details", "reason", "created_at", "call_id", "tool_name",
            "arguments",
        )  # fmt: skip

    def get_request_type(self, approval: Approval) -> str:
        return "tool"

    def get_details(self, approval: Approval) -> dict[str, Any]:
        return {"arguments": approval.arguments}


class PendingApprovals(serializers.Serializer[Any]):
    session_id = serializers.CharField()
    pending_approvals = PendingApproval(many=True)
    count = serializers.IntegerField()


class Cancelled(serializers.Serializer[Any]):
    session_id = serializers.CharField()
    run_id = serializers.IntegerField(allow_null=True)
    state = serializers.CharField(help_text="The run's, or idle when nothing runs or waits.")


def cancelled(session_id: str, run: Run | None) -> dict[str, Any]:
    return {"session_id": session_id, "run_id": run.pk if run else None, "state": run.state if run else "idle"}


class SwitchItem(serializers.ModelSerializer[AgentSwitch]):
    confidence = serializers.SerializerMethodField()

    class Meta:
        model = AgentSwitch
        fields = ("from_agent", "to_agent", "reason", "switched_at", "confidence")

    def get_confidence(self, switch: AgentSwitch) -> str | None:
        return switch.confidence or None


class ContextFacts(serializers.Serializer[Any]):
    id = serializers.CharField(source="session.pk")
    session_id = serializers.CharField(source="session.session_id")
    current_agent = serializers.CharField(source="session.current_agent")
    switch_count = serializers.IntegerField(source="session.switch_count")
    switch_history = SwitchItem(source="switches", many=True, allow_null=True)
    last_switch_at = serializers.DateTimeField(source="session.last_switch_at", allow_null=True)
    created_at = serializers.DateTimeField(source="session.created_at")


class AgentContext(serializers.Serializer[Any]):
    """From what queries.agent_context returns."""

    context = ContextFacts(source="*")  # type: ignore[assignment]
