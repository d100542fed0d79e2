"""The one log, and what handlers are owed of it."""

from __future__ import annotations

import uuid
from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from sessions_app.models.messages import Message
from sessions_app.models.runs import Run
from sessions_app.models.sessions import Session

OF_EVERY_TURN = (
    "LLMRequestCompleted", "LLMRequestStarted", "MessageCompleted", "MessageOpened", "MessageReceived", "TaskStarted",
)  # fmt: skip
"""Types of which the newest are found by looking back; an index of them would have each turn write six pages more."""


class Event(models.Model):
    """One append-only row of everything that happens in a session, numbered 1, 2, 3 … there."""

    event_id = models.UUIDField(_("event id"), default=uuid.uuid4, editable=False)
    session = models.ForeignKey(
        Session, models.CASCADE, related_name="events", db_index=False, verbose_name=_("session")
    )
    seq = models.PositiveBigIntegerField(_("number"))
    type = models.CharField(_("type"), max_length=48)
    at = models.DateTimeField(_("time"), default=timezone.now)
    run = models.ForeignKey(Run, models.CASCADE, null=True, related_name="events", verbose_name=_("run"))
    message = models.ForeignKey(Message, models.SET_NULL, null=True, related_name="+", verbose_name=_("message"))
    correlation_id = models.CharField(_("correlation id"), max_length=128, blank=True)
    causation_id = models.CharField(_("causation id"), max_length=64, blank=True)
    version = models.PositiveSmallIntegerField(_("version"), default=1)
    data = models.JSONField(_("data"), default=dict)

    class Meta:
        verbose_name = _("event")
        verbose_name_plural = _("events")
        ordering = ("id",)
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["session", "seq"], name="event_number_unique_in_session")
        ]
        indexes: ClassVar = [
            models.Index(fields=["type", "-id"], condition=~Q(type__in=OF_EVERY_TURN), name="event_by_rare_type")
        ]

    def __str__(self) -> str:
        return f"{self.seq} {self.type}"


class DeliveryState(models.TextChoices):
    DUE = "due", _("due")
    RUNNING = "running", _("running")
    DELIVERED = "delivered", _("delivered")
    DEAD = "dead", _("given up")
    DISCARDED = "discarded", _("discarded")


class EventDelivery(models.Model):
    """What one handler is owed of one event. Whoever runs it holds its lease; `attempts` counts the claims."""

    event = models.ForeignKey(Event, models.CASCADE, related_name="deliveries", db_index=False, verbose_name=_("event"))
    handler = models.CharField(_("handler"), max_length=100)
    state = models.CharField(_("state"), max_length=16, choices=DeliveryState, default=DeliveryState.DUE)
    attempts = models.PositiveIntegerField(_("attempts"), default=0)
    next_at = models.DateTimeField(_("next attempt at"), default=timezone.now)
    lease_owner = models.CharField(_("lease owner"), max_length=64, blank=True)
    lease_until = models.DateTimeField(_("lease until"), null=True, blank=True)
    last_error = models.CharField(_("last error"), max_length=200, blank=True)
    delivered_at = models.DateTimeField(_("delivered at"), null=True, blank=True)

    class Meta:
        verbose_name = _("event delivery")
        verbose_name_plural = _("event deliveries")
        ordering = ("id",)
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["event", "handler"], name="one_delivery_a_handler_and_event")
        ]
        # One state each: SQLite takes a partial index only for the very condition that the query has.
        indexes: ClassVar = [
            models.Index(fields=["handler", "next_at"], condition=Q(state=DeliveryState.DUE), name="delivery_due"),
            models.Index(fields=["lease_until"], condition=Q(state=DeliveryState.RUNNING), name="delivery_running"),
            models.Index(fields=["id"], condition=Q(state=DeliveryState.DEAD), name="delivery_dead"),
        ]

    def __str__(self) -> str:
        return f"{self.handler} #{self.pk}"
