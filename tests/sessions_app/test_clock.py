"""A host whose clock is off: leases are measured by the database's."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from django.db import connection
from django.utils import timezone

from sessions_app import clock, leases, services
from sessions_app.models import Run, RunState, Session

HOUR = timedelta(hours=1)
pytestmark = pytest.mark.django_db


@pytest.fixture
def real_now() -> datetime:
    return timezone.now()


@pytest.fixture(params=[HOUR, -HOUR], ids=["ahead", "behind"])
def off(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, real_now: datetime) -> timedelta:
    """This host's clock is an hour off, and nobody has compared it yet."""
    monkeypatch.setattr(timezone, "now", lambda: datetime.now(tz=real_now.tzinfo) + request.param)
    monkeypatch.setattr(clock, "_ahead", timedelta())
    return request.param


def at_work(lease_until: datetime) -> Session:
    session = services.create_session(f"s{Session.objects.count()}")
    Run.objects.create(session=session, state=RunState.RUNNING, lease_owner="another:1:a", lease_until=lease_until)
    return session


def test_a_lease_of_another_host_is_neither_lost_early_nor_kept_late(off: timedelta, real_now: datetime) -> None:
    at_work(real_now + timedelta(minutes=5))
    lost = at_work(real_now - timedelta(minutes=5))
    assert leases.expired() == [lost.pk]


def test_a_lease_that_is_renewed_here_ends_by_the_databases_clock(off: timedelta, real_now: datetime) -> None:
    run = Run.objects.get(session=at_work(real_now))
    assert leases.tick("another:1:a", [run.pk], {}) == ({run.pk}, set())
    run.refresh_from_db()
    assert timedelta(seconds=10) < run.lease_until - real_now < timedelta(minutes=5)


def test_the_databases_time_is_known_once_it_was_compared(
    off: timedelta, real_now: datetime, caplog: pytest.LogCaptureFixture
) -> None:
    if connection.vendor == "sqlite":
        clock.compare()
        assert abs(clock.now() - timezone.now()) < timedelta(minutes=5)  # the file is this host's: there is no other
        assert caplog.text == ""
        return
    assert abs(clock.now() - real_now) > HOUR / 2
    clock.compare()
    assert abs(clock.now() - real_now) < timedelta(minutes=5)
    assert "the database's clock is" in caplog.text
    caplog.clear()
    clock.compare()
    assert caplog.text == ""  # said once
