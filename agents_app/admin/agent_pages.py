"""What the agents' pages show: text that came from people is made visible here, and nothing is looked up row by row."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from django.template.loader import render_to_string
from django.utils.translation import gettext as _
from django.utils.translation import override

from agents_app import agents, overrides
from agents_app.admin.agent_forms import LABELS, DraftForm
from agents_app.agents import Agent
from agents_app.playground import Outcome
from agents_app.tools import Tool
from sessions_app import agent_versions
from sessions_app.admin import shown
from sessions_app.conf import settings
from sessions_app.models import AgentVersion

SHOWN_VERSIONS = 50
LINES = "application/x-ndjson"


def listed() -> list[dict[str, Any]]:
    """Every agent of the code, and those that only stored versions name: two queries."""
    newest = agent_versions.newest()
    told = [_row(agent, newest.pop(agent.type, None)) for agent in agents.everyone()]
    return told + [{"type": shown.visible(name), "version": one, "gone": True} for name, one in newest.items()]


def _row(agent: Agent, version: AgentVersion | None) -> dict[str, Any]:
    told = agent_versions.told(version)
    fitted = overrides.fit(agent, told)
    return {
        "agent": agent,
        "now": fitted.agent,
        "offered": agent.type in {one.type for one in agents.available()},
        "tools": len(fitted.agent.tools),
        "version": version,
        "set": [LABELS[part] for part in LABELS if part in told],
        "misfits": _misfits(fitted),
    }


def _misfits(fitted: overrides.Fitted) -> list[str]:
    return [
        f"{LABELS.get(part, shown.visible(part))}: {shown.visible(why)}"
        for part, wrong in fitted.misfits.items()
        for why in wrong
    ]


def of(agent: Agent, form: DraftForm) -> dict[str, Any]:
    """One agent's page, around its form."""
    versions = list(agent_versions.of(agent.type)[: SHOWN_VERSIONS + 1])
    newest = versions[0] if versions else None
    return {
        "title": agent.name,
        "agent": agent,
        "form": form,
        "parts": [_part(agent, form, part) for part in form.parts],
        "newest": newest,
        "versions": [_of_version(one) for one in versions[:SHOWN_VERSIONS]],
        "more": len(versions) > SHOWN_VERSIONS,
        "misfits": _row(agent, newest)["misfits"],
    }


def wrong(form: DraftForm) -> list[str]:
    """Why a draft cannot be tried, in lines."""
    found = []
    for name, told in form.errors.items():
        label = form.fields[name].label if name in form.fields else ""
        found += [f"{label}: {one}" if label else str(one) for one in told]
    return found


def _part(agent: Agent, form: DraftForm, part: str) -> dict[str, Any]:
    told = {"name": part, "label": LABELS[part], "field": form[part], "set": form[f"{part}_set"]}
    if part == "tools":
        chosen = set(form[part].value() or ())
        return told | {
            "tools": [_tool(agent, tool, chosen) for tool in overrides.choosable()],
            "fixed": overrides.fixed_tools(agent),
            "own": ", ".join(agent.tools) or _("none"),
        }
    own = "\n".join(agent.file_rules) if part == "file_rules" else getattr(agent, part)
    unset = {
        "file_rules": _("any path"), "model": _("the installation's model"), "temperature": _("the provider's own"),
    }  # fmt: skip
    return told | {"own": shown.visible(own) if own not in ("", None) else unset[part]}


def _tool(agent: Agent, tool: Tool, chosen: set[str]) -> dict[str, Any]:
    return {
        "name": tool.name,
        "description": tool.description,
        "chosen": tool.name in chosen,
        "own": tool.name in agent.tools,
        "dangerous": tool.dangerous,
        "here": tool.side == "server",
        "on_request": tool.on_request and tool.name not in settings.CLIENT_TOOLS,
    }


def _of_version(one: AgentVersion) -> dict[str, Any]:
    told = agent_versions.told(one)
    return {"version": one, "set": [LABELS[part] for part in LABELS if part in told]}


def result(outcome: Outcome) -> dict[str, Any]:
    """What came of a trial."""
    first = outcome.first_token_ms
    return {
        **{name: getattr(outcome, name) for name in ("model", "text", "reasoning", "usage", "fault")},
        "calls": [
            {"name": call.name, "refused": call.refused, "shown": shown.arguments(call.arguments)}
            for call in outcome.calls
        ],
        "first_token": "—" if first is None else shown.duration(first / 1000),
        "took": shown.duration(outcome.took_ms / 1000),
    }


async def lines(heard: AsyncIterator[str | Outcome], language: str) -> AsyncIterator[str]:
    """JSON a line: {"text"} for each piece of the answer as it comes, then {"html"} with all there is to show."""
    async for one in heard:
        if isinstance(one, str):
            yield json.dumps({"text": one}) + "\n"
            continue
        with override(language):
            html = render_to_string("admin/agents_app/agent_result.html", {"result": result(one)})
        yield json.dumps({"html": html}) + "\n"


def version(one: AgentVersion, against: str) -> dict[str, Any]:
    """One version beside the one before it, or what applies now, or the code."""
    newest = agent_versions.of(one.agent).first()
    others = {"before": agent_versions.before(one), "now": newest, "code": None}
    against = against if against in others else "before"
    other = others[against]
    try:
        own = agents.defined(one.agent)
    except KeyError:
        own = Agent(one.agent, one.agent, "", "")
    old, new = agent_versions.told(other), agent_versions.told(one)
    return {
        "title": _("Version {number} of {agent}").format(number=one.number, agent=shown.visible(own.name)),
        "agent": own,
        "version": one,
        "newest": newest,
        "is_newest": newest is not None and newest.number == one.number,
        "in_code": any(agent.type == one.agent for agent in agents.everyone()),
        "against": against,
        "other": other,
        "set": _of_version(one)["set"],
        "misfits": _row(own, one)["misfits"],
        "differences": [
            {"label": LABELS[found.part], "lines": [(line.sign, shown.visible(line.text)) for line in found.lines]}
            for found in overrides.differences(own, old, new)
        ],
    }
