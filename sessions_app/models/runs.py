"""A person's request on its way to an answer, and what it did on that way."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from sessions_app.models.sessions import Session

# The owner of a run that is at work by its state and waits for a worker to claim it: no request of it has left.
HANDED_OVER = ""


class RunState(models.TextChoices):
    QUEUED = "queued", _("queued")
    RUNNING = "running", _("running")
    WAITING = "waiting", _("waiting for the client")
    COMPLETED = "completed", _("completed")
    FAILED = "failed", _("failed")
    CANCELLED = "cancelled", _("cancelled")
    INTERRUPTED = "interrupted", _("interrupted")
    SUPERSEDED = "superseded", _("superseded by a new message")


class Run(models.Model):
    """One request of a person until its final answer, across tool calls and approvals."""

    session = models.ForeignKey(Session, models.CASCADE, related_name="runs", verbose_name=_("session"))
    state = models.CharField(_("state"), max_length=16, choices=RunState, default=RunState.QUEUED)
    request = models.JSONField(_("request"), default=dict)
    agent = models.CharField(_("agent"), max_length=32, blank=True)
    attempt = models.PositiveIntegerField(_("attempt"), default=0)
    lease_owner = models.CharField(_("lease owner"), max_length=64, blank=True)
    lease_until = models.DateTimeField(_("lease until"), null=True, blank=True)
    cancel_requested_at = models.DateTimeField(_("cancel requested at"), null=True, blank=True)
    steps = models.PositiveIntegerField(_("steps"), default=0)
    switches = models.PositiveIntegerField(_("switches"), default=0)
    mistakes = models.PositiveIntegerField(_("refused tool calls"), default=0)
    error_code = models.CharField(_("error code"), max_length=64, blank=True)
    stream_mode = models.CharField(_("stream mode"), max_length=16, blank=True)
    caller = models.CharField(_("caller"), max_length=150, blank=True)
    correlation_id = models.CharField(_("correlation id"), max_length=128, blank=True)
    traceparent = models.CharField(_("trace"), max_length=55, blank=True, default="", db_default="", editable=False)
    idempotency_key = models.CharField(  # noqa: DJ001  null: no key, and no clash of empty ones
        _("idempotency key"), max_length=255, null=True, blank=True
    )
    request_hash = models.CharField(_("request hash"), max_length=64, blank=True)
    created_at = models.DateTimeField(_("created at"), default=timezone.now)
    started_at = models.DateTimeField(_("started at"), null=True, blank=True)
    active_since = models.DateTimeField(_("active since"), null=True, blank=True)
    active_seconds = models.FloatField(_("active seconds"), default=0)
    ended_at = models.DateTimeField(_("ended at"), null=True, blank=True)
    counted = models.BooleanField(_("counted"), default=False, db_default=False, editable=False)

    class Meta:
        verbose_name = _("run")
        verbose_name_plural = _("runs")
        ordering = ("-id",)
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["session"],
                condition=Q(state__in=[RunState.RUNNING, RunState.WAITING]),
                name="one_active_run_a_session",
            ),
            models.UniqueConstraint(
                fields=["session", "idempotency_key"],
                condition=Q(idempotency_key__isnull=False),
                name="one_run_an_idempotency_key",
            ),
        ]
        indexes: ClassVar = [
            models.Index(
                fields=["state", "lease_until"],
                condition=Q(state__in=[RunState.QUEUED, RunState.RUNNING, RunState.WAITING]),
                name="run_unfinished",
            ),
            # What is looked for every second, one state each: SQLite takes a partial index for that condition only.
            models.Index(fields=["lease_until"], condition=Q(state=RunState.RUNNING), name="run_running"),
            models.Index(fields=["id"], condition=Q(state=RunState.QUEUED), name="run_queued"),
            models.Index(fields=["id"], condition=Q(counted=False, ended_at__isnull=False), name="run_uncounted"),
        ]

    def __str__(self) -> str:
        return f"#{self.pk}"


class AgentSwitch(models.Model):
    """One change of a session's agent; the newest 50 are kept, the session counts all."""

    session = models.ForeignKey(Session, models.CASCADE, related_name="agent_switches", verbose_name=_("session"))
    run = models.ForeignKey(Run, models.SET_NULL, null=True, related_name="agent_switches", verbose_name=_("run"))
    from_agent = models.CharField(_("from"), max_length=32)
    to_agent = models.CharField(_("to"), max_length=32)
    reason = models.TextField(_("reason"), blank=True)
    confidence = models.CharField(_("confidence"), max_length=32, blank=True)
    switched_at = models.DateTimeField(_("switched at"), default=timezone.now)

    class Meta:
        verbose_name = _("agent switch")
        verbose_name_plural = _("agent switches")
        ordering = ("id",)

    def __str__(self) -> str:
        return f"{self.from_agent} → {self.to_agent}"


class LLMRequest(models.Model):
    """One request to the model: a step of a run, or the routing before it."""

    ANSWER, ROUTING = "answer", "routing"
    PURPOSES: ClassVar = [(ANSWER, _("answer")), (ROUTING, _("routing"))]

    session = models.ForeignKey(
        Session, models.CASCADE, related_name="llm_requests", db_index=False, verbose_name=_("session")
    )
    run = models.ForeignKey(Run, models.CASCADE, related_name="llm_requests", verbose_name=_("run"))
    purpose = models.CharField(_("purpose"), max_length=16, choices=PURPOSES, default=ANSWER)
    agent = models.CharField(_("agent"), max_length=32, blank=True)
    agent_version = models.PositiveIntegerField(_("version of the agent"), null=True, blank=True)
    model = models.CharField(_("model"), max_length=255, blank=True)
    started_at = models.DateTimeField(_("started at"), default=timezone.now)
    duration_ms = models.PositiveIntegerField(_("duration, ms"), default=0)
    first_token_ms = models.PositiveIntegerField(_("first token, ms"), null=True, blank=True)
    prompt_tokens = models.PositiveIntegerField(_("prompt tokens"), default=0)
    completion_tokens = models.PositiveIntegerField(_("completion tokens"), default=0)
    total_tokens = models.PositiveIntegerField(_("total tokens"), default=0)
    has_tool_calls = models.BooleanField(_("with tool calls"), default=False)
    success = models.BooleanField(_("success"), default=True)
    error = models.CharField(_("error"), max_length=64, blank=True)
    counted = models.BooleanField(_("counted"), default=False, db_default=False, editable=False)

    class Meta:
        verbose_name = _("model request")
        verbose_name_plural = _("model requests")
        ordering = ("id",)
        indexes: ClassVar = [
            models.Index(fields=["session", "purpose", "id"], name="llm_request_by_session"),
            models.Index(fields=["id"], condition=Q(counted=False), name="llm_request_uncounted"),
        ]

    def __str__(self) -> str:
        return f"{self.purpose} {self.model}"
