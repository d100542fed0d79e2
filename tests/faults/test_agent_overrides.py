"""What is set for an agent reaches every process by itself, and outlives each of them."""

from __future__ import annotations

import pytest

from tests import talk
from tests.faults.servers import until
from tests.faults.sites import Node, Site

pytestmark = pytest.mark.timeout(300)


def asked_by(site: Site, node: Node) -> str:
    """How the model is introduced to the agent in a turn of this process."""
    assert talk.say(node.client, "s", "Go", agent_type="ask").error is None
    return str(site.model.requests[-1].body["messages"][0]["content"])


def heard(site: Site, node: Node, prompt: str) -> None:
    until(lambda: asked_by(site, node) == prompt, 60, "the process hears of it")


def test_every_process_and_the_next_one_asks_as_it_was_set(site: Site) -> None:
    one, two = site.serve(), site.serve()
    before = asked_by(site, one)
    assert asked_by(site, two) == before
    site.change(
        "INSERT INTO sessions_app_agentversion (agent, number, overrides, who, note, created_at) "
        """VALUES ('ask', 1, '{"prompt": "You are new."}', 'anna', '', '2026-01-01 00:00:00+00')"""
    )
    for node in (one, two):
        heard(site, node, "You are new.")
    assert asked_by(site, site.serve()) == "You are new."
    assert site.manage("agents", "restore", "ask", "0")[0] == 0
    for node in (one, two):
        heard(site, node, before)
    assert site.rows("SELECT count(*) FROM sessions_app_llmrequest WHERE agent_version = 2") != [(0,)]
