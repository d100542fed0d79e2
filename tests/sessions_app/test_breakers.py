"""The circuit breaker's transitions, as a table, and its one row."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test import Client
from django.urls import reverse

from sessions_app import breakers
from sessions_app.breakers import Circuit, Verdict
from sessions_app.models import AuditEntry, Breaker
from tests.runtime_project.programs import manage
from tests.sessions_app.test_admin import operator, visitor

__all__ = ["operator", "visitor"]
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
CLOSED = Circuit()
TWO = Circuit(failures=2, last_error="LLM_CUT")
OPEN = Circuit(
    state="open",
    failures=3,
    opened_at=NOW - timedelta(minutes=5),
    next_probe_at=NOW + timedelta(seconds=10),
    last_error="LLM_TIMEOUT",
)
DUE = replace(OPEN, next_probe_at=NOW)
PROBED = replace(OPEN, state="half_open", probe="mine", next_probe_at=NOW + timedelta(seconds=15))
ABANDONED = replace(PROBED, probe="dead", next_probe_at=NOW)
OPENED = replace(OPEN, opened_at=NOW, last_error="E")


@pytest.fixture(autouse=True)
def _numbers(settings: Any) -> None:
    settings.BREAKER_FAILURES, settings.BREAKER_RESET_SECONDS, settings.LEASE_SECONDS = 3, 10, 15


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (CLOSED, CLOSED),
        (TWO, TWO),
        (OPEN, OPEN),
        (DUE, PROBED),
        (replace(OPEN, next_probe_at=NOW - timedelta(hours=1)), PROBED),
        (replace(OPEN, next_probe_at=NOW + timedelta(hours=1)), PROBED),  # a clock was set back
        (replace(PROBED, probe="another's"), replace(PROBED, probe="another's")),
        (ABANDONED, PROBED),
    ],
)
def test_one_is_let_in_when_the_time_has_come(before: Circuit, after: Circuit) -> None:
    assert breakers.admitted(before, NOW, "mine") == after


@pytest.mark.parametrize(
    ("before", "token", "verdict", "after"),
    [
        (CLOSED, "", Verdict.ANSWERED, CLOSED),
        (CLOSED, "", Verdict.FAILED, replace(CLOSED, failures=1, last_error="E")),
        (CLOSED, "", Verdict.REFUSED, CLOSED),
        (CLOSED, "", Verdict.ODD, CLOSED),
        (CLOSED, "", Verdict.NOTHING, CLOSED),
        (TWO, "", Verdict.ANSWERED, CLOSED),
        (TWO, "", Verdict.REFUSED, TWO),
        (TWO, "", Verdict.ODD, TWO),
        (TWO, "", Verdict.NOTHING, TWO),
        (TWO, "", Verdict.FAILED, OPENED),
        (TWO, "mine", Verdict.FAILED, OPENED),  # a probe that somebody's reset overtook
        *((OPEN, "", verdict, OPEN) for verdict in Verdict),
        *((PROBED, "", verdict, PROBED) for verdict in Verdict),
        *((PROBED, "late", verdict, PROBED) for verdict in Verdict),
        (PROBED, "mine", Verdict.ANSWERED, CLOSED),
        (PROBED, "mine", Verdict.REFUSED, CLOSED),
        (PROBED, "mine", Verdict.FAILED, replace(OPEN, last_error="E")),
        (PROBED, "mine", Verdict.ODD, replace(OPEN, last_error="E")),
        (PROBED, "mine", Verdict.NOTHING, DUE),
    ],
)
def test_what_a_request_makes_of_it(before: Circuit, token: str, verdict: Verdict, after: Circuit) -> None:
    assert breakers.settled(before, NOW, token, verdict, "E") == after


def test_a_living_probe_is_waited_for(settings: Any) -> None:
    later = NOW + timedelta(seconds=14)
    longer = breakers.prolonged(PROBED, later, "mine")
    assert longer == replace(PROBED, next_probe_at=later + timedelta(seconds=15))
    assert breakers.admitted(longer, NOW + timedelta(seconds=20), "another's") == longer
    assert breakers.prolonged(PROBED, later, "another's") == PROBED
    assert breakers.prolonged(CLOSED, later, "") == CLOSED


def test_zero_never_opens(settings: Any) -> None:
    settings.BREAKER_FAILURES = 0
    many = replace(CLOSED, failures=1000)
    assert breakers.settled(many, NOW, "", Verdict.FAILED, "E").state == "closed"


# --- the row -----------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_nothing_is_written_before_the_first_failure() -> None:
    assert breakers.state() == CLOSED
    breakers.change(partial(breakers.settled, now=NOW, token="", verdict=Verdict.ANSWERED))
    assert not Breaker.objects.exists()
    fail = partial(breakers.settled, now=NOW, token="", verdict=Verdict.FAILED, error="E")
    assert [breakers.change(fail).state for _ in range(3)] == ["closed", "closed", "open"]
    assert breakers.state() == replace(OPENED, version=3)
    assert breakers.reset("anna") == replace(CLOSED, version=4)
    assert breakers.state() == replace(CLOSED, version=4)


@pytest.mark.django_db(transaction=True)
def test_of_many_at_once_exactly_one_is_the_probe() -> None:
    breakers.change(lambda circuit: DUE)
    barrier, won = threading.Barrier(8), []

    def claim(token: str) -> None:
        barrier.wait()
        circuit = breakers.change(partial(breakers.admitted, now=NOW, token=token))
        won.extend([token] if circuit.probe == token else [])
        connection.close()

    threads = [threading.Thread(target=claim, args=(f"t{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert breakers.state().probe == won[0]


@pytest.mark.django_db
def test_an_operator_closes_it_and_is_named(operator: Client) -> None:
    breakers.change(lambda circuit: OPEN)
    page = reverse("admin:sessions_app_breaker_changelist")
    assert "LLM_TIMEOUT" in operator.get(page).content.decode()
    chosen = {"action": "reset", "_selected_action": [Breaker.objects.get().pk]}
    assert operator.post(page, chosen, follow=True).status_code == 200
    assert breakers.state().state == "closed"
    assert LogEntry.objects.get().change_message == "Closed by hand"
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.who) == ("breaker.reset", "operator:anna")


def test_the_command_shows_and_closes_it(tmp_path: Any) -> None:
    manage(tmp_path, "migrate")
    shown, closed = manage(tmp_path, "breaker"), manage(tmp_path, "breaker", "--reset")
    assert shown.stdout == closed.stdout == "llm  closed  failed turns in a row: 0\n"
    assert (shown.stderr, shown.returncode, closed.returncode) == ("", 0, 0)
