"""Tools that steer the turn itself; none of them reaches the client."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from agents_app.tools.declaration import CONTROL, Words, tool

Mode = Annotated[
    Literal["coder", "architect", "debug", "ask"],
    BeforeValidator(lambda mode: "coder" if mode == "code" else mode),
    Field(description="The agent that takes over."),
]
Suggestion = Annotated[Words, Field(max_length=500)]


@tool(side=CONTROL)
def switch_mode(
    mode: Mode,
    reason: Annotated[str | None, Field(max_length=500, description="Why, in one sentence for the person.")] = None,
) -> None:
    """Hand the conversation to another agent when the task is not yours: coder writes and runs code, architect
    designs and writes documents, debug finds causes, ask explains. It sees the whole conversation and goes on."""


@tool(side=CONTROL, runs=True)
def attempt_completion(
    result: Annotated[Words, Field(description="What was done and how it was checked, for the person to read.")],
) -> str:
    """Finish the task and give the result to the person. Only when all earlier calls are answered and the work is
    really done; do not end with a question."""
    return result


@tool(side=CONTROL, runs=True)
def ask_followup_question(
    question: Annotated[Words, Field(description="One clear question.")],
    suggestions: Annotated[
        list[Suggestion] | None, Field(max_length=10, description="Likely answers to choose from.")
    ] = None,
) -> str:
    """Ask the person one question and wait for the answer. Only for what the files cannot tell you and you cannot
    reasonably assume."""
    return "\n".join([question, *_numbered(suggestions)])


def _numbered(suggestions: list[str] | None) -> list[str]:
    return ["", *(f"{number}. {text}" for number, text in enumerate(suggestions, 1))] if suggestions else []
