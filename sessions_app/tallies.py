"""The counters of /metrics: running totals into which every finished row is folded exactly once.

A row that has ended carries `counted`; folding marks it and adds it to its totals in one transaction. So a total never
falls, neither at a restart nor when its rows are purged, and a scrape reads a handful of totals and no history. Whoever
deletes rows folds them first: `fold_sessions` inside the deleting transaction, or `fold` before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.db import models

from sessions_app import database, hourly, timings
from sessions_app.models import Approval, ApprovalState, LLMRequest, Run, Tally, ToolCall

BATCH_ROWS = 500
TURNS, TOKENS, TOOL_CALLS, DECISIONS = "turns", "tokens", "tool_calls", "approval_decisions"
FIRST_TOKEN, FIRST_TOKEN_MS = "first_token", "first_token_ms"
FIRST_TOKEN_BOUNDS = hourly.FIRST_TOKEN_BOUNDS
OTHER_TOOLS = "other"
DECISION_NAMES = {ApprovalState.APPROVED: "approve", ApprovalState.EDITED: "edit", ApprovalState.REJECTED: "reject"}

Hourly = hourly.Hourly
Series = tuple[str, str]
Counts = Iterator[tuple[Series, int]]
_tools: frozenset[str] = frozenset()


def know_tools(names: Iterable[str]) -> None:
    """The tools that are counted by name; a model may ask for any other, and all of those are one series."""
    global _tools
    _tools = frozenset(names)


# --- what a row counts for ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Source:
    """Rows that are counted: `ended` names the column that is set once such a row does not change any more."""

    model: type[models.Model]
    ended: str
    columns: tuple[str, ...]
    counts: Callable[..., Counts]


def _of_run(state: str) -> Counts:
    yield (TURNS, state), 1


def _of_request(purpose: str, prompt: int, completion: int, first_token_ms: int | None) -> Counts:
    yield (TOKENS, "prompt"), prompt
    yield (TOKENS, "completion"), completion
    if purpose == LLMRequest.ANSWER and first_token_ms is not None:
        yield (FIRST_TOKEN, timings.bucket(first_token_ms / 1000, FIRST_TOKEN_BOUNDS)), 1
        yield (FIRST_TOKEN_MS, ""), first_token_ms


def _of_call(name: str, state: str) -> Counts:
    yield (TOOL_CALLS, f"{name if name in _tools else OTHER_TOOLS} {state}"), 1


def _of_approval(state: ApprovalState) -> Counts:
    yield (DECISIONS, DECISION_NAMES.get(state, state)), 1


SOURCES = (
    Source(Run, "ended_at", ("state",), _of_run),
    Source(LLMRequest, "", ("purpose", "prompt_tokens", "completion_tokens", "first_token_ms"), _of_request),
    Source(ToolCall, "ended_at", ("name", "state"), _of_call),
    Source(Approval, "decided_at", ("state",), _of_approval),
)


# --- folding -----------------------------------------------------------------------------------------------------


def fold() -> int:
    """Counts all finished rows that are not counted yet, a batch a transaction. Returns how many there were."""
    counted = 0
    while batch := fold_batch():
        counted += batch
    return counted


def fold_batch(beside: Mapping[Series, int] | None = None) -> int:
    """One transaction of `fold`: up to BATCH_ROWS of each kind, the oldest first; and what else is to be added."""
    with database.atomic():
        counts: Counter[Series] = Counter(beside)
        hours: Counter[Hourly] = Counter()
        rows = sum(_take(source, _uncounted(source), counts, hours) for source in SOURCES)
        database.before_commit(_add_all, counts)
        database.before_commit(hourly.add_all, hours)
    return rows


def fold_sessions(sessions: Collection[int]) -> None:
    """Counts what has ended in these sessions (primary keys), in the transaction that is about to delete it."""
    with database.atomic():
        counts: Counter[Series] = Counter()
        hours: Counter[Hourly] = Counter()
        for source in SOURCES:
            while _take(source, _uncounted(source).filter(session__in=sessions), counts, hours):
                continue
        database.before_commit(_add_all, counts)
        database.before_commit(hourly.add_all, hours)


def _uncounted(source: Source) -> models.QuerySet[Any]:
    rows = source.model._default_manager.filter(counted=False)
    return rows.filter(**{f"{source.ended}__isnull": False}) if source.ended else rows


def _take(source: Source, rows: models.QuerySet[Any], counts: Counter[Series], hours: Counter[Hourly]) -> int:
    """Marks a batch of rows and adds what they count for. The rows are locked first: who waited for them on PostgreSQL
    finds them counted, and on SQLite nobody else is in a transaction. Every folder locks rows before totals."""
    locked = rows.order_by("pk").select_for_update(of=("self",), no_key=True)
    by_hour = hourly.SOURCES.get(source.model)
    columns = by_hour.columns if by_hour else ()
    taken = list(locked.values_list("pk", *columns, *source.columns)[:BATCH_ROWS])
    for _, *values in taken:
        for series, n in source.counts(*values[len(columns) :]):
            counts[series] += n
        for one, n in by_hour.counts(*values[: len(columns)]) if by_hour else ():
            hours[one] += n
    if taken:
        source.model._default_manager.filter(pk__in=[row[0] for row in taken]).update(counted=True)
    return len(taken)


def _add_all(parts: list[Counter[Series]]) -> None:
    add(sum(parts, Counter()))


def add(counts: Mapping[Series, int]) -> None:
    """Adds to the totals, in one order for everybody, so that two who add at once do not wait for each other."""
    hourly.add_up(Tally, ("name", "label"), counts)


# --- reading -----------------------------------------------------------------------------------------------------


def totals() -> dict[Series, int]:
    """All totals, of one moment: one statement."""
    return {(name, label): value for name, label, value in Tally.objects.values_list("name", "label", "value")}
