"""Who waited for a session's lock sees what was changed meanwhile: a run's former owner does not get past the fence."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection, connections

from sessions_app import closing, events, runs, steps, writing
from sessions_app.errors import LeaseLost, RunInterrupted
from sessions_app.models import Event, Run, RunState, Session

AGENTS = ("coder",)


def waiting_for_a_lock() -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = %s", [name()]
        )
        return int(cursor.fetchone()[0])


def name() -> str:
    return str(connection.settings_dict["NAME"])


def write_as(run: Run, begun: threading.Event) -> str:
    """What comes of an owner's write that has to wait."""
    begun.set()
    try:
        with steps.owned(run) as change:
            change.event(events.TASK_RESUMED, run=run)
    except LeaseLost:
        return "fenced"
    finally:
        connections.close_all()
    return "written"


@pytest.mark.django_db(transaction=True)
def test_an_owner_that_waited_while_its_run_was_ended_is_fenced() -> None:
    outcome = runs.submit("s", runs.Request("Go", agent="coder"), "me", AGENTS)
    run = outcome.run
    assert run is not None
    begun = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        with writing.locked("s") as change:
            writing_late = pool.submit(write_as, run, begun)
            assert begun.wait(30)
            deadline = time.monotonic() + 30
            while connection.vendor == "postgresql" and not waiting_for_a_lock():
                assert time.monotonic() < deadline
            closing.close_open_message(change, run)
            closing.end_with_fault(change, run, RunState.INTERRUPTED, events.TASK_INTERRUPTED, RunInterrupted(kept=0))
        assert writing_late.result(30) == "fenced"
    assert Run.objects.get().state == RunState.INTERRUPTED
    last = Event.objects.order_by("seq").last()
    assert last is not None
    assert (last.type, last.seq) == (events.TASK_INTERRUPTED, Session.objects.get().last_seq)
