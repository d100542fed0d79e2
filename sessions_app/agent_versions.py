"""The agents' overrides as they are stored: each change is a version, the newest of an agent applies.

What the overrides mean, and whether they fit the code, others know. Imports models, `audit`, `database`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import IntegrityError
from django.db.models import Max, QuerySet

from sessions_app import audit, database
from sessions_app.models import AgentVersion
from sessions_app.prepared import Select

PARTS = ("prompt", "tools", "file_rules", "model", "temperature")
Overrides = Mapping[str, Any]


class VersionNotFound(LookupError):
    """There is no such version."""


class ChangedMeanwhile(Exception):
    """Somebody else has changed the agent since it was looked at; `newest` is the number of that version."""

    def __init__(self, newest: int) -> None:
        super().__init__(f"Somebody else has saved version {newest} meanwhile.")
        self.newest = newest


# --- reading -----------------------------------------------------------------------------------------------------


_NEWEST = Select[tuple[int]](lambda: AgentVersion.objects.order_by("-number").values_list("number")[:1])


def newest_number() -> int:
    """The number of the last change of any agent; 0 before the first. Other processes look at it every second."""
    return next(iter(_NEWEST.all()), (0,))[0]


def newest() -> dict[str, AgentVersion]:
    """By agent, the version that applies."""
    numbers = AgentVersion.objects.order_by().values("agent").annotate(newest=Max("number")).values("newest")
    return {one.agent: one for one in AgentVersion.objects.filter(number__in=numbers)}


def of(agent: str) -> QuerySet[AgentVersion]:
    """The agent's versions, the newest first."""
    return AgentVersion.objects.filter(agent=agent).order_by("-number")


def version(agent: str, number: int | None = None) -> AgentVersion:
    """The agent's version of this number, or its newest. Raises VersionNotFound."""
    found = (of(agent).filter(number=number) if number is not None else of(agent)).first()
    if found is None:
        raise VersionNotFound(f"There is no version {number} of {agent!r}." if number else f"{agent!r} has none yet.")
    return found


def told(one: AgentVersion | None) -> dict[str, Any]:
    """What the version sets; nothing where there is none, or somebody has written something else into the row."""
    return one.overrides if one is not None and isinstance(one.overrides, dict) else {}


def before(one: AgentVersion) -> AgentVersion | None:
    """The version of the same agent that it replaced."""
    return of(one.agent).filter(number__lt=one.number).first()


# --- changing ----------------------------------------------------------------------------------------------------


def save(agent: str, overrides: Overrides, *, who: str, note: str = "", seen: int | None = None) -> AgentVersion | None:
    """Makes these the agent's overrides, as its next version; None when nothing has changed. One transaction.

    `seen` is the number of the version that the change was made from, 0 for none: raises ChangedMeanwhile when
    another one has come since. Without it the change is made whatever there is.
    """
    with database.atomic():
        _lock()
        now = of(agent).first()
        if seen is not None and (now.number if now else 0) != seen:
            raise ChangedMeanwhile(now.number if now else 0)
        before = told(now)
        if dict(overrides) == before:
            return None
        number = newest_number() + 1
        made = _stored(agent, number, overrides, who, note)
        facts = {"version": now.number, **_facts(before)} if now else None
        audit.record_installation(
            audit.AGENT_CHANGE, who, subject=f"agent:{agent}", before=facts,
            after={"version": number, **_facts(overrides)},
        )  # fmt: skip
        return made


def restore(agent: str, number: int, *, who: str, seen: int | None = None) -> AgentVersion | None:
    """Makes the agent what it was in a version, as a new version; None when it is that already. `seen` as for `save`.
    Raises VersionNotFound, ChangedMeanwhile."""
    return save(agent, told(version(agent, number)), who=who, note=f"Rolled back to version {number}", seen=seen)


def _lock() -> None:
    """Who changes agents at the same moment waits here, so that versions are committed in the order of their numbers.
    Before the very first version there is nothing to lock: there the number, which is unique, decides."""
    list(AgentVersion.objects.select_for_update().order_by("number")[:1])


def _stored(agent: str, number: int, overrides: Overrides, who: str, note: str) -> AgentVersion:
    try:
        with database.atomic():
            return AgentVersion.objects.create(
                agent=agent, number=number, overrides=dict(overrides), who=who[:150], note=note[:500]
            )
    except IntegrityError:
        raise ChangedMeanwhile(number) from None


def _facts(overrides: Overrides) -> dict[str, Any]:
    """What the audit keeps: names and numbers as they are, of a prompt its digest only."""
    told = {name: overrides[name] for name in PARTS if name in overrides}
    if "prompt" in told:
        told["prompt"] = audit.digest(told["prompt"])
    if "temperature" in told:
        told["temperature"] = str(told["temperature"])
    return told
