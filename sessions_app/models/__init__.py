"""What is true now, and the one log of how it came about. Imports nothing of ours."""

from sessions_app.models.agents import AgentVersion
from sessions_app.models.audit import AuditEntry, AuditHead
from sessions_app.models.batches import Batch, BatchPart, BatchRefusal, BatchState
from sessions_app.models.breakers import Breaker, BreakerState
from sessions_app.models.keys import APIKey
from sessions_app.models.legacy import LegacyRow, LegacySession
from sessions_app.models.log import OF_EVERY_TURN, DeliveryState, Event, EventDelivery
from sessions_app.models.messages import Message, MessageQuerySet, MessageState
from sessions_app.models.policy import PolicyRule, PolicyVersion, RuleAction
from sessions_app.models.runs import HANDED_OVER, AgentSwitch, LLMRequest, Run, RunState
from sessions_app.models.schedules import Schedule
from sessions_app.models.sessions import ORCHESTRATOR, Session
from sessions_app.models.tallies import Beat, HourlyTally, Tally
from sessions_app.models.toolcalls import OPEN_CALL_STATES, Approval, ApprovalState, ToolCall, ToolCallState
from sessions_app.models.webhooks import Webhook, WebhookAttempt

__all__ = [
    "HANDED_OVER",
    "OF_EVERY_TURN",
    "OPEN_CALL_STATES",
    "ORCHESTRATOR",
    "APIKey",
    "AgentSwitch",
    "AgentVersion",
    "Approval",
    "ApprovalState",
    "AuditEntry",
    "AuditHead",
    "Batch",
    "BatchPart",
    "BatchRefusal",
    "BatchState",
    "Beat",
    "Breaker",
    "BreakerState",
    "DeliveryState",
    "Event",
    "EventDelivery",
    "HourlyTally",
    "LLMRequest",
    "LegacyRow",
    "LegacySession",
    "Message",
    "MessageQuerySet",
    "MessageState",
    "PolicyRule",
    "PolicyVersion",
    "RuleAction",
    "Run",
    "RunState",
    "Schedule",
    "Session",
    "Tally",
    "ToolCall",
    "ToolCallState",
    "Webhook",
    "WebhookAttempt",
]
