"""A handed-over run: claimed once, cancelled at once, never interrupted, offered again, and not for ever."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from sessions_app import answers, doctor, handover, history, leases, places, runs, services, steps, toolcalls
from sessions_app.answers import Result
from sessions_app.models import HANDED_OVER, Message, MessageState, Run, RunState
from sessions_app.runs import Request
from sessions_app.steps import Outcome
from sessions_app.toolcalls import Plan, Planned

pytestmark = pytest.mark.django_db
AGENTS = ("orchestrator", "coder", "ask")
RECORD: dict[str, Any] = {"purpose": "answer", "agent": "ask", "model": "m"}


@pytest.fixture(autouse=True)
def _by_workers(settings: Any) -> None:
    settings.EXECUTOR = "worker"


def handed_over(content: str = "hello", **fields: Any) -> Outcome:
    return runs.submit("s1", Request(content, **{"agent": "ask", **fields}), HANDED_OVER, AGENTS)


def claimed(run: Run, owner: str = "a worker") -> steps.Work | None:
    return handover.claim(run.session_id, run.pk, run.attempt, owner)


def the_run() -> Run:
    return Run.objects.latest("pk")


def come_late(**ago: float) -> None:
    Run.objects.update(lease_until=timezone.now() - timedelta(**(ago or {"seconds": 1})))


def state() -> str:
    return the_run().state


def test_the_claimed_work_is_what_was_handed_over() -> None:
    services.create_session("s1")
    services.add_message("s1", "user", "before")
    given = handed_over().work
    taken = claimed(the_run())
    assert given is not None
    assert taken is not None
    assert (taken.run, taken.session, taken.agent, taken.message) == (
        given.run, given.session, given.agent, given.message,
    )  # fmt: skip
    assert history.build(taken.history) == history.build(given.history)
    assert [row.content for row in taken.history] == ["before", "hello"]
    assert the_run().lease_owner == "a worker"


def test_a_run_that_is_to_be_routed_is_handed_over_without_a_message() -> None:
    handed_over(agent="")
    taken = claimed(the_run())
    assert taken is not None
    assert (taken.agent, taken.message) == ("orchestrator", None)


def test_a_run_is_claimed_once() -> None:
    handed_over()
    assert claimed(the_run(), "one") is not None
    assert claimed(the_run(), "two") is None
    assert the_run().lease_owner == "one"


@pytest.mark.parametrize("attempt", [0, 2])
def test_a_job_of_another_attempt_claims_nothing(attempt: int) -> None:
    handed_over()
    run = the_run()
    assert handover.claim(run.session_id, run.pk, attempt, "a worker") is None


def test_a_job_of_a_run_or_a_session_that_is_gone_claims_nothing() -> None:
    handed_over()
    run = the_run()
    assert handover.claim(run.session_id, run.pk + 1, 1, "a worker") is None
    services.delete_session("s1")
    assert claimed(run) is None


def test_a_claimed_run_writes_and_ends() -> None:
    handed_over()
    taken = claimed(the_run())
    assert taken is not None
    assert taken.message is not None
    steps.complete(taken.run, taken.message, "Hi", "", {**RECORD, "started_at": timezone.now()}, {"steps": 1})
    assert state() == RunState.COMPLETED
    assert doctor.examine() == []


def test_a_resumed_run_is_handed_over_again_with_the_next_attempt() -> None:
    handed_over()
    taken = claimed(the_run())
    assert taken is not None
    assert taken.message is not None
    plan = Plan([Planned("c1", "read_file", {"path": "a"})])
    record = {**RECORD, "started_at": timezone.now()}
    toolcalls.carry_out(taken.run, taken.message, "", "", record, lambda _: plan, AGENTS)
    answers.answer("s1", Result("c1", "text", failed=False), "ide", HANDED_OVER, AGENTS)
    run = the_run()
    assert (run.state, run.attempt, run.lease_owner) == (RunState.RUNNING, 2, HANDED_OVER)
    assert handover.claim(run.session_id, run.pk, 1, "a worker") is None
    assert claimed(run) is not None


def test_cancelling_ends_it_at_once_and_its_job_finds_nothing() -> None:
    handed_over()
    runs.request_cancel("s1")
    assert state() == RunState.CANCELLED
    assert claimed(the_run()) is None
    assert not Message.objects.filter(state=MessageState.OPEN).exists()
    assert doctor.examine() == []


@pytest.mark.parametrize("on_busy", ["interrupt", "rollback"])
def test_a_message_that_interrupts_it_waits_for_nobody(on_busy: str) -> None:
    handed_over("first")
    handed_over("second", on_busy=on_busy)
    assert [run.state for run in Run.objects.order_by("pk")] == [RunState.CANCELLED, RunState.QUEUED]
    assert places.startable(HANDED_OVER) == [the_run().session_id]
    outcome = runs.start_next(the_run().session_id, HANDED_OVER, AGENTS)
    assert outcome is not None
    taken = claimed(the_run())
    assert taken is not None
    said = [row.content for row in taken.history if row.role == Message.USER]
    assert said == (["second"] if on_busy == "rollback" else ["first", "second"])


def test_a_message_behind_it_waits() -> None:
    handed_over("first")
    handed_over("second")
    assert state() == RunState.QUEUED
    assert places.startable(HANDED_OVER) == []


def test_it_is_never_ended_for_want_of_an_owner() -> None:
    handed_over()
    come_late(hours=1)
    assert leases.expired() == []
    assert leases.interrupt_expired(the_run().session_id) is None
    assert leases.owners() == []
    assert doctor.examine() == []
    assert state() == RunState.RUNNING


def test_a_claimed_run_whose_lease_ran_out_is_interrupted_and_not_offered() -> None:
    handed_over()
    claimed(the_run())
    come_late()
    assert handover.unclaimed() == []
    assert handover.offer_again(the_run().session_id) is None
    assert leases.expired() == [the_run().session_id]
    leases.interrupt_expired(the_run().session_id)
    assert state() == RunState.INTERRUPTED


def test_what_nobody_claims_in_time_is_offered_once_more() -> None:
    handed_over()
    run = the_run()
    assert handover.unclaimed() == []
    come_late()
    assert handover.unclaimed() == [(run.session_id, run.pk, 1)]
    assert handover.offer_again(run.session_id) == run
    assert handover.unclaimed() == []
    assert handover.offer_again(run.session_id) is None
    assert claimed(the_run()) is not None


def test_what_nobody_claims_at_all_ends_when_a_message_has_waited_long_enough(settings: Any) -> None:
    handed_over()
    come_late()
    Run.objects.update(active_since=timezone.now() - timedelta(seconds=settings.QUEUE_WAIT_SECONDS + 1))
    assert handover.offer_again(the_run().session_id) is None
    run = the_run()
    assert (run.state, run.error_code) == (RunState.FAILED, "WAITED_TOO_LONG")
    assert doctor.examine() == []
    assert runs.retry("s1", HANDED_OVER, AGENTS).run is not None


def test_the_tick_keeps_only_what_is_at_work_here() -> None:
    """A claim whose commit was never confirmed is nobody's: its lease must lapse."""
    handed_over()
    claimed(the_run(), "me")
    until = the_run().lease_until
    assert leases.tick("me", [], {}) == (set(), set())
    assert the_run().lease_until == until
    assert leases.tick("me", [the_run().pk], {}) == ({the_run().pk}, set())
    assert the_run().lease_until != until
