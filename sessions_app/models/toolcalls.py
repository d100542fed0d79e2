"""What the model asked to have done, and who allowed it."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from sessions_app.models.messages import Message
from sessions_app.models.runs import Run
from sessions_app.models.sessions import Session


class ToolCallState(models.TextChoices):
    PENDING = "pending", _("waiting for approval")
    OUT = "out", _("out at the client")
    COMPLETED = "completed", _("completed")
    FAILED = "failed", _("failed")
    REJECTED = "rejected", _("rejected")
    REFUSED = "refused", _("refused by a check")
    CLOSED = "closed", _("closed without a result")


OPEN_CALL_STATES = (ToolCallState.PENDING, ToolCallState.OUT)


class ToolCall(models.Model):
    """One call the model asked for. It counts as executed only when its client said so."""

    session = models.ForeignKey(Session, models.CASCADE, related_name="tool_calls", db_index=False)
    run = models.ForeignKey(Run, models.CASCADE, related_name="tool_calls", verbose_name=_("run"))
    message = models.ForeignKey(Message, models.CASCADE, related_name="calls", verbose_name=_("message"))
    call_id = models.CharField(_("call id"), max_length=255)
    name = models.CharField(_("tool"), max_length=255)
    agent = models.CharField(_("agent"), max_length=32, blank=True)
    arguments = models.JSONField(_("arguments"), default=dict)
    state = models.CharField(_("state"), max_length=16, choices=ToolCallState)
    requires_approval = models.BooleanField(_("needs approval"), default=False)
    policy_version = models.PositiveIntegerField(_("policy version"), null=True, blank=True)
    result_hash = models.CharField(_("result hash"), max_length=64, blank=True)
    late_results = models.JSONField(_("late results"), default=list, blank=True)
    requested_at = models.DateTimeField(_("requested at"), default=timezone.now)
    ended_at = models.DateTimeField(_("ended at"), null=True, blank=True)
    counted = models.BooleanField(_("counted"), default=False, db_default=False, editable=False)

    class Meta:
        verbose_name = _("tool call")
        verbose_name_plural = _("tool calls")
        ordering = ("id",)
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["session", "call_id"], name="call_id_unique_in_session")
        ]
        indexes: ClassVar = [
            models.Index(fields=["id"], condition=Q(counted=False, ended_at__isnull=False), name="call_uncounted"),
            models.Index(fields=["requested_at"], condition=Q(state=ToolCallState.OUT), name="call_out"),
        ]

    def __str__(self) -> str:
        return f"{self.name} {self.call_id}"


class ApprovalState(models.TextChoices):
    PENDING = "pending", _("waiting")
    APPROVED = "approved", _("approved")
    EDITED = "edited", _("edited and approved")
    REJECTED = "rejected", _("rejected")
    CLOSED = "closed", _("closed without a decision")
    EXPIRED = "expired", _("expired")


class Approval(models.Model):
    """A person's decision about one tool call: a record with an outcome, also when nobody answers."""

    session = models.ForeignKey(Session, models.CASCADE, related_name="approvals", verbose_name=_("session"))
    call = models.OneToOneField(ToolCall, models.CASCADE, related_name="approval", verbose_name=_("tool call"))
    state = models.CharField(_("state"), max_length=16, choices=ApprovalState, default=ApprovalState.PENDING)
    reason = models.CharField(_("reason"), max_length=500, blank=True)
    arguments = models.JSONField(_("arguments shown"), default=dict)
    arguments_hash = models.CharField(_("hash of the arguments"), max_length=64, blank=True)
    policy_version = models.PositiveIntegerField(_("policy version"), null=True, blank=True)
    decided_by = models.CharField(_("decided by"), max_length=150, blank=True)
    feedback = models.TextField(_("feedback"), blank=True)
    created_at = models.DateTimeField(_("created at"), default=timezone.now)
    expires_at = models.DateTimeField(_("expires at"), null=True, blank=True)
    decided_at = models.DateTimeField(_("decided at"), null=True, blank=True)
    counted = models.BooleanField(_("counted"), default=False, db_default=False, editable=False)

    class Meta:
        verbose_name = _("approval")
        verbose_name_plural = _("approvals")
        ordering = ("id",)
        indexes: ClassVar = [
            models.Index(
                fields=["created_at"], condition=Q(state=ApprovalState.PENDING), name="approval_pending_by_age"
            ),
            models.Index(
                fields=["id"], condition=Q(counted=False, decided_at__isnull=False), name="approval_uncounted"
            ),
            models.Index(
                fields=["expires_at"], condition=Q(state=ApprovalState.PENDING), name="approval_pending_by_expiry"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.call_id}: {self.state}"
