"""The team: who is there, what each may do, and what a mistake in their files looks like."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pytest_django import Settings

from agents_app import agents, tools
from agents_app.agents import Agent

READING = {"read_file", "list_files", "search_in_code"}
ENDING = {"attempt_completion", "ask_followup_question"}
WRITING = {"write_file", "create_directory", "apply_diff", "move_file", "delete_file"}
EVERYONE = ["orchestrator", "coder", "architect", "debug", "ask", "universal"]


def types() -> list[str]:
    return [agent.type for agent in agents.available()]


def test_the_team_works_together_or_one_does_all(settings: Settings) -> None:
    settings.MULTI_AGENT_MODE = True
    shipped = ["orchestrator", "coder", "architect", "debug", "ask"]
    assert [type_ for type_ in types() if type_ in shipped] == shipped
    settings.MULTI_AGENT_MODE = False
    assert types() == ["orchestrator", "universal"]


@pytest.mark.parametrize(
    ("agent", "may_use"),
    [
        ("orchestrator", set()),
        ("coder", READING | WRITING | ENDING | {"execute_command"}),
        ("architect", READING | ENDING | {"write_file", "switch_mode"}),
        ("debug", READING | ENDING | {"execute_command", "switch_mode"}),
        ("ask", READING | ENDING | {"switch_mode"}),
        ("universal", READING | WRITING | ENDING | {"execute_command"}),
    ],
)
def test_each_agent_has_the_tools_of_the_contract(agent: str, may_use: set[str]) -> None:
    assert set(agents.get(agent).tools) == may_use


def test_only_the_architect_is_held_to_file_rules() -> None:
    assert {name: agents.get(name).file_rules for name in EVERYONE if agents.get(name).file_rules} == {
        "architect": ("**/*.md",)
    }


def test_offers_follow_the_settings_in_the_order_of_the_agent(settings: Settings) -> None:
    settings.CLIENT_TOOLS = []
    assert [tool.name for tool in tools.offered(agents.get("coder"))] == [
        "read_file",
        "list_files",
        "search_in_code",
        "write_file",
        "create_directory",
        "execute_command",
        "attempt_completion",
        "ask_followup_question",
    ]
    settings.CLIENT_TOOLS = ["apply_diff", "move_file", "delete_file"]
    assert [tool.name for tool in tools.offered(agents.get("coder"))] == list(agents.get("coder").tools)
    assert tools.offered(agents.get("orchestrator")) == []


@pytest.mark.parametrize(
    ("name", "multi", "single"),
    [
        ("coder", "coder", None),
        ("code", "coder", None),
        ("orchestrator", "orchestrator", "orchestrator"),
        ("universal", None, "universal"),
        ("Coder", None, None),
        ("coder ", None, None),
        ("_common", None, None),
        ("", None, None),
    ],
)
def test_names_of_clients_are_resolved_in_the_current_mode(
    settings: Settings, name: str, multi: str | None, single: str | None
) -> None:
    settings.MULTI_AGENT_MODE = True
    assert agents.resolve(name) == multi
    settings.MULTI_AGENT_MODE = False
    assert agents.resolve(name) == single


def test_sessions_of_the_other_mode_still_find_their_agent(settings: Settings) -> None:
    settings.MULTI_AGENT_MODE = False
    assert agents.get("coder").type == "coder"
    with pytest.raises(KeyError, match="nobody"):
        agents.get("nobody")


@pytest.mark.parametrize("name", EVERYONE)
def test_prompts_say_what_every_agent_must_know(name: str) -> None:
    prompt = agents.get(name).prompt
    assert 20 <= len(prompt.splitlines()) <= 80
    assert "language of the person's latest message" in prompt
    assert "is data" in prompt
    assert ("attempt_completion" in prompt) is bool(agents.get(name).tools)
    assert ("switch_mode" in prompt) is ("switch_mode" in agents.get(name).tools)


@pytest.mark.parametrize("name", EVERYONE)
def test_prompts_name_no_tool_that_the_agent_lacks(name: str) -> None:
    agent = agents.get(name)
    named = {tool.name for tool in tools.all_tools() if "_" in tool.name and tool.name in agent.prompt}
    assert named <= set(agent.tools)


def test_the_agents_as_they_are_have_no_problems(settings: Settings) -> None:
    assert agents.problems() == []
    settings.CLIENT_TOOLS = ["aply_diff"]
    assert agents.problems() == ["CLIENT_TOOLS names the unknown tool 'aply_diff'."]


GOOD = Agent(type="tester", name="Tester", description="Tests.", prompt="Test.", tools=("read_file",))


@pytest.mark.parametrize(
    ("team", "complaint"),
    [
        ([GOOD], None),
        ([GOOD, GOOD], "More than one agent is called 'tester'."),
        ([GOOD, replace(GOOD, type="b", aliases=("tester",))], "More than one agent is called 'tester'."),
        (
            [replace(GOOD, type="a", aliases=("x",)), replace(GOOD, type="b", aliases=("x",))],
            "More than one agent is called 'x'.",
        ),
        ([replace(GOOD, tools=("reed_file",))], "Agent 'tester' names the unknown tool 'reed_file'."),
        ([replace(GOOD, tools=("echo", "echo"))], "Agent 'tester' names the tool 'echo' twice."),
        ([replace(GOOD, prompt=" \n")], "Agent 'tester' has no prompt."),
        ([replace(GOOD, type="t" * 33)], f"Agent '{'t' * 33}' must have a type of 1 to 32 characters."),
    ],
)
def test_mistakes_in_an_agent_are_named(team: list[Agent], complaint: str | None) -> None:
    assert agents.complaints(team) == ([complaint] if complaint else [])
