"""When a person is asked, and what is never done: rules as data, and every state that they have been in."""

from __future__ import annotations

from typing import Any

import re2
from django.core.exceptions import ValidationError
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

MAX_LINES, MAX_LINE_CHARACTERS, MAX_EXPRESSION_CHARACTERS = 200, 1000, 1000


class RuleAction(models.TextChoices):
    ASK = "ask", _("needs approval")
    ALLOW = "allow", _("allow")
    FORBID = "forbid", _("forbid")


class PolicyRule(models.Model):
    """What becomes of the calls that it matches: the first enabled rule that matches decides."""

    order = models.PositiveIntegerField(_("order"), default=100)
    pattern = models.CharField(_("tool pattern"), max_length=255, help_text=_("A tool's name; * stands for any part."))
    agent = models.CharField(
        _("agent pattern"), max_length=64, blank=True, help_text=_("An agent's type, such as debug; empty: any.")
    )
    paths = models.TextField(
        _("paths"),
        blank=True,
        help_text=_(
            "Globs, one a line: docs/**, *.md. To allow, every path of the call must match; to ask or forbid, one is "
            "enough."
        ),
    )
    commands = models.TextField(
        _("command prefixes"),
        blank=True,
        help_text=_(
            "One a line: git status. To allow, the whole command must be one simple command that begins so; to ask or "
            "forbid, any part of it."
        ),
    )
    argument = models.CharField(
        _("argument"), max_length=64, blank=True, help_text=_("The argument that the expression is about.")
    )
    expression = models.CharField(
        _("expression"),
        max_length=MAX_EXPRESSION_CHARACTERS,
        blank=True,
        help_text=_("RE2; it must match the argument's whole text."),
    )
    action = models.CharField(_("action"), max_length=8, choices=RuleAction, default=RuleAction.ASK)
    reason = models.CharField(
        _("reason"), max_length=500, blank=True, help_text=_("Read by the person who is asked, or by the model.")
    )
    expires_seconds = models.PositiveIntegerField(
        _("approvals expire after, seconds"), null=True, blank=True, help_text=_("Empty: as set; 0: never.")
    )
    valid_until = models.DateTimeField(
        _("valid until"), null=True, blank=True, help_text=_("After it the rule does not count. Empty: for ever.")
    )
    enabled = models.BooleanField(_("enabled"), default=True)

    class Meta:
        verbose_name = _("approval rule")
        verbose_name_plural = _("approval rules")
        ordering = ("order", "id")

    def __str__(self) -> str:
        return self.pattern

    def clean(self) -> None:
        for name in ("paths", "commands"):
            lines = lines_of(getattr(self, name))
            if len(lines) > MAX_LINES or any(len(line) > MAX_LINE_CHARACTERS for line in lines):
                raise ValidationError({name: _("Too many or too long lines.")})
        if bool(self.argument) != bool(self.expression):
            raise ValidationError({"expression": _("An argument and an expression belong together.")})
        try:
            expression_of(self.expression, dot_matches_newline=True)
        except re2.error as error:
            raise ValidationError({"expression": _("No RE2 expression: {why}").format(why=_text(error))}) from None


def lines_of(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def expression_of(text: str, *, dot_matches_newline: bool) -> Any:
    """The compiled expression, with bounded memory. Raises re2.error."""
    options = re2.Options()
    options.log_errors = False
    options.never_capture = True
    options.dot_nl = dot_matches_newline
    options.max_mem = 8 << 20
    return re2.compile(text, options)


def _text(error: Exception) -> str:
    told = error.args[0] if error.args else ""
    return told.decode("utf-8", "replace") if isinstance(told, bytes) else str(told)


class PolicyVersion(models.Model):
    """All rules as they were from one change to the next: written once, never changed. Calls and approvals name the
    version that judged them."""

    number = models.PositiveIntegerField(_("number"), unique=True)
    rules = models.JSONField(_("rules"), default=list)
    who = models.CharField(_("who"), max_length=150, blank=True)
    note = models.CharField(_("note"), max_length=500, blank=True)
    created_at = models.DateTimeField(_("created at"), default=timezone.now)

    class Meta:
        verbose_name = _("policy version")
        verbose_name_plural = _("policy versions")
        ordering = ("-number",)

    def __str__(self) -> str:
        return str(self.number)
