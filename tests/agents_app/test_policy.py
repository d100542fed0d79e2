"""Which calls go out, wait for a person or are forbidden, and how soon a changed rule counts."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from agents_app import policy, tools
from agents_app.policy import RuleSet, Verdict
from sessions_app import policies
from sessions_app.models import PolicyRule, PolicyVersion

BLANK: dict[str, Any] = {
    "order": 10, "pattern": "*", "agent": "", "paths": "", "commands": "", "argument": "", "expression": "",
    "action": "ask", "reason": "", "expires_seconds": None, "valid_until": None, "enabled": True,
}  # fmt: skip


def rule(pattern: str = "*", action: str = "ask", **fields: Any) -> dict[str, Any]:
    return {**BLANK, "pattern": pattern, "action": action, **fields}


def judged(rules: list[dict[str, Any]], name: str, agent: str = "coder", **arguments: Any) -> Verdict:
    return RuleSet.of(rules, 7).judge(tools.get(name), agent, arguments)


def action(rules: list[dict[str, Any]], name: str, agent: str = "coder", **arguments: Any) -> str:
    return judged(rules, name, agent, **arguments).action.value


# --- tools, agents, order ----------------------------------------------------------------------------------------


def test_without_rules_the_tools_decide_themselves() -> None:
    assert judged([], "write_file") == Verdict(policy.RuleAction.ASK, "Writes a file", 7)
    assert judged([], "execute_command").reason == "Runs a command"
    assert judged([], "read_file").action == "allow"


def test_the_default_rules_say_what_the_tools_say() -> None:
    dangerous = {tool.name: tool.reason for tool in tools.all_tools() if tool.dangerous}
    assert {pattern: reason for _, pattern, said, reason in policy.DEFAULT_RULES if said == "ask"} == dangerous
    assert [order for order, *_ in policy.DEFAULT_RULES] == sorted({order for order, *_ in policy.DEFAULT_RULES})


def test_the_first_matching_rule_decides() -> None:
    rules = [rule("read_*", "allow"), rule("*", "ask", reason="Everything is asked"), rule("*", "forbid")]
    assert action(rules, "read_file") == "allow"
    assert judged(rules, "list_files").reason == "Everything is asked"


def test_a_rule_without_a_reason_takes_the_tools_own() -> None:
    assert judged([rule("write_*")], "write_file").reason == "Writes a file"
    assert judged([rule("write_*", "forbid")], "write_file").reason == ""


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("execute_command", True),
        ("execute_*", True),
        ("*command", True),
        ("*", True),
        ("execute", False),
        ("EXECUTE_COMMAND", False),
        ("", False),
        ("[", False),
        ("execute_command\n", False),
        ("*a" * 100, False),
        (".*", False),
    ],
)
def test_patterns_are_globs_on_the_whole_name(pattern: str, matches: bool) -> None:
    assert action([rule(pattern, "allow")], "execute_command", command="x") == ("allow" if matches else "ask")


def test_disabled_and_outlived_rules_do_not_count() -> None:
    past, future = (timezone.now() + timedelta(seconds=far) for far in (-1, 60))
    assert action([rule(action="forbid", enabled=False)], "read_file") == "allow"
    assert action([rule(action="forbid", valid_until=past.isoformat())], "read_file") == "allow"
    assert action([rule(action="forbid", valid_until=future.isoformat())], "read_file") == "forbid"


def test_a_rule_may_be_about_some_agents_only() -> None:
    rules = [rule("read_*", "forbid", agent="debug"), rule("list_*", "forbid", agent="*")]
    assert action(rules, "read_file", "debug") == "forbid"
    assert action(rules, "read_file", "coder") == "allow"
    assert action(rules, "list_files", "coder") == "forbid"


def test_only_what_the_client_executes_is_judged() -> None:
    for said in ("ask", "forbid"):
        for name in ("switch_mode", "attempt_completion", "ask_followup_question", "echo", "calculator"):
            assert action([rule(action=said)], name) == "allow"


def test_a_rule_may_give_its_approvals_another_time() -> None:
    assert judged([rule(expires_seconds=60)], "write_file").expires_seconds == 60


# --- paths -------------------------------------------------------------------------------------------------------


def test_to_allow_every_path_must_match_and_to_ask_or_forbid_one_is_enough() -> None:
    allow, forbid = [rule(action="allow", paths="docs/**")], [rule(action="forbid", paths="docs/**\nsecrets/**")]
    assert action(allow, "move_file", source="docs/a", destination="docs/b") == "allow"
    assert action(allow, "move_file", source="docs/a", destination="src/b") == "ask"
    assert action(allow, "move_file", source="docs/a", destination="docs/../src/b") == "ask"
    assert action(forbid, "move_file", source="src/a", destination="secrets/b") == "forbid"
    assert action(forbid, "read_file", path="src/a") == "allow"


def test_a_path_that_nobody_can_place_is_asked_about_where_something_is_forbidden() -> None:
    rules = [rule(action="forbid", paths="secrets/**", reason="Secrets"), rule("read_file", "allow")]
    assert judged(rules, "read_file", path="/srv/x").reason == "Secrets"
    assert action(rules, "read_file", path="/srv/x") == "ask"
    assert action(rules, "read_file", path="a/../secrets/x") == "forbid"
    assert action(rules, "read_file", path="x") == "allow"


def test_doubt_about_one_rule_does_not_hide_a_later_one_that_forbids() -> None:
    rules = [rule(action="ask", paths="secrets/**"), rule("read_*", "forbid")]
    assert action(rules, "read_file", path="/srv/x") == "forbid"


def test_a_diff_that_touches_other_files_is_not_allowed_by_its_path() -> None:
    hunk = "@@ -1 +1 @@\n-x\n+y\n"
    honest, sly = f"--- a/docs/a\n+++ b/docs/a\n{hunk}", f"--- a/src/b\n+++ b/src/b\n{hunk}"
    allow, forbid = [rule(action="allow", paths="docs/**")], [rule(action="forbid", paths="secrets/**")]
    assert action(allow, "apply_diff", path="docs/a", diff=honest) == "allow"
    assert action(allow, "apply_diff", path="docs/a", diff=sly) == "ask"
    assert action([*forbid, *allow], "apply_diff", path="docs/a", diff=sly) == "ask"


# --- commands, expressions ---------------------------------------------------------------------------------------


def test_a_command_is_allowed_alone_and_in_the_project_only() -> None:
    rules = [rule("execute_command", "allow", commands="git status\nnpm test")]
    assert action(rules, "execute_command", command="git status -s") == "allow"
    assert action(rules, "execute_command", command="npm test", cwd="web") == "allow"
    assert action(rules, "execute_command", command="npm test", cwd="../elsewhere") == "ask"
    assert action(rules, "execute_command", command="npm test", cwd="/srv") == "ask"
    assert action(rules, "execute_command", command="git status; rm -rf /") == "ask"
    assert action(rules, "read_file", path="a") == "allow"  # by its own default


def test_a_command_is_forbidden_wherever_it_hides_and_asked_about_where_nobody_can_tell() -> None:
    rules = [rule(action="forbid", commands="rm"), rule("execute_command", "allow")]
    assert action(rules, "execute_command", command="ls") == "allow"
    assert action(rules, "execute_command", command="ls; sudo rm x") == "forbid"
    assert action(rules, "execute_command", command="X=rm; $X y") == "ask"
    assert action(rules, "write_file", path="a", content="rm") == "ask"


@pytest.mark.parametrize(
    ("said", "expression", "command", "expected"),
    [
        ("allow", "git (status|diff)", "git diff", "allow"),
        ("allow", "git .*", "git diff; rm", "ask"),
        ("allow", "(?s)git .*", "git diff\nrm", "ask"),
        ("allow", "git", "git diff", "ask"),
        ("forbid", ".*rm .*", "ls\nrm x", "forbid"),
        ("forbid", "(a+)+$", "a" * 30_000 + "b", "ask"),
    ],
)
def test_an_expression_matches_the_whole_argument(said: str, expression: str, command: str, expected: str) -> None:
    rules = [rule("execute_command", said, argument="command", expression=expression)]
    assert action(rules, "execute_command", command=command) == expected


def test_an_argument_that_is_no_text_is_matched_as_json() -> None:
    rules = [rule("list_files", "forbid", argument="recursive", expression="true")]
    assert action(rules, "list_files", recursive=True) == "forbid"
    assert action(rules, "list_files", recursive=False) == "allow"
    assert action(rules, "list_files") == "allow"


def test_all_conditions_of_a_rule_must_hold() -> None:
    rules = [rule(action="forbid", agent="debug", commands="rm", argument="timeout", expression="9")]
    assert action(rules, "execute_command", "debug", command="rm", timeout=9) == "forbid"
    assert action(rules, "execute_command", "debug", command="rm", timeout=8) == "ask"
    assert action(rules, "execute_command", "coder", command="rm", timeout=9) == "ask"


# --- versions ----------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_each_saved_change_is_a_version_and_the_newest_judges(
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    PolicyRule.objects.all().delete()
    made = PolicyRule.objects.create(pattern="read_*", action="ask")
    first = policies.version().number
    with django_assert_num_queries(1):
        for _ in range(3):
            assert policy.at(first).judge(tools.get("read_file"), "coder", {"path": "a"}).needs_approval
    made.action = "forbid"
    made.save()
    assert policies.version().number == first + 1
    assert policy.at(first + 1).judge(tools.get("read_file"), "coder", {"path": "a"}).forbidden
    made.save()
    assert policies.version().number == first + 1, "nothing changed"
    made.delete()
    assert policies.version().rules == []
    assert policy.at(None).judge(tools.get("read_file"), "coder", {}).action == "allow"
    assert PolicyVersion.objects.get(number=first).rules[0]["action"] == "ask", "what was is kept"
