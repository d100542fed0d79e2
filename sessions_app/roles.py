"""The three groups of operators, as a migration makes them. Imports nothing of ours.

A viewer looks at everything and changes nothing; an operator frees, cancels, decides, replays, and tries drafts of
agents; an administrator also deletes, sets rules, agents, keys and webhooks, and manages the accounts.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

VIEWER, OPERATOR, ADMINISTRATOR = "viewer", "operator", "administrator"
APP = "sessions_app"
OPERATES = ("session", "approval", "eventdelivery", "breaker")
TRIES = "try_agentversion"  # costs tokens, and changes nothing


def permissions(role: str, known: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """Those of the `known` (app, codename) that a role has."""
    ours = {(app, name) for app, name in known if app == APP}
    views = {(app, name) for app, name in ours if name.startswith("view_")}
    if role == VIEWER:
        return views
    if role == OPERATOR:
        return views | {(APP, f"change_{model}") for model in OPERATES} & ours | {(APP, TRIES)} & ours
    accounts = {(app, name) for app, name in known if app == "auth" and name.endswith(("_user", "_group"))}
    return ours | accounts


def make(apps: Any) -> None:
    """Makes the groups, or brings them up to date. What an administrator added to them stays."""
    group_model, permission_model = apps.get_model("auth", "Group"), apps.get_model("auth", "Permission")
    rows = {
        (row.content_type.app_label, row.codename): row
        for row in permission_model.objects.select_related("content_type")
    }
    for role in (VIEWER, OPERATOR, ADMINISTRATOR):
        group, _ = group_model.objects.get_or_create(name=role)
        group.permissions.add(*(rows[one] for one in permissions(role, rows)))
