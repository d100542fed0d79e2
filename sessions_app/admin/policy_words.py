"""A rule as people read it: what it does, for which calls, and what differs from one version to another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.utils.dateparse import parse_datetime
from django.utils.formats import date_format
from django.utils.text import capfirst
from django.utils.timezone import localtime
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from sessions_app.admin import columns, shown
from sessions_app.models import PolicyRule, RuleAction
from sessions_app.policy_changes import Difference, compare

CONDITIONS = ("agent", "paths", "commands", "argument", "expression", "expires_seconds", "valid_until")
KINDS = {
    "added": (gettext_lazy("added"), "good"),
    "removed": (gettext_lazy("removed"), "bad"),
    "changed": (gettext_lazy("changed"), "waits"),
    "moved": (gettext_lazy("moved"), "busy"),
}


def told(rule: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """A rule of a version, ready to be shown; whatever its stored JSON may hold comes out as visible text."""
    action = str(rule.get("action", ""))
    return {
        "action": RuleAction(action).label if action in RuleAction.values else action,
        "tone": columns.tone(action),
        "pattern": rule.get("pattern", ""),
        "reason": rule.get("reason", ""),
        "enabled": bool(rule.get("enabled", True)),
        "conditions": [(label(name), value(name, rule.get(name))) for name in CONDITIONS if _says(rule.get(name))],
        **more,
    }


def _says(found: Any) -> bool:
    return found not in (None, "")


def label(name: str) -> str:
    if name == "expires_seconds":  # its value is told with a unit
        return _("Approvals expire after")
    return capfirst(str(PolicyRule._meta.get_field(name).verbose_name))  # type: ignore[union-attr]


def value(name: str, found: Any) -> str:
    """One field's value, in words where it is a number, a moment or a choice."""
    if not _says(found):
        return "—"
    if name == "action" and found in RuleAction.values:
        return str(RuleAction(found).label)
    if name == "enabled":
        return _("yes") if found else _("no")
    if name == "expires_seconds" and isinstance(found, int):
        return shown.duration(found) if found else _("never")
    if name == "valid_until" and isinstance(found, str):
        moment = parse_datetime(found)
        return date_format(localtime(moment), "DATETIME_FORMAT") if moment else found
    return str(found)


def differences(old: list[Any], new: list[Any]) -> list[dict[str, Any]]:
    """What a page says of each rule that differs."""
    return [_difference(one) for one in compare(old, new)]


def _difference(one: Difference) -> dict[str, Any]:
    words, tone = KINDS[one.kind]
    fields = [(label(name), value(name, was), value(name, now)) for name, was, now in one.fields]
    return {
        "kind": one.kind,
        "words": words,
        "kind_tone": tone,
        "place": one.place,
        "was_place": one.was_place,
        "fields": fields,
        "rule": told(one.rule),
    }
