"""What may be set for an agent, what is refused or left out and why, and what two versions differ in."""

from __future__ import annotations

from typing import Any

import pytest

from agents_app import agents, overrides, tools
from agents_app.overrides import MAX_PROMPT_CHARACTERS, NOWHERE, Line

CODER, ARCHITECT, ROUTER = (agents.defined(name) for name in ("coder", "architect", "orchestrator"))


@pytest.fixture(autouse=True)
def _upstream(settings: Any) -> None:
    settings.LLM_PROXY_URL = "http://127.0.0.1:1"


def test_each_part_is_set_on_its_own_and_the_rest_stays_the_codes() -> None:
    told = {
        "prompt": "You are short.", "tools": ["read_file", "echo"], "file_rules": ["docs/**", "*.md"], "model": "big/1",
        "temperature": 1,
    }  # fmt: skip
    for part, value in told.items():
        fitted = overrides.fit(CODER, {part: value})
        assert fitted.misfits == {}
        for other in told.keys() - {part}:
            assert getattr(fitted.agent, other) == getattr(CODER, other)
    whole = overrides.fit(CODER, told).agent
    assert whole.prompt == "You are short."
    assert whole.tools == ("read_file", "echo", "attempt_completion", "ask_followup_question")
    assert (whole.file_rules, whole.model, whole.temperature) == (("docs/**", "*.md"), "big/1", 1.0)


def test_tools_that_steer_the_turn_stay_as_the_code_has_them() -> None:
    assert overrides.fit(CODER, {"tools": []}).agent.tools == ("attempt_completion", "ask_followup_question")
    assert "switch_mode" in overrides.fit(ARCHITECT, {"tools": ["read_file"]}).agent.tools
    assert overrides.fit(CODER, {"tools": ["switch_mode"]}).misfits["tools"] == [
        "switch_mode steers the turn: the code says who has it."
    ]


@pytest.mark.parametrize(
    ("part", "value", "why"),
    [
        ("prompt", "  \n", "without a prompt"),
        ("prompt", None, "without a prompt"),
        ("prompt", "x" * (MAX_PROMPT_CHARACTERS + 1), "at most"),
        ("prompt", "x\n" * 3000, "at most"),
        ("prompt", "a\0b", "NUL"),
        ("prompt", "a\ud800b", "broken characters"),
        ("tools", ["read_file", "no_such_tool"], "no tool no_such_tool"),
        ("tools", ["read_file", "read_file"], "twice"),
        ("tools", ["<b>"], "no tool '<b>'"),
        ("tools", "read_file", "no list"),
        ("tools", [["read_file"]], "no tool"),
        ("file_rules", ["/etc/**"], "relative"),
        ("file_rules", ["../**"], ".. segment"),
        ("file_rules", ["a\\b"], "/ between segments"),
        ("file_rules", ["[z-a]"], "range"),
        ("file_rules", ["a\u202eb"], "control character"),
        ("file_rules", [""], "empty segment"),
        ("file_rules", ["*"] * 101, "at most"),
        ("file_rules", [1], "no list"),
        ("model", "", "1 to 255"),
        ("model", "m" * 256, "1 to 255"),
        ("model", "a b", "no spaces"),
        ("model", "a\x07", "control character"),
        ("temperature", 2.1, "from 0 to 2"),
        ("temperature", -0.1, "from 0 to 2"),
        ("temperature", float("nan"), "from 0 to 2"),
        ("temperature", True, "from 0 to 2"),
        ("temperature", "hot", "from 0 to 2"),
        ("mode", "single", "no such part"),
    ],
)
def test_what_does_not_fit_is_said_and_never_raised(part: str, value: Any, why: str) -> None:
    [told] = overrides.fit(CODER, {part: value}).misfits[part][:1]
    assert why in told


def test_the_orchestrator_has_neither_tools_nor_rules() -> None:
    assert overrides.open_parts(ROUTER) == ("prompt", "model", "temperature")
    fitted = overrides.fit(ROUTER, {"tools": ["read_file"], "file_rules": ["*"], "temperature": 0.7})
    assert set(fitted.misfits) == {"tools", "file_rules"}
    assert (fitted.agent.tools, fitted.agent.file_rules, fitted.agent.temperature) == ((), (), 0.7)


def test_what_is_left_out_never_allows_more() -> None:
    assert overrides.fit(CODER, {"tools": ["read_file", "gone"]}).agent.tools[0] == "read_file"
    assert overrides.fit(CODER, {"tools": ["gone"]}).agent.tools == ("attempt_completion", "ask_followup_question")
    assert overrides.fit(CODER, {"file_rules": ["docs/**", "/etc/**"]}).agent.file_rules == ("docs/**",)
    nowhere = overrides.fit(CODER, {"file_rules": ["/etc/**"]}).agent
    assert nowhere.file_rules == NOWHERE
    with pytest.raises(tools.ToolRefused, match="you may only write"):
        tools.check(nowhere, "write_file", {"path": "a.txt", "content": ""})


def test_garbage_from_a_database_is_the_codes_definition() -> None:
    for garbage in (None, [], "x", 3, {"prompt": {}}):
        assert overrides.fit(CODER, garbage).agent.prompt == CODER.prompt


def test_without_an_upstream_there_is_only_the_built_in_model(settings: Any) -> None:
    settings.LLM_PROXY_URL = ""
    assert overrides.fit(CODER, {"model": "fake-llm"}).misfits == {}
    assert "LLM_PROXY_URL" in overrides.fit(CODER, {"model": "gpt"}).misfits["model"][0]


def test_a_comparison_shows_lines_of_the_prompt_and_names_of_the_rest() -> None:
    old = {"prompt": "one\ntwo\nthree", "tools": ["read_file", "write_file"], "temperature": 0.5}
    new = {"prompt": "one\n2\nthree", "tools": ["write_file", "list_files"]}
    found = {one.part: one.lines for one in overrides.differences(CODER, old, new)}
    assert [line for line in found["prompt"] if line.sign != "@"] == [
        Line(" ", "one"), Line("-", "two"), Line("+", "2"), Line(" ", "three"),
    ]  # fmt: skip
    assert found["tools"] == [Line("-", "read_file"), Line("+", "list_files"), Line(" ", "write_file")]
    assert found["temperature"] == [Line("-", "0.5")]
    assert set(found) == {"prompt", "tools", "temperature"}
    assert overrides.differences(CODER, {}, {"tools": overrides.chosen_tools(CODER)}) == []
