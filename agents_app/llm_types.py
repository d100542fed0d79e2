"""What a model answers, in our own shape. Imports nothing of ours."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Usage:
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0


@dataclass(slots=True)
class RequestedCall:
    """A tool call as the model wrote it: `id` may be empty or used before, `arguments` may be broken JSON."""

    id: str
    name: str
    arguments: str


@dataclass(slots=True)
class Answer:
    text: str
    reasoning: str
    calls: list[RequestedCall]
    usage: Usage
    model: str
    finish_reason: str
