"""A conversation."""

from __future__ import annotations

import zlib
from typing import ClassVar

from django.db import models
from django.utils import timezone
from django.utils.functional import cached_property
from django.utils.translation import gettext_lazy as _

ORCHESTRATOR = "orchestrator"


class Session(models.Model):
    """One conversation, named by its client. Every writer of a session locks this row first, so that the order of
    its events is the order of their commits."""

    session_id = models.CharField(_("session id"), max_length=255, unique=True)
    title = models.CharField(_("title"), max_length=255, blank=True)
    description = models.TextField(_("description"), blank=True)
    is_active = models.BooleanField(_("active"), default=True)
    expired_at = models.DateTimeField(_("expired at"), null=True, blank=True)
    created_at = models.DateTimeField(_("created at"), default=timezone.now)
    last_activity = models.DateTimeField(_("last activity"), default=timezone.now)
    message_count = models.PositiveIntegerField(_("messages"), default=0)
    last_number = models.PositiveIntegerField(_("last message number"), default=0)
    first_seq = models.PositiveBigIntegerField(_("first event number"), default=1)  # those before are not kept
    last_seq = models.PositiveBigIntegerField(_("last event number"), default=0)
    current_agent = models.CharField(_("current agent"), max_length=32, default=ORCHESTRATOR)
    switch_count = models.PositiveIntegerField(_("agent switches"), default=0)
    last_switch_at = models.DateTimeField(_("last switch at"), null=True, blank=True)
    stream_mode = models.CharField(_("stream mode"), max_length=16, blank=True)
    owner = models.CharField(_("owner"), max_length=255, blank=True, editable=False)
    audit_count = models.PositiveBigIntegerField(_("audit entries"), default=0)
    audit_hash = models.CharField(_("hash of the last audit entry"), max_length=64, blank=True)

    class Meta:
        verbose_name = _("session")
        verbose_name_plural = _("sessions")
        ordering = ("-last_activity", "-id")
        indexes: ClassVar = [
            models.Index(fields=["-last_activity", "-id"], name="session_by_activity"),
            models.Index(fields=["owner"], name="session_by_owner"),
        ]

    def __str__(self) -> str:
        return self.session_id

    @cached_property
    def cursor_tag(self) -> str:
        """Seven characters that tell this session's cursors from another's, also from a deleted namesake's."""
        return f"{zlib.crc32(f'{self.pk}:{self.session_id}'.encode()):08x}"[1:]
