"""An action on many rows, done in the background: what is to be done, by whose will, and how far it has come."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _


class BatchState(models.TextChoices):
    PREPARED = "prepared", _("not confirmed")
    QUEUED = "queued", _("queued")
    RUNNING = "running", _("running")
    FINISHED = "finished", _("finished")
    STOPPED = "stopped", _("stopped")


class Batch(models.Model):
    """`action` names what is done (see `bulk.py`) to each of the rows in `parts`; `position` of them were seen to."""

    action = models.CharField(_("action"), max_length=64)
    arguments = models.JSONField(_("arguments"), default=dict, blank=True)
    who = models.CharField(_("who"), max_length=150)
    language = models.CharField(_("language"), max_length=16, blank=True, editable=False)
    state = models.CharField(_("state"), max_length=16, choices=BatchState, default=BatchState.PREPARED)
    total = models.PositiveIntegerField(_("chosen"), default=0)
    position = models.PositiveIntegerField(_("seen to"), default=0)
    done = models.PositiveIntegerField(_("done"), default=0)
    skipped = models.PositiveIntegerField(_("skipped"), default=0)
    failed = models.PositiveIntegerField(_("failed"), default=0)
    lease_owner = models.CharField(_("lease owner"), max_length=64, blank=True, editable=False)
    lease_until = models.DateTimeField(_("lease until"), null=True, blank=True, editable=False)
    created_at = models.DateTimeField(_("created at"), default=timezone.now)
    started_at = models.DateTimeField(_("started at"), null=True, blank=True)
    ended_at = models.DateTimeField(_("ended at"), null=True, blank=True)

    class Meta:
        verbose_name = _("background action")
        verbose_name_plural = _("background actions")
        ordering = ("-id",)
        indexes: ClassVar = [
            models.Index(
                fields=["id"], condition=Q(state__in=[BatchState.QUEUED, BatchState.RUNNING]), name="batch_unfinished"
            ),
        ]

    def __str__(self) -> str:
        return f"#{self.pk} {self.action}"


class BatchPart(models.Model):
    """Some of the rows that were chosen, by primary key, as they were when somebody confirmed what they saw."""

    batch = models.ForeignKey(Batch, models.CASCADE, related_name="parts", verbose_name=_("background action"))
    number = models.PositiveIntegerField(_("number"))
    chosen = models.JSONField(_("chosen"), default=list)

    class Meta:
        verbose_name = _("part of a background action")
        verbose_name_plural = _("parts of background actions")
        ordering = ("batch", "number")
        constraints: ClassVar = [models.UniqueConstraint(fields=["batch", "number"], name="batch_part_number")]

    def __str__(self) -> str:
        return f"{self.batch_id}.{self.number}"


class BatchRefusal(models.Model):
    """One row to which it was not done, and why; `subject` names it also when it is gone."""

    batch = models.ForeignKey(Batch, models.CASCADE, related_name="refusals", verbose_name=_("background action"))
    subject = models.CharField(_("what"), max_length=255)
    is_failure = models.BooleanField(_("failed"), default=False)
    reason = models.CharField(_("reason"), max_length=300, blank=True)

    class Meta:
        verbose_name = _("refusal of a background action")
        verbose_name_plural = _("refusals of background actions")
        ordering = ("id",)

    def __str__(self) -> str:
        return self.subject
