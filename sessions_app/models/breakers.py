"""Whether the language model's upstream is asked at all."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _


class BreakerState(models.TextChoices):
    CLOSED = "closed", _("closed: requests pass")
    OPEN = "open", _("open: requests are refused")
    HALF_OPEN = "half_open", _("half-open: one request tries")


class Breaker(models.Model):
    """A circuit breaker, shared by all processes. There is no row before the first failure."""

    name = models.CharField(_("name"), max_length=32, unique=True)
    state = models.CharField(_("state"), max_length=16, choices=BreakerState, default=BreakerState.CLOSED)
    failures = models.PositiveIntegerField(_("failed turns in a row"), default=0)
    opened_at = models.DateTimeField(_("open since"), null=True, blank=True)
    next_probe_at = models.DateTimeField(_("next try at"), null=True, blank=True)
    probe = models.CharField(_("try under way"), max_length=32, blank=True)
    last_error = models.CharField(_("last error"), max_length=64, blank=True)
    version = models.PositiveBigIntegerField(_("changes"), default=0)

    class Meta:
        verbose_name = _("circuit breaker")
        verbose_name_plural = _("circuit breaker")

    def __str__(self) -> str:
        return self.name
