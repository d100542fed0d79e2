"""What was taken over from the replaced service, so that taking over again adds only what is new."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _

from sessions_app.models.sessions import Session


class LegacySession(models.Model):
    """A session of the replaced service. It outlives ours: what was deleted here is not taken over again."""

    source_id = models.CharField(_("id there"), max_length=255, unique=True)
    session = models.OneToOneField(
        Session, models.SET_NULL, null=True, related_name="legacy", verbose_name=_("session")
    )
    born = models.CharField(_("created there"), max_length=64, blank=True)
    complete = models.BooleanField(_("complete"), default=False)
    last_number = models.PositiveIntegerField(_("last message number taken over"), default=0)

    class Meta:
        verbose_name = _("session taken over")
        verbose_name_plural = _("sessions taken over")

    def __str__(self) -> str:
        return self.source_id


class LegacyRow(models.Model):
    """A row of that session's which was read; also one that the repair left out."""

    taken = models.ForeignKey(
        LegacySession, models.CASCADE, related_name="rows", db_index=False, verbose_name=_("session taken over")
    )
    table = models.CharField(_("table"), max_length=32)
    row_id = models.CharField(_("row"), max_length=255)

    class Meta:
        verbose_name = _("row taken over")
        verbose_name_plural = _("rows taken over")
        constraints: ClassVar = [models.UniqueConstraint(fields=["taken", "table", "row_id"], name="one_taking_a_row")]

    def __str__(self) -> str:
        return f"{self.table} {self.row_id}"
