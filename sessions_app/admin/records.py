"""The rows behind the sessions: runs, messages, tool calls, approvals, switches, model requests, events."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models.functions import Left
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from sessions_app.admin import columns, filters, shown, timeline
from sessions_app.admin.columns import badge, link, pill, text
from sessions_app.admin.stored import StoredRows
from sessions_app.models import (
    AgentSwitch,
    Approval,
    AuditEntry,
    Event,
    LLMRequest,
    Message,
    Run,
    ToolCall,
)


@admin.register(Run)
class RunAdmin(StoredRows):
    list_display = (
        "__str__", link(Run, "session"), pill(Run, "state"), badge(Run), "steps", text(Run, "error_code"), "created_at",
        "took",
    )  # fmt: skip
    list_filter = ("state", filters.ByAgent, "created_at")
    search_fields = ("session__session_id", "correlation_id", "error_code")
    list_select_related = ("session",)
    long_fields = ("request",)

    @admin.display(description=_("duration"))
    def took(self, run: Run) -> str:
        return shown.duration((run.ended_at - run.created_at).total_seconds()) if run.ended_at else "—"


@admin.register(Message)
class MessageAdmin(StoredRows):
    list_display = (
        "number", link(Message, "session"), pill(Message, "role"), "beginning", badge(Message), pill(Message, "state"),
        "created_at",
    )  # fmt: skip
    list_filter = ("role", "state")
    search_fields = ("session__session_id", "content")
    list_select_related = ("session",)
    long_fields = ("content", "reasoning", "tool_calls")

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).annotate(beginning=Left("content", columns.LINE))

    @admin.display(description=_("content"))
    def beginning(self, message: Any) -> str:
        return shown.visible(message.beginning) or "—"


@admin.register(ToolCall)
class ToolCallAdmin(StoredRows):
    list_display = (
        text(ToolCall, "name"), link(ToolCall, "session"), pill(ToolCall, "state"), badge(ToolCall),
        "requires_approval", text(ToolCall, "call_id"), "requested_at", "ended_at",
    )  # fmt: skip
    list_filter = ("state", "requires_approval", filters.ByAgent, "requested_at")
    search_fields = ("session__session_id", "call_id", "name")
    list_select_related = ("session",)
    long_fields = ("arguments", "late_results")


@admin.register(Approval)
class ApprovalAdmin(StoredRows):
    list_display = (
        "tool", link(Approval, "session"), pill(Approval, "state"), text(Approval, "reason"),
        text(Approval, "decided_by"), text(Approval, "feedback"), "policy_version", "created_at", "expires_at",
        "decided_at",
    )  # fmt: skip
    list_filter = ("state", "created_at")
    search_fields = ("session__session_id", "call__call_id", "call__name", "decided_by")
    list_select_related = ("session", "call")
    long_fields = ("arguments", "call__arguments", "call__late_results")

    @admin.display(description=_("tool"))
    def tool(self, approval: Approval) -> str:
        return shown.visible(approval.call.name)


@admin.register(AgentSwitch)
class AgentSwitchAdmin(StoredRows):
    list_display = (
        "switched_at", link(AgentSwitch, "session"), badge(AgentSwitch, "from_agent"), badge(AgentSwitch, "to_agent"),
        text(AgentSwitch, "confidence"), text(AgentSwitch, "reason"),
    )  # fmt: skip
    list_filter = ("switched_at",)
    search_fields = ("session__session_id", "reason", "from_agent", "to_agent")
    list_select_related = ("session",)


@admin.register(LLMRequest)
class LLMRequestAdmin(StoredRows):
    list_display = (
        "started_at", link(LLMRequest, "session"), pill(LLMRequest, "purpose"), badge(LLMRequest),
        "agent_version", text(LLMRequest, "model"), "duration_ms", "first_token_ms", "total_tokens", "success",
        text(LLMRequest, "error"),
    )  # fmt: skip
    list_filter = ("success", "purpose", filters.ByAgent, "started_at")
    search_fields = ("session__session_id", "model", "error")
    list_select_related = ("session",)


@admin.register(Event)
class EventAdmin(StoredRows):
    list_display = ("seq", link(Event, "session"), "happened", "told", "at")
    list_filter = (filters.OfType,)
    search_fields = ("session__session_id", "correlation_id")
    list_select_related = ("session",)

    @admin.display(description=_("type"))
    def happened(self, event: Event) -> Any:
        return columns.mark(*timeline.words(event.type))

    @admin.display(description=_("data"))
    def told(self, event: Event) -> str:
        return timeline.detail(event.data) or "—"


@admin.register(AuditEntry)
class AuditEntryAdmin(StoredRows):
    list_display = (
        "at", text(AuditEntry, "who"), text(AuditEntry, "action"), text(AuditEntry, "subject"),
        link(AuditEntry, "session"), "number", text(AuditEntry, "before"), text(AuditEntry, "after"),
    )  # fmt: skip
    list_filter = ("action", "at")
    search_fields = ("who", "action", "subject", "session__session_id", "correlation_id")

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).select_related("session")  # which may be gone, on every page
