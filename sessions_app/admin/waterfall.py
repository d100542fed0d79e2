"""A run as a waterfall: its requests to the model and its tool calls, each a bar between the run's beginning and end.

Bars are in thousandths of the run's length, for the inline SVG of the page.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone
from django.utils.translation import gettext as _

from sessions_app.admin import columns, shown
from sessions_app.models import LLMRequest, Run, ToolCall

WIDTH = 1000
LEAST = 4
SHOWN_BARS = 60


@dataclass(frozen=True, slots=True)
class Bar:
    """`mark` is where the first token came, when it did."""

    label: str
    tone: str
    took: str
    start: int
    width: int
    mark: int | None = None


def bars(runs: Sequence[Run]) -> dict[int, list[Bar]]:
    """The bars of each run, in the order in which they began: two queries, however many runs there are."""
    began = {run.pk: run.created_at for run in runs}
    spans: dict[int, list[tuple[datetime, datetime, str, str, float | None]]] = defaultdict(list)
    for asked in LLMRequest.objects.filter(run__in=began):
        end = asked.started_at + timedelta(milliseconds=asked.duration_ms)
        label = _("routing") if asked.purpose == LLMRequest.ROUTING else shown.visible(asked.agent or asked.model)
        first = None if asked.first_token_ms is None else asked.first_token_ms / 1000
        spans[asked.run_id].append((asked.started_at, end, label, "busy" if asked.success else "bad", first))
    for call in ToolCall.objects.filter(run__in=began).defer("arguments", "late_results"):
        end = call.ended_at or timezone.now()
        spans[call.run_id].append((call.requested_at, end, shown.visible(call.name), columns.tone(call.state), None))
    return {run.pk: _scaled(run, spans[run.pk]) for run in runs}


def _scaled(run: Run, spans: list[Any]) -> list[Bar]:
    end = max([run.ended_at or timezone.now(), *(span[1] for span in spans)])
    whole = max((end - run.created_at).total_seconds(), 0.001)

    def at(moment: datetime) -> int:
        part: float = (moment - run.created_at).total_seconds() / whole
        return round(max(0.0, min(1.0, part)) * (WIDTH - LEAST))

    return [
        Bar(
            label=shown.cut(label, 40),
            tone=tone,
            took=shown.duration(max((stop - start).total_seconds(), 0)),
            start=at(start),
            width=max(at(stop) - at(start), LEAST),
            mark=None if first is None else at(start + timedelta(seconds=first)),
        )
        for start, stop, label, tone, first in sorted(spans, key=lambda span: span[0])[:SHOWN_BARS]
    ]
