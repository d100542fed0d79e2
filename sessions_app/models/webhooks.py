"""Addresses elsewhere that are told what happens here, and what became of each telling."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from sessions_app.models.log import Event


class Webhook(models.Model):
    """Who is told of which events. Its secret is kept sealed, and shown once."""

    HANDLER_PREFIX = "webhook:"

    url = models.CharField(_("address"), max_length=2000)
    patterns = models.CharField(_("events"), max_length=500, default="*")
    include_content = models.BooleanField(_("with what people and models wrote"), default=False)
    enabled = models.BooleanField(_("enabled"), default=True)
    disabled_because = models.CharField(_("disabled because"), max_length=200, blank=True)
    sealed_secret = models.CharField(_("sealed secret"), max_length=255, editable=False)
    created_by = models.CharField(_("created by"), max_length=150, blank=True)
    created_at = models.DateTimeField(_("created at"), default=timezone.now)

    class Meta:
        verbose_name = _("webhook")
        verbose_name_plural = _("webhooks")
        ordering = ("id",)

    def __str__(self) -> str:
        return f"#{self.pk}"

    @property
    def handler(self) -> str:
        """The name that its deliveries are stored under."""
        return f"{self.HANDLER_PREFIX}{self.pk}"


class WebhookAttempt(models.Model):
    """One request to a webhook: how it went, and nothing of what either side said."""

    webhook = models.ForeignKey(Webhook, models.CASCADE, related_name="attempts", verbose_name=_("webhook"))
    event = models.ForeignKey(  # null: a test
        Event, models.CASCADE, null=True, related_name="webhook_attempts", verbose_name=_("event")
    )
    at = models.DateTimeField(_("time"), default=timezone.now)
    status = models.PositiveSmallIntegerField(_("HTTP status"), null=True)
    duration_ms = models.PositiveIntegerField(_("duration, ms"), default=0)
    error = models.CharField(_("error"), max_length=200, blank=True)

    class Meta:
        verbose_name = _("webhook attempt")
        verbose_name_plural = _("webhook attempts")
        ordering = ("id",)
        indexes: ClassVar = [models.Index(fields=["webhook", "-id"], name="webhook_attempt_newest")]

    def __str__(self) -> str:
        return f"{self.webhook_id} {self.at:%Y-%m-%d %H:%M:%S}"
