"""What ended in each hour is counted once, whatever becomes of its rows, and quantiles come from buckets."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from sessions_app import hourly, services, tallies
from sessions_app.models import HourlyTally, LLMRequest, Run, RunState, Session

NOON = (datetime.now(UTC) - timedelta(days=2)).replace(hour=12, minute=0, second=0, microsecond=0)


def a_run(ended_at: datetime, state: RunState = RunState.COMPLETED, **request: object) -> Run:
    session, _ = Session.objects.get_or_create(session_id="s")
    run = Run.objects.create(session=session, state=state, ended_at=ended_at)
    if request:
        LLMRequest.objects.create(session=session, run=run, started_at=ended_at, **request)
    return run


@pytest.mark.django_db
def test_rows_are_counted_in_the_hour_in_which_they_ended_and_once() -> None:
    a_run(NOON + timedelta(minutes=5), model="m", agent="ask", prompt_tokens=7, completion_tokens=3, first_token_ms=300)
    a_run(NOON + timedelta(minutes=59))
    a_run(NOON + timedelta(minutes=60), RunState.FAILED)
    tallies.fold()
    tallies.fold()
    later = NOON + timedelta(hours=1)
    assert hourly.since(NOON) == [
        (NOON, "agent_tokens", "ask", 10),
        (NOON, "completion", "m", 3),
        (NOON, "first_token", "0.5", 1),
        (NOON, "prompt", "m", 7),
        (NOON, "turns", "completed", 2),
        (later, "turns", "failed", 1),
    ]
    assert [row[0] for row in hourly.since(later)] == [later]


@pytest.mark.django_db
def test_a_deleted_sessions_turns_stay_in_the_charts() -> None:
    a_run(NOON)
    tallies.fold_sessions([Session.objects.get().pk])
    services.delete_session("s")
    assert [row[1:] for row in hourly.since(NOON)] == [("turns", "completed", 1)]


@pytest.mark.django_db
def test_hours_that_no_chart_shows_any_more_go() -> None:
    HourlyTally.objects.create(hour=timezone.now() - timedelta(days=hourly.KEPT_DAYS + 1), name="turns", value=1)
    a_run(timezone.now())
    tallies.fold()
    assert HourlyTally.objects.count() == 1


@pytest.mark.parametrize(
    ("buckets", "part", "seconds"),
    [
        ({}, 0.5, None),
        ({"0.1": 1}, 0.5, 0.05),
        ({"0.1": 10}, 1.0, 0.1),
        ({"0.25": 2, "0.5": 2}, 0.5, 0.25),
        ({"0.25": 2, "0.5": 2}, 0.75, 0.375),
        ({"+Inf": 5}, 0.5, 120),
    ],
)
def test_a_quantile_is_read_from_the_buckets(buckets: dict[str, int], part: float, seconds: float | None) -> None:
    assert hourly.quantile(buckets, part) == (None if seconds is None else pytest.approx(seconds))
