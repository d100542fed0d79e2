"""Under whose name, and about what, a process works when a turn has ended."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from agents_app import observing, supervisor
from agents_app.supervisor import Supervisor
from sessions_app import correlation, lines, owners, places


async def test_what_follows_a_turn_is_the_servers_and_not_about_that_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    during: list[tuple[str, str]] = []
    after: asyncio.Future[tuple[dict[str, Any], str, str]] = asyncio.get_running_loop().create_future()

    async def go(turn: Any) -> None:
        during.append((owners.current(), correlation.current()))
        lines.are_about(correlation_id="turn", session_id="s", run_id=7)

    async def start_waiting(self: Supervisor) -> None:
        after.set_result((dict(lines.common()), owners.current(), correlation.current()))

    monkeypatch.setattr(observing, "go", go)
    monkeypatch.setattr(supervisor, "Turn", lambda work: SimpleNamespace(run=work.run))
    monkeypatch.setattr(places, "are_limited", lambda: True)
    monkeypatch.setattr(Supervisor, "_start_waiting", start_waiting)
    with owners.acting_for("anna"), correlation.followed_as("request"):
        Supervisor().start(SimpleNamespace(run=SimpleNamespace(id=7, lease_owner="me")))  # type: ignore[arg-type]
        assert (owners.current(), correlation.current()) == ("anna", "request")
    about, owner, followed_as = await after
    assert during == [(owners.SERVICE, correlation.NONE)]
    assert (owner, followed_as) == (owners.SERVICE, correlation.NONE)
    assert "run_id" not in about
