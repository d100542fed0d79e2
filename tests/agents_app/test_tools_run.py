"""The tools that give their text here: the samples, and the two that end a turn."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents_app import tools
from agents_app.tools import ToolRefused


def run(name: str, **arguments: object) -> str:
    body = tools.get(name).run
    assert body is not None
    return body(**arguments)


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("2 + 3 * 4", "14"),
        (" (2 + 3) * 4 ", "20"),
        ("-2 ** 2", "-4"),
        ("+7 - -1", "8"),
        ("7 // 2", "3"),
        ("7 % 4", "3"),
        ("7 / 2", "3.5"),
        ("10 / 2", "5"),
        ("0.1 + 0.2", "0.3"),
        ("2 ** 0.5", "1.4142135623731"),
        ("2 ** -1", "0.5"),
        ("1e3", "1000"),
        ("1_000 + 1", "1001"),
        ("2 ** 64 + 1", "18446744073709551617"),
        ("2 ** 70 / 2", "590295810358705651712"),
        ("123456789012345678901234567890 * 10", "1234567890123456789012345678900"),
    ],
)
def test_arithmetic_is_exact_where_it_can_be(expression: str, result: str) -> None:
    assert run("calculator", expression=expression)[:15] == result[:15]
    assert float(run("calculator", expression=expression)) == pytest.approx(float(result))


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("9**9**9**9", "too large"),
        ("9**99999999", "too large"),
        ("(2**4000)**4000", "too large"),
        ("2**4000 * 2**4000", "too large"),
        ("1e308 * 10", "too large"),
        ("1e999", "too large"),
        ("2**4000 / 3", "too large"),
        ("10.0 ** 400", "too large"),
        ("1 / 0", "divides by zero"),
        ("1 % 0", "divides by zero"),
        ("0 ** -1", "divides by zero"),
        ("(-8) ** 0.5", "not a real number"),
        ("", "could not be read"),
        ("1 +", "could not be read"),
        ("1\n+1", "could not be read"),
        ("1if 2else 3", "could not be read"),
        ("e", "could not be read"),
        ("()", "could not be read"),
        ("2(3)", "could not be read"),
        ("1.e", "could not be read"),
        ("012", "could not be read"),
        ("1j", "could not be read"),
        ("True", "could not be read"),
        ("'a' * 9", "could not be read"),
        ("[1] * 9", "could not be read"),
        ("x", "could not be read"),
        ("__import__('os').system('true')", "could not be read"),
        ("(lambda: 1)()", "could not be read"),
        ("().__class__", "could not be read"),
        ("1 if 1 else 2", "could not be read"),
        ("1 < 2", "could not be read"),
        ("1 << 9", "could not be read"),
        ("２ + 2", "could not be read"),
        ("(" * 240 + "1" + ")" * 240, "could not be read"),
        ("-" * 400 + "1", "could not be read"),
        ("1" + "+1" * 240, "could not be read"),
    ],
)
def test_the_calculator_refuses_what_is_no_bounded_arithmetic(expression: str, told: str) -> None:
    with pytest.raises(ToolRefused, match=told):
        run("calculator", expression=expression)


@given(st.text("1+x('_[lambda:]é", max_size=40) | st.text("0123456789.eE_+-*/%() ", max_size=40))
def test_any_expression_is_answered_at_once(expression: str) -> None:
    with suppress(ToolRefused):
        assert len(run("calculator", expression=expression)) < 1300


@given(st.text("aя\n\t 😀"))
def test_echo_repeats(text: str) -> None:
    assert run("echo", text=text) == text


def test_a_completion_is_its_result() -> None:
    assert run("attempt_completion", result="Done.") == "Done."


def test_a_question_is_asked_with_its_suggestions() -> None:
    assert run("ask_followup_question", question="Which?") == "Which?"
    asked = run("ask_followup_question", question="Which?", suggestions=["SQLite", "PostgreSQL"])
    assert asked == "Which?\n\n1. SQLite\n2. PostgreSQL"


def test_tools_of_the_client_have_no_body_here() -> None:
    assert {tool.name for tool in tools.all_tools() if tool.run} == {
        "echo",
        "calculator",
        "attempt_completion",
        "ask_followup_question",
    }
