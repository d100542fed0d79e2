"""The history."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from sessions_app.models.runs import Run
from sessions_app.models.sessions import Session


class MessageState(models.TextChoices):
    OPEN = "open", _("being written")
    COMPLETE = "complete", _("complete")
    INTERRUPTED = "interrupted", _("interrupted")


class MessageQuerySet(models.QuerySet["Message"]):
    def listed(self) -> MessageQuerySet:
        """Those that people see: an assistant message without text or calls, open or not, says nothing yet."""
        return self.exclude(role=Message.ASSISTANT, content="", tool_calls__isnull=True)


class Message(models.Model):
    """One entry of the history, numbered per session; an assistant's is opened before the model is called."""

    USER, ASSISTANT, TOOL = "user", "assistant", "tool"
    ROLES: ClassVar = [(USER, _("user")), (ASSISTANT, _("assistant")), (TOOL, _("tool"))]

    session = models.ForeignKey(
        Session, models.CASCADE, related_name="messages", db_index=False, verbose_name=_("session")
    )
    run = models.ForeignKey(Run, models.SET_NULL, null=True, related_name="messages", verbose_name=_("run"))
    number = models.PositiveIntegerField(_("number"))
    role = models.CharField(_("role"), max_length=16, choices=ROLES)
    content = models.TextField(_("content"), blank=True)
    name = models.CharField(_("name"), max_length=255, blank=True)
    tool_call_id = models.CharField(  # noqa: DJ001  null: not an answer
        _("tool call id"), max_length=255, null=True, blank=True
    )
    tool_calls = models.JSONField(_("tool calls"), null=True, blank=True)
    reasoning = models.TextField(_("model's reasoning"), blank=True)
    agent = models.CharField(_("agent"), max_length=32, blank=True)
    state = models.CharField(_("state"), max_length=16, choices=MessageState, default=MessageState.COMPLETE)
    in_context = models.BooleanField(_("goes up to the model"), default=True)
    created_at = models.DateTimeField(_("created at"), default=timezone.now)

    objects = MessageQuerySet.as_manager()

    class Meta:
        verbose_name = _("message")
        verbose_name_plural = _("messages")
        ordering = ("session", "number")
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["session", "number"], name="message_number_unique_in_session"),
            models.UniqueConstraint(
                fields=["session", "tool_call_id"], condition=Q(role="tool"), name="one_answer_a_tool_call"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.role} {self.number}"
