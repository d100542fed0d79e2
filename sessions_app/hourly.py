"""What ended in each hour, kept when its rows are purged: what the charts of the admin's home are drawn from.

Counted by the same folding as the running totals (`tallies`), so that a chart reads some rows an hour and no history.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import models
from django.db.models import F
from django.utils import timezone

from sessions_app import timings
from sessions_app.models import HourlyTally, LLMRequest, Run

TURNS, PROMPT, COMPLETION, AGENT_TOKENS, FIRST_TOKEN = "turns", "prompt", "completion", "agent_tokens", "first_token"
FIRST_TOKEN_BOUNDS = (0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120)  # seconds
KEPT_DAYS = 92
LABEL_CHARACTERS = 128

Hourly = tuple[datetime, str, str]


def of_run(ended_at: datetime, state: str) -> Iterator[tuple[Hourly, int]]:
    yield (hour_of(ended_at), TURNS, state), 1


def of_request(
    started_at: datetime, purpose: str, model: str, agent: str, prompt: int, completion: int, first_ms: int | None
) -> Iterator[tuple[Hourly, int]]:
    hour = hour_of(started_at)
    yield (hour, PROMPT, model[:LABEL_CHARACTERS]), prompt
    yield (hour, COMPLETION, model[:LABEL_CHARACTERS]), completion
    yield (hour, AGENT_TOKENS, agent), prompt + completion
    if purpose == LLMRequest.ANSWER and first_ms is not None:
        yield (hour, FIRST_TOKEN, timings.bucket(first_ms / 1000, FIRST_TOKEN_BOUNDS)), 1


@dataclass(frozen=True, slots=True)
class Source:
    columns: tuple[str, ...]
    counts: Callable[..., Iterator[tuple[Hourly, int]]]


SOURCES: dict[type[models.Model], Source] = {
    Run: Source(("ended_at", "state"), of_run),
    LLMRequest: Source(
        ("started_at", "purpose", "model", "agent", "prompt_tokens", "completion_tokens", "first_token_ms"), of_request
    ),
}


def hour_of(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def add_all(parts: list[Counter[Hourly]]) -> None:
    """Adds to the hours, in one order for everybody, at the end of the transaction that marks the rows as counted."""
    if add_up(HourlyTally, ("hour", "name", "label"), sum(parts, Counter())):
        HourlyTally.objects.filter(hour__lt=timezone.now() - timedelta(days=KEPT_DAYS)).delete()


def add_up(model: type[models.Model], columns: Sequence[str], counts: Mapping[Any, int]) -> bool:
    """Adds to the rows that the keys of `counts` name by these columns, in one order for everybody, so that two who add
    at once do not wait for each other. True when there were new ones."""
    rows = model._default_manager
    named = [(dict(zip(columns, key, strict=True)), n) for key, n in sorted(counts.items()) if n]
    new = [(key, n) for key, n in named if not rows.filter(**key).update(value=F("value") + n)]
    rows.bulk_create([model(**key) for key, _ in new], ignore_conflicts=True)
    for key, n in new:
        rows.filter(**key).update(value=F("value") + n)
    return bool(new)


def since(moment: datetime) -> list[tuple[datetime, str, str, int]]:
    """(hour, name, label, value) from the hour of that moment on: one statement."""
    rows = HourlyTally.objects.filter(hour__gte=hour_of(moment)).order_by("hour", "name", "label")
    return list(rows.values_list("hour", "name", "label", "value"))


def quantile(buckets: Mapping[str, int], part: float) -> float | None:
    """Seconds under which `part` of the counted lie, linear within the bucket; None when nothing was counted."""
    whole = sum(buckets.values())
    if not whole:
        return None
    wanted, below, lower = whole * part, 0, 0.0
    for bound in FIRST_TOKEN_BOUNDS:
        inside = buckets.get(f"{bound:g}", 0)
        if inside and below + inside >= wanted:
            return lower + (bound - lower) * (wanted - below) / inside
        below, lower = below + inside, float(bound)
    return lower
