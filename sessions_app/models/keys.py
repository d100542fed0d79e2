"""Who may call."""

from __future__ import annotations

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _


class APIKey(models.Model):
    """A key that programs call with. Of the key itself only a digest is here; the environment's own has not even that.

    A plain SHA-256 is enough: a key has 256 random bits, so there is nothing to guess that slowness or salt would help
    against, and every request pays for the comparison.
    """

    key_id = models.CharField(_("key id"), max_length=32, unique=True)
    name = models.CharField(_("name"), max_length=100, help_text=_("Who will call with it: a service, a host."))
    digest = models.CharField(max_length=64, blank=True, editable=False)
    created_at = models.DateTimeField(_("created at"), default=timezone.now)
    created_by = models.CharField(_("created by"), max_length=150, blank=True)
    expires_at = models.DateTimeField(_("expires at"), null=True, blank=True, help_text=_("Empty: never."))
    revoked_at = models.DateTimeField(_("revoked at"), null=True, blank=True)
    revoked_by = models.CharField(_("revoked by"), max_length=150, blank=True)
    last_used_at = models.DateTimeField(_("last used at"), null=True, blank=True)

    class Meta:
        verbose_name = _("API key")
        verbose_name_plural = _("API keys")
        ordering = ("id",)

    def __str__(self) -> str:
        return self.key_id
