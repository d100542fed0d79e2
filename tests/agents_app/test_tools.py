"""What the model is offered, and what of its calls may leave."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pytest_django import Settings

from agents_app import agents, tools
from agents_app.tools import ToolRefused

ON_REQUEST = ["apply_diff", "delete_file", "move_file"]
TRAVERSALS = ["x.py", "../x.md", "docs/../x.md", "/x.md", "x.md/../y.py", "C:\\x.md", "%2e%2e/x.md", "a//b.md", "X.MD"]
EVERYTHING = tuple(tool.name for tool in tools.all_tools())


@dataclass(frozen=True)
class SomeAgent:
    tools: tuple[str, ...] = EVERYTHING
    file_rules: tuple[str, ...] = ()


ANYONE = SomeAgent()
WRITER = SomeAgent(file_rules=("**/*.md",))


@pytest.fixture(autouse=True)
def _client_knows_every_tool(settings: Settings) -> None:
    settings.CLIENT_TOOLS = ON_REQUEST


def refusal(agent: tools.Caller, name: str, arguments: object) -> str:
    with pytest.raises(ToolRefused) as refused:
        tools.check(agent, name, arguments)
    return str(refused.value)


def signature(name: str) -> str:
    """The contract's way of writing arguments: the optional ones with a question mark."""
    schema = tools.get(name).schema
    return ", ".join(key if key in schema["required"] else key + "?" for key in schema["properties"])


@pytest.mark.parametrize(
    ("name", "side", "arguments"),
    [
        ("read_file", "client", "path, encoding?, start_line?, end_line?"),
        ("write_file", "client", "path, content, encoding?, create_dirs?, backup?"),
        ("list_files", "client", "path?, recursive?, include_hidden?, pattern?"),
        ("search_in_code", "client", "query, path?, file_pattern?, case_sensitive?, regex?, max_results?"),
        ("create_directory", "client", "path, recursive?"),
        ("execute_command", "client", "command, cwd?, timeout?, shell?"),
        ("apply_diff", "client", "path, diff"),
        ("delete_file", "client", "path"),
        ("move_file", "client", "source, destination"),
        ("switch_mode", "control", "mode, reason?"),
        ("attempt_completion", "control", "result"),
        ("ask_followup_question", "control", "question, suggestions?"),
        ("echo", "server", "text"),
        ("calculator", "server", "expression"),
    ],
)
def test_every_tool_of_the_contract_takes_its_arguments(name: str, side: str, arguments: str) -> None:
    assert tools.get(name).side == side
    assert signature(name) == arguments


def test_the_shipped_tools_are_there() -> None:
    shipped = {
        "read_file", "write_file", "list_files", "create_directory", "apply_diff", "delete_file", "move_file",
        "search_in_code", "execute_command", "switch_mode", "attempt_completion", "ask_followup_question",
        "echo", "calculator",
    }  # fmt: skip
    assert shipped <= set(EVERYTHING)
    assert len(set(EVERYTHING)) == len(EVERYTHING)


@pytest.mark.parametrize("tool", tools.all_tools(), ids=lambda tool: tool.name)
def test_schemas_are_valid_closed_and_plain(tool: tools.Tool) -> None:
    Draft202012Validator.check_schema(tool.schema)
    assert list(tool.schema) == ["type", "properties", "required", "additionalProperties"]
    assert tool.schema["additionalProperties"] is False
    text = json.dumps(tool.schema)
    assert not any(word in text for word in ('"title"', '"anyOf"', '"null"', "null", "$ref", "$defs"))
    assert all(argument["description"] for argument in tool.schema["properties"].values())


def test_a_tool_is_offered_in_the_shape_of_openai() -> None:
    offer = tools.openai_schema(tools.get("execute_command"))
    assert offer["type"] == "function"
    assert offer["function"]["name"] == "execute_command"
    assert offer["function"]["description"].startswith("Run a command")
    timeout = offer["function"]["parameters"]["properties"]["timeout"]
    assert (timeout["type"], timeout["minimum"], timeout["maximum"], timeout["default"]) == ("integer", 1, 300, 60)
    assert offer["function"]["parameters"]["required"] == ["command"]


def test_paths_and_dangers_are_known_of_each_tool() -> None:
    assert tools.get("move_file").path_fields == ("source", "destination")
    assert tools.get("execute_command").path_fields == ("cwd",)
    assert {tool.name for tool in tools.all_tools() if tool.dangerous} == {
        "write_file",
        "delete_file",
        "move_file",
        "create_directory",
        "execute_command",
        "apply_diff",
    }
    assert all(tool.reason for tool in tools.all_tools() if tool.dangerous)


def test_tools_that_clients_may_not_know_are_offered_only_where_settings_name_them(settings: Settings) -> None:
    settings.CLIENT_TOOLS = ["move_file"]
    names = [tool.name for tool in tools.offered(agents.get("coder"))]
    assert "move_file" in names
    assert "apply_diff" not in names
    assert "not yours" in refusal(agents.get("coder"), "apply_diff", {"path": "a", "diff": "b"})


def test_the_defaults_of_the_schema_are_filled_in_and_nulls_left_out() -> None:
    assert tools.check(ANYONE, "list_files", {}) == {"path": ".", "recursive": False, "include_hidden": False}
    given_nulls = {"command": "ls", "cwd": None, "timeout": None}
    assert tools.check(ANYONE, "execute_command", given_nulls) == {"command": "ls", "timeout": 60, "shell": False}


def test_numbers_written_as_text_are_understood_and_large_ones_survive() -> None:
    assert tools.check(ANYONE, "read_file", {"path": "a", "start_line": "12"})["start_line"] == 12
    for large in (2**63, 2**64 + 1, 10**29 + 1):
        assert tools.check(ANYONE, "read_file", {"path": "a", "end_line": large})["end_line"] == large


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("read_file", {}, "path: field required"),
        ("read_file", {"path": None}, "path: input should be a valid string"),
        ("read_file", {"path": 5}, "path: input should be a valid string"),
        ("read_file", {"path": ""}, "path: string should have at least 1 character"),
        ("read_file", {"path": "a", "start_line": 0}, "start_line: input should be greater than or equal to 1"),
        ("read_file", {"path": "a", "file": "b"}, "file is no argument of it, it takes path, encoding"),
        ("read_file", {"path": "a\0b"}, "path: it holds a control character"),
        ("read_file", {"path": "a\nb"}, "path: it holds a control character"),
        ("list_files", {"pattern": "*\x1b"}, "pattern: it holds a control character"),
        ("execute_command", {"command": "ls", "cwd": "a\r"}, "cwd: it holds a control character"),
        ("execute_command", {"command": " \n"}, "command: must not be blank"),
        ("execute_command", {"command": "a\0b"}, "command: must not hold NUL"),
        ("execute_command", {"command": "ls", "timeout": 0}, "timeout: input should be greater than or equal to 1"),
        ("execute_command", {"command": "ls", "timeout": 301}, "timeout: input should be less than or equal to 300"),
        ("write_file", {"path": "a", "content": "x\0"}, "content: must not hold NUL"),
        ("write_file", {"path": "a", "content": {"x": 1}}, "content: input should be a valid string"),
        ("write_file", {"path": "a", "content": "\ud800"}, "content: must not hold NUL or broken"),
        ("switch_mode", {"mode": "orchestrator"}, "mode: input should be 'coder', 'architect', 'debug' or 'ask'"),
        ("switch_mode", {"mode": ["coder"]}, "mode: input should be 'coder', 'architect', 'debug' or 'ask'"),
        ("ask_followup_question", {"question": "?", "suggestions": ["a\0"]}, "suggestions: must not hold NUL"),
        ("read_file", [], "must be one JSON object"),
        ("read_file", "path", "must be one JSON object"),
        ("read_file", None, "must be one JSON object"),
    ],
)
def test_what_the_schema_refuses_is_told_shortly(name: str, arguments: object, told: str) -> None:
    text = refusal(ANYONE, name, arguments)
    assert told in text
    assert len(text) < 300
    assert "pydantic" not in text


def test_many_mistakes_are_told_with_an_end() -> None:
    text = refusal(ANYONE, "echo", {f"k{number}": number for number in range(1000)})
    assert "and 996 more" in text
    assert len(text) < 500


def test_strange_names_are_shown_printable_and_short() -> None:
    text = refusal(ANYONE, "rm\n\x1b" + "ы" * 1000, {})
    assert text.isascii()
    assert text.isprintable()
    assert len(text) < 500
    assert refusal(ANYONE, "echo", {"text": "", "a\nb\ud800": 1}).isascii()


def test_unknown_and_foreign_tools_are_refused_with_those_that_are_there() -> None:
    ask = agents.get("ask")
    assert refusal(ask, "rm_rf", {}).startswith("The tool rm_rf does not exist. Your tools: read_file, list_files")
    assert refusal(ask, "write_file", {"path": "a", "content": ""}).startswith("The tool write_file is not yours")
    assert refusal(agents.get("orchestrator"), "read_file", {"path": "a"}).endswith("Your tools: none.")


def test_the_alias_of_coder_is_understood_as_a_mode() -> None:
    assert tools.check(ANYONE, "switch_mode", {"mode": "code"}) == {"mode": "coder"}


def test_the_architect_writes_markdown_below_the_root_and_its_paths_are_cleaned() -> None:
    architect = agents.get("architect")
    assert tools.check(architect, "write_file", {"path": "./docs/x.md", "content": "#"})["path"] == "docs/x.md"
    for path in TRAVERSALS:
        assert "path" in refusal(architect, "write_file", {"path": path, "content": "#"})


def test_the_architect_reads_any_file() -> None:
    for path in ("src/x.py", "/work/x.py", "../x.py"):
        assert tools.check(agents.get("architect"), "read_file", {"path": path})["path"] == path


def test_without_file_rules_paths_go_to_the_client_as_they_are() -> None:
    for path in ("../x", "/etc/hosts", "C:\\x.md", "./x", "docs//x"):
        assert tools.check(agents.get("coder"), "write_file", {"path": path, "content": ""})["path"] == path


@pytest.mark.parametrize("bad", TRAVERSALS)
def test_both_ends_of_a_move_are_within_the_rules(bad: str) -> None:
    assert "source" in refusal(WRITER, "move_file", {"source": bad, "destination": "a.md"})
    assert "destination" in refusal(WRITER, "move_file", {"source": "a.md", "destination": bad})
    moved = tools.check(WRITER, "move_file", {"source": "./a.md", "destination": "b/./c.md"})
    assert moved == {"source": "a.md", "destination": "b/c.md"}


@pytest.mark.parametrize("bad", TRAVERSALS)
def test_every_other_writing_tool_is_within_the_rules(bad: str) -> None:
    for name, rest in (("apply_diff", {"diff": "@@"}), ("delete_file", {}), ("create_directory", {})):
        assert "path" in refusal(WRITER, name, {"path": bad, **rest})


@pytest.mark.parametrize(
    "diff",
    [
        "--- a.md\n+++ x.py\n@@ -1 +1 @@\n-a\n+b\n",
        "--- a/../x.py\n+++ b/a.md\n@@ -1 +1 @@\n",
        "--- a/a.md\n+++ b/a.md\n@@ -1 +1 @@\n-a\n+b\n--- /dev/null\n+++ b/x.py\n@@ -0,0 +1 @@\n+b\n",
        "--- a/a.md\r\n+++ b/x.py\r\n@@ -1 +1 @@\r\n",
        "diff --git a/a.md b/x.py\nrename from a.md\nrename to x.py\n",
        "diff --git a/x.py b/x.py\nnew file mode 100644\n",
        "Index: x.py\n@@ -1 +1 @@\n-a\n+b\n",
        "*** x.py\n--- x.py\n***************\n",
    ],
)
def test_a_diff_under_rules_may_name_no_other_file(diff: str) -> None:
    assert "names other files" in refusal(WRITER, "apply_diff", {"path": "a.md", "diff": diff})


@pytest.mark.parametrize(
    "diff",
    [
        "@@ -1 +1 @@\n-a\n+b\n",
        "--- a.md\n+++ a.md\n@@ -1 +1 @@\n-a\n+b\n",
        "--- a/a.md\t2026-01-01\n+++ b/a.md\t2026-01-02\n@@ -1 +1 @@\n",
        "diff --git a/a.md b/a.md\nindex 1..2 100644\n--- a/a.md\n+++ b/a.md\n@@ -1,2 +1 @@\n--- list item\n a\n",
        "--- /dev/null\n+++ b/a.md\n@@ -0,0 +1 @@\n+diff --git a/x b/y\n",
    ],
)
def test_a_diff_of_its_own_file_passes(diff: str) -> None:
    assert tools.check(WRITER, "apply_diff", {"path": "./a.md", "diff": diff}) == {"path": "a.md", "diff": diff}


def deep(levels: int) -> Any:
    value: Any = "end"
    for _ in range(levels):
        value = [value]
    return value


def test_depth_is_refused_like_any_other_wrong_type() -> None:
    nest = deep(100_000)
    assert "suggestions" in refusal(ANYONE, "ask_followup_question", {"question": "?", "suggestions": nest})
    assert "path" in refusal(ANYONE, "read_file", {"path": nest})
    assert "x is no argument" in refusal(ANYONE, "read_file", {"path": "a", "x": nest})
    while isinstance(nest, list):  # taken apart from outside in: no collector has to recurse
        nest = nest.pop()


# A few telling characters: what is wide, broken, invisible, or means something to a path.
LETTERS = "ab.1 /\\\0\n\x1b%~:é\ud800\u202e\U0001f600"
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(LETTERS, max_size=20)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(LETTERS, max_size=5), inner, max_size=3),
)
LIKELY = st.sampled_from(["a.md", "x/../y.md", "5", "-1", "true", "", " ", "\0", "\ud800", ".", "code", "NaN"])


@st.composite
def calls(draw: st.DrawFn) -> tuple[tools.Tool, dict[str, Any]]:
    tool = draw(st.sampled_from(tools.all_tools()))
    keys = st.sampled_from(list(tool.schema["properties"])) | st.text(LETTERS, max_size=8)
    return tool, draw(st.dictionaries(keys, JSON | LIKELY, max_size=6))


def outcome(agent: tools.Caller, name: str, arguments: object) -> dict[str, Any] | str:
    try:
        return tools.check(agent, name, arguments)
    except ToolRefused as refused:
        return str(refused)


@given(calls(), st.sampled_from([ANYONE, WRITER]))
def test_any_object_is_refused_or_fits_the_schema_that_was_offered(
    call: tuple[tools.Tool, dict[str, Any]], agent: SomeAgent
) -> None:
    tool, arguments = call
    checked = outcome(agent, tool.name, arguments)
    if isinstance(checked, str):
        assert checked.encode()
        return
    Draft202012Validator(tool.schema).validate(checked)
    assert tools.check(agent, tool.name, checked) == checked
    assert json.loads(json.dumps(checked)) == checked


@given(st.text(LETTERS, max_size=30), JSON)
def test_any_name_and_any_value_at_all_is_answered_by_a_refusal_or_arguments(name: str, arguments: object) -> None:
    checked = outcome(ANYONE, name, arguments)
    assert checked.encode() if isinstance(checked, str) else isinstance(checked, dict)
