"""What operators have set for the agents over what the code says, and every state that it has been in."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

MAX_AGENT_CHARACTERS = 32


class AgentVersion(models.Model):
    """One change of one agent: written once, never changed; the agent's newest version applies.

    `overrides` has what differs from the code, of "prompt", "tools", "file_rules", "model" and "temperature"; what is
    not in it is as the code has it, and an empty one is the code's definition. Numbers run across all agents, so that
    one number tells whether anything has changed; requests to the model name the version that they were made with.
    """

    agent = models.CharField(_("agent"), max_length=MAX_AGENT_CHARACTERS)
    number = models.PositiveIntegerField(_("number"), unique=True)
    overrides = models.JSONField(_("overrides"), default=dict)
    who = models.CharField(_("who"), max_length=150, blank=True)
    note = models.CharField(_("note"), max_length=500, blank=True)
    created_at = models.DateTimeField(_("created at"), default=timezone.now)

    class Meta:
        verbose_name = _("agent version")
        verbose_name_plural = _("agents")
        ordering = ("-number",)
        indexes: ClassVar = [models.Index(fields=["agent", "-number"], name="agent_version_newest")]
        permissions: ClassVar = [("try_agentversion", "Can run a message against a draft of an agent")]

    def __str__(self) -> str:
        return f"{self.agent} {self.number}"
