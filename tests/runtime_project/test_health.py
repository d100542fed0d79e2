"""Readiness: each dependency by name, degraded is not dead, and no answer waits for what hangs."""

from __future__ import annotations

import socket
import threading
import time
from datetime import timedelta
from typing import Any

import httpx
import pytest
from django.utils import timezone

from runtime_project import health
from runtime_project.probes import Probe
from sessions_app import gauges, services
from sessions_app.models import Run, RunState

OK = {"status": "ok"}
BAD = {"status": "timeout"}
LIMIT_SECONDS = 3 * 1.0  # a second is promised; three times it is asserted


@pytest.mark.parametrize(
    ("checks", "draining", "verdict"),
    [
        ({"database": OK, "redis": {"status": "unused"}}, False, (200, "ready")),
        ({"database": OK, "redis": BAD}, False, (200, "degraded")),
        ({"database": OK, "llm": {"status": "failing"}}, False, (200, "degraded")),
        ({"database": BAD, "redis": OK}, False, (503, "unavailable")),
        ({"database": OK}, True, (503, "draining")),
        ({"database": BAD}, True, (503, "draining")),
    ],
)
def test_only_without_a_database_or_while_it_goes_it_is_not_ready(
    checks: dict[str, Any], draining: bool, verdict: tuple[int, str]
) -> None:
    assert health.verdict(checks, draining=draining) == verdict


def ready(client: httpx.Client) -> dict[str, Any]:
    """A ready or degraded server's checks, in time."""
    began = time.monotonic()
    answer = client.get("/health/ready")
    assert time.monotonic() - began < LIMIT_SECONDS
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_everything_is_well(client: httpx.Client) -> None:
    found = ready(client)
    assert found["status"] == "ready"
    assert found["checks"]["database"]["status"] == "ok"
    assert found["checks"]["database"]["latency_ms"] > 0
    assert found["checks"]["redis"]["status"] == "unused"
    assert {"database", "redis", "llm", "outbox", "runs"} <= found["checks"].keys()
    assert client.get("/health/live").json() == client.get("/health").json()


def test_redis_that_is_away_or_hangs_degrades(client: httpx.Client, settings: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        settings.REDIS_URL = f"redis://127.0.0.1:{hanging.getsockname()[1]}/0"
        found = ready(client)
        assert found["status"] == "degraded"
        assert found["checks"]["redis"]["status"] in ("timeout", "failing")
        assert found["checks"]["database"]["status"] == "ok"
    found = ready(client)  # nobody listens there any more
    assert found["checks"]["redis"]["status"] != "ok"
    assert settings.REDIS_URL not in str(found)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("lease_seconds", "owner", "stuck"), [(60, "alive", 0), (-1, "late", 0), (-60, "gone", 1), (-60, "", 0)]
)
def test_a_run_whose_owner_is_gone_is_stuck(lease_seconds: int, owner: str, stuck: int) -> None:
    """Not one that was just missed, nor one that waits for a worker to claim it."""
    Run.objects.create(
        session=services.create_session("s"),
        state=RunState.RUNNING,
        lease_owner=owner,
        lease_until=timezone.now() + timedelta(seconds=lease_seconds),
    )
    assert gauges.stuck_runs() == stuck


def test_a_question_that_hangs_is_asked_once_and_answered_when_it_can_be() -> None:
    asked, go_on = [], threading.Event()

    def ask() -> int:
        asked.append(1)
        go_on.wait(30)
        return len(asked)

    probe = Probe(ask)
    first, second = probe.asked(), probe.asked()
    assert first is second
    go_on.set()
    assert first.result(30) == 1
    assert probe.asked().result(30) == 2


def test_a_question_that_fails_says_so() -> None:
    def ask() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Probe(ask).asked().result(30)
