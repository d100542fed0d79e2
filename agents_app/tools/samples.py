"""Two tools executed here, to try the runtime with and to start your own from. No agent has them by default, and
neither ever evaluates code."""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable
from typing import Annotated

from pydantic import Field

from agents_app.tools.declaration import SERVER, ToolRefused, Words, tool

MAX_EXPRESSION_LENGTH = 500
MAX_DEPTH = 50
MAX_BITS = 4096
ARITHMETIC = re.compile(r"[0-9eE_.+\-*/%() \t]*")

Number = int | float
OPERATIONS: dict[type[ast.operator], Callable[[Number, Number], Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: lambda a, b: a // b if isinstance(a, int) and isinstance(b, int) and not a % b else a / b,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: lambda a, b: _power(a, b),
}


@tool(side=SERVER, runs=True)
def echo(text: Annotated[str, Field(description="The text to repeat.")]) -> str:
    """Repeat a text."""
    return text


@tool(side=SERVER, runs=True)
def calculator(
    expression: Annotated[
        Words, Field(max_length=MAX_EXPRESSION_LENGTH, description="For example (2 + 3) * 4 ** 2 / 7.")
    ],
) -> str:
    """Calculate an expression of numbers, brackets and + - * / // % **."""
    try:
        return _written(_value(_parsed(expression.strip()), depth=0))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ToolRefused("The expression could not be read: only numbers, brackets and + - * / // % **.") from None
    except ZeroDivisionError:
        raise ToolRefused("The expression divides by zero.") from None
    except OverflowError:
        raise ToolRefused("The result is too large.") from None


def _parsed(expression: str) -> ast.expr:
    if not ARITHMETIC.fullmatch(expression):
        raise ValueError
    return ast.parse(expression, mode="eval").body


def _value(node: ast.expr, *, depth: int) -> Number:
    """Only literal numbers and arithmetic are looked at; whatever else was parsed is refused, never run."""
    if depth > MAX_DEPTH:
        raise RecursionError
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return _bounded(number)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _value(operand, depth=depth + 1)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, depth=depth + 1)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATIONS:
            return _bounded(OPERATIONS[type(op)](_value(left, depth=depth + 1), _value(right, depth=depth + 1)))
    raise ValueError


def _power(base: Number, exponent: Number) -> Number:
    """Refused before it is worked out: 9**9**9**9 would take all memory there is."""
    if isinstance(base, int) and isinstance(exponent, int) and base.bit_length() * abs(exponent) > MAX_BITS:
        raise OverflowError
    power = base**exponent
    if isinstance(power, complex):
        raise ToolRefused("The result is not a real number.")
    return power


def _bounded(number: Number) -> Number:
    too_large = number.bit_length() > MAX_BITS if isinstance(number, int) else not math.isfinite(number)
    if too_large:
        raise OverflowError
    return number


def _written(number: Number) -> str:
    return str(number) if isinstance(number, int) else f"{number:.15g}"
