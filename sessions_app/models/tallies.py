"""What the counters of /metrics stand on, beside the rows that they count."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _


class Tally(models.Model):
    """A running total: it only grows, also when the rows that it counts are gone."""

    name = models.CharField(_("name"), max_length=64)
    label = models.CharField(_("label"), max_length=128, blank=True)
    value = models.BigIntegerField(_("value"), default=0)

    class Meta:
        verbose_name = _("running total")
        verbose_name_plural = _("running totals")
        constraints: ClassVar = [models.UniqueConstraint(fields=["name", "label"], name="one_total_a_series")]

    def __str__(self) -> str:
        return f"{self.name} {self.label}"


class HourlyTally(models.Model):
    """What ended in one hour (UTC): for charts, which must not read the history."""

    hour = models.DateTimeField(_("hour"))
    name = models.CharField(_("name"), max_length=32)
    label = models.CharField(_("label"), max_length=128, blank=True)
    value = models.BigIntegerField(_("value"), default=0)

    class Meta:
        verbose_name = _("hourly total")
        verbose_name_plural = _("hourly totals")
        constraints: ClassVar = [models.UniqueConstraint(fields=["hour", "name", "label"], name="one_hourly_a_series")]

    def __str__(self) -> str:
        return f"{self.hour:%Y-%m-%d %H} {self.name} {self.label}"


class Beat(models.Model):
    """What one process has open right now; a row that is no longer renewed belongs to a process that is gone."""

    process = models.CharField(_("process"), max_length=64, unique=True)
    active_streams = models.PositiveIntegerField(_("active streams"), default=0)
    seen_at = models.DateTimeField(_("seen at"), default=timezone.now)

    class Meta:
        verbose_name = _("process")
        verbose_name_plural = _("processes")

    def __str__(self) -> str:
        return self.process
