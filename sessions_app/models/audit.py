"""Who did what: rows that are written once, chained by their hashes."""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from sessions_app.models.sessions import Session

HASH_CHARACTERS = 64


class AppendOnly(models.QuerySet["AuditEntry"]):
    """Rows that are read and added."""

    def update(self, **values: Any) -> NoReturn:
        raise TypeError("The audit is append-only: its entries are never changed.")

    def delete(self) -> NoReturn:
        raise TypeError("The audit is append-only: only a session that goes takes its chain with it.")


class AuditEntry(models.Model):
    """One act of somebody, number 1, 2, 3 … in the chain of its session, or of the installation where it has none.

    `before` and `after` are JSON texts of digests and small values, kept to the character: `hash` covers them. No
    constraint ties a chain to its session: one that was left behind without its session must be found, not refused.
    """

    session = models.ForeignKey(
        Session,
        models.DO_NOTHING,
        null=True,
        related_name="audit_entries",
        db_constraint=False,
        db_index=False,
        verbose_name=_("session"),
    )
    number = models.PositiveBigIntegerField(_("number"))
    at = models.DateTimeField(_("time"))
    who = models.CharField(_("who"), max_length=150)
    action = models.CharField(_("action"), max_length=64)
    subject = models.CharField(_("subject"), max_length=255, blank=True)
    before = models.TextField(_("before"), blank=True)
    after = models.TextField(_("after"), blank=True)
    correlation_id = models.CharField(_("correlation id"), max_length=128, blank=True)
    previous = models.CharField(_("hash of the entry before"), max_length=HASH_CHARACTERS, blank=True)
    hash = models.CharField(_("hash"), max_length=HASH_CHARACTERS)

    objects = AppendOnly.as_manager()

    class Meta:
        verbose_name = _("audit entry")
        verbose_name_plural = _("audit entries")
        ordering = ("id",)
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["session", "number"], name="audit_number_unique_in_session"),
            models.UniqueConstraint(
                fields=["number"], condition=Q(session__isnull=True), name="audit_number_unique_in_installation"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.number} {self.action}"

    def save(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("An audit entry is written by audit.record, once.")

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("The audit is append-only: its entries are not removed.")


class AuditHead(models.Model):
    """How far the installation's chain has come, in its one row; a session's own is in the session."""

    count = models.PositiveBigIntegerField(_("entries"), default=0)
    hash = models.CharField(_("hash of the last entry"), max_length=HASH_CHARACTERS, blank=True)

    class Meta:
        verbose_name = _("head of the installation's audit")
        verbose_name_plural = verbose_name

    def __str__(self) -> str:
        return str(self.count)
