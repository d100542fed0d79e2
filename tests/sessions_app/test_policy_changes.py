"""What differs between two versions of the rules, in people's words: a table of pure cases."""

from __future__ import annotations

from typing import Any

import pytest

from sessions_app.policy_changes import MAX_COMPARED, compare


def rule(pattern: str, action: str = "ask", **fields: Any) -> dict[str, Any]:
    """As a version keeps it."""
    told = {
        "order": 10, "pattern": pattern, "agent": "", "paths": "", "commands": "", "argument": "", "expression": "",
        "action": action, "reason": "", "expires_seconds": None, "valid_until": None, "enabled": True,
    }  # fmt: skip
    return told | fields


A, B, C, D = (rule(name) for name in "abcd")


def said(old: list[Any], new: list[Any]) -> list[Any]:
    """Kind, rule, place, the place that it had, the fields that changed."""
    return [
        (one.kind, one.rule["pattern"], one.place, one.was_place, [name for name, _, _ in one.fields])
        for one in compare(old, new)
    ]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ([], [], []),
        ([A, B], [A, B], []),
        ([A], [rule("a", order=70)], []),  # a number is no difference where the place is the same
        ([], [A], [("added", "a", 1, None, [])]),
        ([A, B], [B], [("removed", "a", 1, None, [])]),
        ([A, B, C, D], [A, C, D, B], [("moved", "b", 4, 2, [])]),
        ([A, B, C, D], [D, A, B, C], [("moved", "d", 1, 4, [])]),
        ([A, B], [A, rule("b", "forbid")], [("changed", "b", 2, None, ["action"])]),
        (
            [A, B, C],
            [A, C, rule("b", enabled=False)],
            [("moved", "c", 2, 3, []), ("changed", "b", 3, None, ["enabled"])],
        ),
        ([A, A, B], [A, B], [("removed", "a", 2, None, [])]),
        ([A], [B], [("added", "b", 1, None, []), ("removed", "a", 1, None, [])]),
        (
            [rule("*", paths="x"), rule("*", "forbid", paths="y")],
            [rule("*", "forbid", paths="z")],
            [("changed", "*", 1, None, ["paths"]), ("removed", "*", 1, None, [])],
        ),
    ],
)  # fmt: skip
def test_versions_are_compared_rule_by_rule(old: list[Any], new: list[Any], expected: list[Any]) -> None:
    assert said(old, new) == expected


def test_a_change_tells_the_old_and_the_new_value() -> None:
    (one,) = compare([rule("a", reason="x")], [rule("a", "allow", reason="y")])
    assert one.fields == [("action", "ask", "allow"), ("reason", "x", "y")]


def test_a_rule_that_shares_too_little_is_another_one() -> None:
    new = rule("a", "forbid", paths="p", commands="c", reason="r")
    assert [one.kind for one in compare([A], [new])] == ["added", "removed"]


def test_too_many_rules_to_compare_each_with_each_are_told_as_gone_and_come() -> None:
    many = int(MAX_COMPARED**0.5) + 1
    kinds = [one.kind for one in compare([rule("a", reason=str(n)) for n in range(many)],
                                         [rule("a", "allow", reason=str(n)) for n in range(many)])]  # fmt: skip
    assert kinds == ["added"] * many + ["removed"] * many
