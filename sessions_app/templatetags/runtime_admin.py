"""What the admin's templates ask for: text made visible, the header's links, the home page's tiles."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django import template

from sessions_app.admin import attention as troubles
from sessions_app.admin import board, columns, finding, shown
from sessions_app.models import Session

register = template.Library()
register.filter("visible", shown.visible)
register.filter("ago", shown.ago)
register.filter("tone", columns.tone)

PLACES = ("Session", "Approval", "Run", "ToolCall", "Event", "PolicyRule", "AgentVersion")


@register.simple_tag
def places(available_apps: Iterable[dict[str, Any]] | None, path: str) -> list[dict[str, Any]]:
    """The header's links, of those pages that this operator may see."""
    models = {model["object_name"]: model for app in available_apps or () for model in app["models"]}
    seen = [models[name] for name in PLACES if name in models and models[name]["admin_url"]]
    return [
        {
            "name": model["name"],
            "address": board.front_page(model["model"]),
            "is_current": path.startswith(model["admin_url"]),
        }
        for model in seen
    ]


@register.simple_tag
def marked(text: str, words: str) -> list[tuple[str, bool]]:
    return list(finding.marked(text, shown.visible(words)))


@register.simple_tag
def attention() -> list[troubles.Trouble]:
    return troubles.found()


@register.simple_tag
def tiles() -> list[dict[str, Any]]:
    return board.tiles()


@register.simple_tag(takes_context=True)
def home_charts(context: Any) -> dict[str, Any]:
    """The charts of the range that the address names."""
    asked = context["request"].GET.get("range")
    range_ = asked if asked in board.RANGES else board.RANGES[0]
    return {"range": range_, "charts": board.drawn(range_)}


@register.simple_tag
def latest_sessions(count: int = 10) -> Any:
    return Session.objects.order_by("-last_activity", "-pk")[:count]
