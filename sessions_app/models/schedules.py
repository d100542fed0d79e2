"""Work that is done again and again, by one process at a time."""

from __future__ import annotations

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _


class Schedule(models.Model):
    """When a piece of work is due, and who is at it until when."""

    name = models.CharField(_("name"), max_length=64, unique=True)
    due_at = models.DateTimeField(_("due at"), default=timezone.now)
    lease_owner = models.CharField(_("lease owner"), max_length=64, blank=True)
    lease_until = models.DateTimeField(_("lease until"), default=timezone.now)

    class Meta:
        verbose_name = _("schedule")
        verbose_name_plural = _("schedules")

    def __str__(self) -> str:
        return self.name
