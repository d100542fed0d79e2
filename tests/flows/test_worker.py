"""Turns that workers execute: they outlive every web process, and no worker's death or absence loses a message."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests import talk
from tests.faults.servers import missing_postgres, postgres
from tests.listening import following, posting, same_story, stored, truth
from tests.model_server import Gate, strict, text, tool_calls, verdict
from tests.workers import GRACE_SECONDS, LEASE_SECONDS, NEEDED, SHARED, Installation, fresh_database

pytestmark = pytest.mark.skipif(not SHARED, reason=NEEDED)
AS_OFTEN = 3  # a bound that the contract names is asserted at three times its value
GONE = {0, -signal.SIGTERM, 143}


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as one:
        yield one


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A database that all others are copies of."""
    with ExitStack() as stack:
        site = Installation(stack, tmp_path_factory.mktemp("migrated"), stack.enter_context(fresh_database()))
        done = site.manage("migrate", "--verbosity", "0")
        assert done.returncode == 0, done.stderr
        yield site.database


@pytest.fixture
def site(tmp_path: Path, stack: ExitStack, migrated: str) -> Installation:
    return Installation(stack, tmp_path, stack.enter_context(fresh_database(migrated)))


def eventually(holds: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        time.sleep(0.02)


def test_a_turn_streams_from_the_worker_while_the_model_still_writes(site: Installation) -> None:
    worker, (web, client) = site.work(), site.serve()
    gate = Gate()
    site.model.route(verdict("ask"))
    site.model.reply(text("Early ", gate, "late"))
    with posting(client, "s1", "go") as listening:
        listening.until(lambda heard: heard.tokens == "Early ")
        assert f":{worker.process.pid}:" in site.owners()[0]
        gate.open()
        heard = listening.ended()
    assert heard.tokens == "Early late"
    assert heard.contents == ["Early late"]
    assert heard.types[0] == "agent_switched"
    same_story(heard, stored(client, "s1"))
    truth(client, "s1")
    eventually(lambda: site.jobs() == [])
    assert site.manage("doctor").returncode == 0
    worker.clean()
    web.clean()


def test_a_turn_outlives_its_web_process_and_a_new_one_resumes_it_exactly(site: Installation) -> None:
    site.work()
    web, client = site.serve()
    silent, last = Gate(), Gate()
    site.model.reply(text("Начало — ", silent, "while nobody served, ", last, "and the end 🙂"))
    with posting(client, "s1", "go", agent_type="ask") as listening:
        listening.until(lambda heard: heard.tokens == "Начало — ")
        seen, cursor = listening.heard.tokens, listening.heard.cursors[-1]
        web.kill()
    silent.open()
    _, again = site.serve()
    assert site.runs() == ["running"]
    with following(again, "s1", after=cursor) as listening:
        listening.until(lambda heard: heard.tokens == "while nobody served, ")
        last.open()
        heard = listening.until(lambda heard: heard.frames[-1]["is_final"])
    assert seen + heard.tokens == "Начало — while nobody served, and the end 🙂"
    site.until(["completed"])
    assert truth(again, "s1")[-1]["content"] == seen + heard.tokens
    assert len(site.model.requests) == 1


def test_a_killed_worker_costs_the_turn_and_nothing_else(site: Installation) -> None:
    worker, (web, client) = site.work(), site.serve()
    site.model.reply(text("Shown before the end ", Gate()))
    with posting(client, "s1", "go", agent_type="ask") as listening:
        listening.until(lambda heard: heard.tokens == "Shown before the end ")
        eventually(lambda: site.rows("SELECT 1 FROM sessions_app_message WHERE content LIKE 'Shown%'"))
        worker.kill()
        killed_at = time.monotonic()
        heard = listening.ended(AS_OFTEN * (LEASE_SECONDS + 1))
        assert time.monotonic() - killed_at < AS_OFTEN * (LEASE_SECONDS + 1)
    assert heard.error is not None
    assert heard.error["code"] == "INTERRUPTED"
    assert site.runs() == ["interrupted"]
    assert truth(client, "s1")[-1]["content"] == "Shown before the end "
    site.rows("UPDATE procrastinate_workers SET last_heartbeat = now() - interval '1 hour'")
    site.work()
    assert talk.say(client, "s1", "Still there?").tokens == "Hello world"
    assert strict(site.model.requests[-1].body["messages"]) == []
    eventually(lambda: site.jobs() == [])
    web.clean()


def test_a_tool_call_goes_out_and_its_result_takes_the_run_on(site: Installation) -> None:
    site.work()
    _, client = site.serve()
    site.model.reply(tool_calls([("c1", "read_file", '{"path": "a.txt"}')]), text("It says x"))
    asked = talk.say(client, "s1", "Read it", agent_type="ask")
    assert [call["call_id"] for call in asked.calls] == ["c1"]
    assert site.runs() == ["waiting"]
    assert talk.result(client, "s1", "c1", "x").tokens == "It says x"
    assert site.runs() == ["completed"]
    assert strict(site.model.requests[-1].body["messages"]) == []
    assert [m["role"] for m in site.model.requests[-1].body["messages"]] == ["system", "user", "assistant", "tool"]
    truth(client, "s1")


def test_a_waiting_message_starts_though_its_web_process_is_gone(site: Installation) -> None:
    site.work()
    web, client = site.serve()
    gate = Gate()
    site.model.reply(text("one", gate), text("two"))
    with posting(client, "s1", "first", agent_type="ask") as one, posting(client, "s1", "second") as two:
        one.until(lambda heard: heard.tokens == "one")
        two.begun()
        site.until(["running", "queued"])
        web.kill()
    gate.open()
    site.until(["completed", "completed"])
    _, again = site.serve()
    assert [row["content"] for row in truth(again, "s1")] == ["first", "one", "second", "two"]


def test_a_cancel_reaches_the_worker_from_any_process(site: Installation) -> None:
    site.work()
    _, client = site.serve()
    _, other = site.serve()
    site.model.reply(text("So far ", Gate()))
    with posting(client, "s1", "go", agent_type="ask") as listening:
        listening.until(lambda heard: heard.tokens == "So far ")
        assert other.post("/sessions/s1/cancel").status_code == 200
        listening.ended(AS_OFTEN * 1)
    assert site.runs() == ["cancelled"]
    eventually(lambda: site.model.connections_closed_by_client == 1)
    assert truth(client, "s1")[-1]["content"] == "So far "
    assert talk.say(client, "s1", "And now?").tokens == "Hello world"
    assert strict(site.model.requests[-1].body["messages"]) == []


def test_a_run_that_no_worker_has_claimed_is_cancelled_at_once(site: Installation) -> None:
    _, client = site.serve()
    with posting(client, "s1", "go", agent_type="ask") as listening:
        site.until(["running"])
        assert client.post("/sessions/s1/cancel").status_code == 200
        assert site.runs() == ["cancelled"]
        listening.ended()
    assert len(site.jobs()) == 1
    site.work()
    eventually(lambda: site.jobs() == [])
    assert site.model.requests == []
    assert talk.say(client, "s1", "And now?", agent_type="ask").tokens == "Hello world"


def test_a_lost_job_is_replaced(site: Installation) -> None:
    _, client = site.serve()
    with posting(client, "s1", "go", agent_type="ask") as listening:
        site.until(["running"])
        site.rows("DELETE FROM procrastinate_jobs")
        site.work()
        assert listening.ended(AS_OFTEN * (LEASE_SECONDS + 1)).tokens == "Hello world"
    assert len(site.model.requests) == 1


def test_a_run_waits_for_the_first_worker_with_one_job_however_long(site: Installation) -> None:
    _, client = site.serve()
    with posting(client, "s1", "go", agent_type="ask") as listening:
        site.until(["running"])
        first = site.rows("SELECT lease_until FROM sessions_app_run")
        eventually(lambda: site.rows("SELECT lease_until FROM sessions_app_run") != first)  # offered again
        assert site.jobs() == ["todo"]
        site.work()
        assert listening.ended().tokens == "Hello world"


def test_a_job_delivered_twice_runs_once(site: Installation) -> None:
    _, client = site.serve()
    with posting(client, "s1", "go", agent_type="ask") as listening:
        site.until(["running"])
        twins = "SELECT queue_name, task_name, args, 'twin ' || n FROM procrastinate_jobs, generate_series(1, 5) n"
        site.rows(f"INSERT INTO procrastinate_jobs (queue_name, task_name, args, queueing_lock) {twins}")
        assert len(site.jobs()) == 6
        site.work()
        site.work()
        assert listening.ended().tokens == "Hello world"
    eventually(lambda: site.jobs() == [])
    assert len(site.model.requests) == 1
    assert site.runs() == ["completed"]
    truth(client, "s1")


def test_a_stopping_worker_ends_what_it_can_and_leaves_new_runs_to_others(site: Installation) -> None:
    worker, (_, client) = site.work(), site.serve()
    gate = Gate()
    site.model.reply(text("Done in ", gate, "time"))
    with posting(client, "quick", "go", agent_type="ask") as quick:
        quick.until(lambda heard: heard.tokens == "Done in ")
        site.model.reply(text("Cut ", Gate()))
        with posting(client, "slow", "go", agent_type="ask") as slow:
            slow.until(lambda heard: heard.tokens == "Cut ")
            worker.terminate()
            asked_at = time.monotonic()
            eventually(lambda: "draining" in worker.errors.read_text())
            with posting(client, "next", "go", agent_type="ask") as following_one:
                site.until(["running", "running", "running"])
                gate.open()
                assert quick.ended().tokens == "Done in time"
                assert worker.process.wait(30) in GONE
                assert time.monotonic() - asked_at < GRACE_SECONDS + AS_OFTEN * 2
                assert slow.ended().error is not None
                site.work()
                assert following_one.ended().tokens == "Hello world"
    assert site.runs() == ["completed", "interrupted", "completed"]
    assert truth(client, "slow")[-1]["content"] == "Cut "
    worker.clean()


def test_a_start_that_is_rolled_back_leaves_no_job(site: Installation) -> None:
    site.serve()
    start = """
from django.db import transaction
from agents_app import jobs
from sessions_app import runs
from sessions_app.models import HANDED_OVER
from sessions_app.runs import Request
class Undo(Exception): pass
for undo in (True, False):
    try:
        with transaction.atomic():
            jobs._with_job(lambda: runs.submit("s1", Request("go", agent="ask"), HANDED_OVER, ("ask",)))
            if undo:
                raise Undo
    except Undo:
        from procrastinate.contrib.django.models import ProcrastinateJob
        print(ProcrastinateJob.objects.count())
"""
    done = site.manage("shell", "--no-imports", "-c", start)
    assert done.stdout.split() == ["0"], done.stderr
    assert site.jobs() == ["todo"]
    assert site.runs() == ["running"]


@pytest.mark.skipif(bool(missing_postgres()), reason=missing_postgres())
def test_a_database_that_restarts_costs_neither_the_turn_nor_the_queue(tmp_path: Path, stack: ExitStack) -> None:
    cluster = stack.enter_context(postgres())
    site = Installation(stack, tmp_path, cluster.fresh(), AGENT_RUNTIME__LEASE_SECONDS="120")
    worker, (_, client) = site.work(), site.serve()
    gate = Gate()
    site.model.reply(text("Before ", gate, "and after"))
    with posting(client, "s1", "go", agent_type="ask") as listening:
        listening.until(lambda heard: heard.tokens == "Before ")
        cluster.stop()
        eventually(lambda: "the job queue " in worker.errors.read_text(), 30)
        cluster.start()
        gate.open()
    # A pool that found nobody there tries again after longer and longer waits.
    site.until(["completed"], 100)
    eventually(lambda: client.get("/sessions").status_code == 200, 60)
    assert truth(client, "s1")[-1]["content"] == "Before and after"
    assert talk.say(client, "s1", "And now?").tokens == "Hello world"
    assert site.owners()[0] == site.owners()[1]
    worker.terminate()
    assert worker.process.wait(30) in GONE
