"""The approval rules as they are stored: changed as a whole set, and every set that there was is kept as a version.

What judges calls is the newest version, never the rows that are being edited. Imports models, `audit`, `database`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import ValidationError
from django.db.models.signals import post_delete, post_save
from django.dispatch import receiver
from django.utils.dateparse import parse_datetime
from django.utils.timezone import is_naive

from sessions_app import audit, database
from sessions_app.models import PolicyRule, PolicyVersion

FIELDS = (
    "order", "pattern", "agent", "paths", "commands", "argument", "expression", "action", "reason", "expires_seconds",
    "valid_until", "enabled",
)  # fmt: skip
TEXTS = ("pattern", "agent", "paths", "commands", "argument", "expression", "action", "reason")
MAX_RULES = 1000
Rules = list[dict[str, Any]]
_changing: ContextVar[bool] = ContextVar("changing", default=False)


class PolicyInvalid(ValueError):
    """Rules that cannot be; says which and why."""


class RulesChanged(RuntimeError):
    """Somebody has changed the rules since they were looked at."""


class RuleNotFound(LookupError):
    """The rule is not there any more."""


class VersionNotFound(LookupError):
    """There is no such version."""


# --- reading -----------------------------------------------------------------------------------------------------


def rules() -> Rules:
    """The rules as they stand, in their order."""
    return plain(PolicyRule.objects.order_by("order", "id"))


def plain(found: Iterable[PolicyRule]) -> Rules:
    """The rules as a version keeps them."""
    return [_plain(rule) for rule in found]


def _plain(rule: PolicyRule) -> dict[str, Any]:
    told = {name: getattr(rule, name) for name in FIELDS}
    return told | {"valid_until": rule.valid_until.isoformat() if rule.valid_until else None}


def version(number: int | None = None) -> PolicyVersion:
    """The version of this number, or the newest. Raises VersionNotFound."""
    found = PolicyVersion.objects.filter(number=number) if number is not None else PolicyVersion.objects.all()
    newest = found.order_by("-number").first()
    if newest is None:
        raise VersionNotFound(f"There is no version {number}." if number is not None else "There is no version yet.")
    return newest


# --- changing ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Change:
    """A change of the rules under way; its note is kept with the version that it has made at the end, if any."""

    note: str = ""
    made: PolicyVersion | None = None


@contextmanager
def changing(who: str, note: str = "") -> Iterator[Change]:
    """One change of the rules, however many rows it touches: one transaction, and one version at its end."""
    change = Change(note)
    with database.atomic():
        _lock()
        token = _changing.set(True)
        try:
            yield change
        finally:
            _changing.reset(token)
        change.made = record(who, change.note)


def _lock() -> None:
    """Who changes rules at the same moment waits here, so that each version holds what was committed before it."""
    list(PolicyVersion.objects.select_for_update().order_by("number")[:1])


def record(who: str, note: str = "") -> PolicyVersion | None:
    """Keeps the rules as the next version; None when nothing has changed."""
    with database.atomic():
        _lock()
        newest = PolicyVersion.objects.order_by("-number").first()
        now = rules()
        if newest is not None and newest.rules == now:
            return None
        number = (newest.number if newest else 0) + 1
        made = PolicyVersion.objects.create(number=number, rules=now, who=who[:150], note=note[:500])
        before = {"version": newest.number, "rules": audit.digest(newest.rules)} if newest else None
        after = {"version": number, "rules": audit.digest(now)}
        audit.record_installation(audit.POLICY_CHANGE, who, subject=f"policy:{number}", before=before, after=after)
        return made


def replace(given: Any, *, who: str, note: str = "") -> PolicyVersion:
    """Makes these the rules, all at once, and returns the version that now counts. Raises PolicyInvalid."""
    wanted = validated(given)
    with changing(who, note):
        _put(wanted)
    return version()


def _put(wanted: list[PolicyRule]) -> None:
    PolicyRule.objects.all().delete()
    PolicyRule.objects.bulk_create(wanted)


def restore(number: int, *, who: str, seen: int | None = None) -> PolicyVersion:
    """Makes the rules what they were in a version, as a new version; with `seen` only while that is the newest one.
    Raises VersionNotFound, RulesChanged."""
    wanted = validated(version(number).rules)
    with changing(who, f"Rolled back to version {number}"):
        if seen is not None and version().number != seen:
            raise RulesChanged(f"Version {seen} is not the newest any more.")
        _put(wanted)
    return version()


def move(rule_pk: int, *, up: bool, who: str) -> PolicyVersion | None:
    """Has a rule tried one place earlier, or later; at its end of the list it stays, and there is no new version.
    Raises RuleNotFound.

    Only the places of the two change, unless some rules share a number: then all are numbered anew.
    """
    with changing(who) as change:
        found = list(PolicyRule.objects.order_by("order", "id"))
        at = next((place for place, one in enumerate(found) if one.pk == rule_pk), None)
        if at is None:
            raise RuleNotFound(f"There is no rule {rule_pk}.")
        if at == (0 if up else len(found) - 1):
            return None
        rule, numbers = found[at], [one.order for one in found]
        if len(set(numbers)) < len(numbers):
            numbers = [place * 10 for place in range(1, len(found) + 1)]
        found.insert(at - 1 if up else at + 1, found.pop(at))
        for one, number in zip(found, numbers, strict=True):
            one.order = number
        PolicyRule.objects.bulk_update(found, ["order"])
        change.note = f"Moved {rule.pattern} {'up' if up else 'down'}"
    return change.made


def switch(rule_pk: int, *, on: bool, who: str) -> PolicyVersion | None:
    """Has a rule count, or not count, without losing it. Raises RuleNotFound."""
    with changing(who) as change:
        rule = PolicyRule.objects.filter(pk=rule_pk).first()
        if rule is None:
            raise RuleNotFound(f"There is no rule {rule_pk}.")
        rule.enabled = on
        rule.save(update_fields=["enabled"])
        change.note = f"Switched {rule.pattern} {'on' if on else 'off'}"
    return change.made


def validated(given: Any) -> list[PolicyRule]:
    """Rules from JSON, checked and not yet stored. Raises PolicyInvalid."""
    if not isinstance(given, list) or len(given) > MAX_RULES:
        raise PolicyInvalid(f"The rules must be a list of at most {MAX_RULES} objects.")
    return sorted((_rule(place, value) for place, value in enumerate(given, start=1)), key=lambda rule: rule.order)


def _rule(place: int, value: Any) -> PolicyRule:
    if not isinstance(value, dict):
        raise PolicyInvalid(f"Rule {place} must be an object.")
    if unknown := sorted(str(key)[:40] for key in value.keys() - set(FIELDS)):
        raise PolicyInvalid(f"Rule {place} has unknown fields: {', '.join(unknown)}.")
    if wrong := [name for name in TEXTS if not isinstance(value.get(name, ""), str)]:
        raise PolicyInvalid(f"Rule {place}: {', '.join(wrong)} must be text.")
    try:
        fields = value | {"valid_until": _moment(value.get("valid_until"))}
        rule = PolicyRule(**{"order": place * 10, **fields})
        rule.full_clean()
    except ValidationError as error:
        told = "; ".join(f"{name}: {' '.join(texts)}" for name, texts in error.message_dict.items())
        raise PolicyInvalid(f"Rule {place}: {told}") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise PolicyInvalid(f"Rule {place}: {error}") from None
    return rule


def _moment(value: Any) -> Any:
    if value in (None, ""):
        return None
    moment = parse_datetime(value) if isinstance(value, str) else None
    if moment is None or is_naive(moment):
        raise ValueError("valid_until must be an ISO 8601 time with a time zone")
    return moment


@receiver([post_save, post_delete], sender=PolicyRule)
def _changed(**_: Any) -> None:
    """A rule that is saved by itself is a change of its own."""
    if not _changing.get():
        record(audit.SYSTEM)
