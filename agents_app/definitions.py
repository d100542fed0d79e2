"""Which definitions of the agents apply here: the code's, with what operators have set over them.

`agents.get` gives what applies. This process's copy is looked at every second, and read anew where another version is
there by then; a request to the model costs no statement for it. What does not fit the code any more is left out, said
once in the log, and shown on the agents' page: no turn ever ends by it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import replace

from django.utils.translation import override

from agents_app import agents, overrides
from sessions_app import agent_versions, database
from sessions_app.errors import RuntimeFault
from sessions_app.models import AgentVersion

logger = logging.getLogger(__name__)
_refreshing = threading.Lock()  # what was read first is also taken over first
_seen: int | None = None  # the newest version's number; None: not looked yet


def refresh() -> None:
    """Takes over what is stored. For threads that may meet the database; one statement when nothing has changed."""
    global _seen
    with _refreshing:
        if agent_versions.newest_number() != _seen:
            versions = agent_versions.newest()
            agents.apply(_applied(versions))
            _seen = max((one.number for one in versions.values()), default=0)


async def loaded() -> None:
    """Before the first request of this process. Raises StorageUnavailable: nobody answers by a definition that may
    have been replaced."""
    if _seen is None:
        await database.read(refresh)


async def tick() -> None:
    """Once a second: hears of what other processes have stored."""
    try:
        await database.read(refresh)
    except RuntimeFault:
        return


def _applied(versions: Mapping[str, AgentVersion]) -> dict[str, agents.Agent]:
    applied = {}
    for name, one in versions.items():
        try:
            own = agents.defined(name)
        except KeyError:
            logger.warning("agent %r of version %s is not in the code any more", name, one.number)
            continue
        fitted = fit(own, one)
        for part, told in fitted.misfits.items():
            logger.warning("agent %r: version %s, %s: left out: %s", name, one.number, part, " ".join(told))
        applied[name] = fitted.agent
    return applied


def fit(own: agents.Agent, one: AgentVersion) -> overrides.Fitted:
    """The code's agent as this version has it, with the version's number; misfits in English, for logs."""
    with override("en"):
        fitted = overrides.fit(own, one.overrides)
    fitted.agent = replace(fitted.agent, version=one.number)
    return fitted


def misfits() -> list[str]:
    """What of the stored definitions that apply does not fit the code, in lines for people at a terminal."""
    told = []
    known = {agent.type for agent in agents.everyone()}
    for name, one in sorted(agent_versions.newest().items()):
        if name not in known:
            told.append(f"Agent {name!r} of version {one.number} is not in the code.")
            continue
        for part, wrong in fit(agents.defined(name), one).misfits.items():
            told.append(f"Agent {name!r}, version {one.number}, {part}: left out: {' '.join(wrong)}")
    return told


def forget() -> None:
    """The code's definitions, until somebody looks again: as in an installation where nothing was ever set."""
    global _seen
    _seen = 0
    agents.apply({})
