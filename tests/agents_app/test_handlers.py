"""Event handlers in the running server: at least once, tried again, given up, replayed, and none harms another."""

from __future__ import annotations

import asyncio
import io
import logging
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from django.core.management import CommandError, call_command
from django.db import transaction
from django.utils import timezone

from agents_app import delivering, handlers
from agents_app.handlers import NotDelivered, handles
from sessions_app import database, deliveries, services
from sessions_app.deliveries import RetryPolicy
from sessions_app.models import DeliveryState, Event, EventDelivery, Session
from tests.conftest import RunningServer

AT_ONCE = RetryPolicy(max_attempts=3, first_seconds=0)
ONCE = RetryPolicy(max_attempts=1)
NEVER = RetryPolicy(max_attempts=3, first_seconds=3600)
PATIENCE_SECONDS = 30


@pytest.fixture(autouse=True)
def _forgotten_after_the_test() -> Iterator[None]:
    with handlers.temporarily():
        yield


def until(holds: Callable[[], bool]) -> None:
    """Waits for what another thread does; fails when it does not."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, list(EventDelivery.objects.values("handler", "state", "last_error"))
        time.sleep(0.01)


def states(handler: str = "") -> list[str]:
    return list(deliveries.listed(handler=handler).order_by("pk").values_list("state", flat=True))


def all_delivered(handler: str) -> Callable[[], bool]:
    return lambda: set(states(handler)) == {"delivered"}


def only(handler: str) -> EventDelivery:
    return EventDelivery.objects.get(handler=handler)


class Ledger:
    """Remembers what a handler was given, in any thread."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.heard = threading.Event()

    def note(self, event: Event) -> None:
        self.events.append(event)
        self.heard.set()

    @property
    def seqs(self) -> list[int]:
        return [event.seq for event in self.events]


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


# --- delivered ---------------------------------------------------------------------------------------------------


def test_async_and_sync_handlers_get_the_event_after_its_commit(running: RunningServer, ledger: Ledger) -> None:
    found: list[bool] = []

    @handles("SessionCreated")
    async def awaited(event: Event) -> None:
        found.append(await database.read(Session.objects.filter(session_id="s1").exists))
        ledger.note(event)

    @handles("SessionCreated")
    def threaded(event: Event) -> None:
        found.append(Session.objects.filter(session_id=event.session.session_id).exists())
        ledger.note(event)

    services.create_session("s1")
    until(lambda: states() == ["delivered", "delivered"])
    assert found == [True, True]
    stored = Event.objects.get(type="SessionCreated")
    assert {event.event_id for event in ledger.events} == {stored.event_id}


def test_a_handler_of_a_category_gets_all_its_types_and_no_others(running: RunningServer, ledger: Ledger) -> None:
    handles("Session*", name="category")(ledger.note)
    services.create_session("s1")
    services.switch_agent("s1", "coder")
    services.deactivate("s1")
    until(all_delivered("category"))
    assert sorted(event.type for event in ledger.events) == ["SessionCreated", "SessionDeactivated"]


def test_a_turn_in_the_server_is_delivered_too(running: RunningServer, client: httpx.Client, ledger: Ledger) -> None:
    handles("TaskCompleted", "MessageReceived", name="turns", in_order=True)(ledger.note)
    message = {"type": "user_message", "content": "hello", "agent_type": "ask"}
    client.post("/agent/message/stream", json={"session_id": "s1", "message": message})
    until(lambda: states("turns") == ["delivered"] * 2)
    assert [event.type for event in ledger.events] == ["MessageReceived", "TaskCompleted"]


def test_many_events_are_each_delivered_once(running: RunningServer, ledger: Ledger) -> None:
    handles("SessionCreated", name="each")(ledger.note)
    for number in range(30):
        services.create_session(f"s{number}")
    until(all_delivered("each"))
    assert len(ledger.events) == len({event.event_id for event in ledger.events}) == 30


def test_event_that_is_rolled_back_is_not_delivered(running: RunningServer, ledger: Ledger) -> None:
    handles("SessionCreated", name="never_happened")(ledger.note)
    with transaction.atomic():
        services.create_session("s1")
        transaction.set_rollback(True)
    services.create_session("s2")
    until(all_delivered("never_happened"))
    assert [event.session.session_id for event in ledger.events] == ["s2"]


def test_order_within_a_session_is_kept_for_a_handler_that_asks(running: RunningServer, ledger: Ledger) -> None:
    refused = threading.Event()

    @handles("Session*", in_order=True, retries=AT_ONCE)
    def in_order(event: Event) -> None:
        if event.type == "SessionDeactivated" and not refused.is_set():
            refused.set()
            raise NotDelivered("not yet")
        ledger.note(event)

    services.create_session("s1")
    for _ in range(4):
        services.deactivate("s1")
        services.activate("s1")
    until(all_delivered("in_order"))
    assert refused.is_set()
    assert ledger.seqs == sorted(ledger.seqs)
    assert len(ledger.seqs) == 9


# --- failing -----------------------------------------------------------------------------------------------------


def test_a_failure_is_tried_again_until_it_succeeds(running: RunningServer, ledger: Ledger) -> None:
    @handles("SessionCreated", retries=AT_ONCE)
    async def third_time_lucky(event: Event) -> None:
        ledger.note(event)
        if len(ledger.events) < 3:
            raise NotDelivered("not yet")

    services.create_session("s1")
    until(all_delivered("third_time_lucky"))
    assert len({event.event_id for event in ledger.events}) == 1
    assert (only("third_time_lucky").attempts, only("third_time_lucky").last_error) == (3, "")


def test_after_its_last_attempt_it_is_a_dead_letter_and_a_replay_delivers_it(
    running: RunningServer, ledger: Ledger
) -> None:
    @handles("SessionCreated", retries=AT_ONCE)
    def broken(event: Event) -> None:
        ledger.note(event)
        if len(ledger.events) <= 3:
            raise NotDelivered("The other side says no.")

    services.create_session("s1")
    until(lambda: states("broken") == ["dead"])
    dead = only("broken")
    assert (dead.attempts, dead.last_error) == (3, "The other side says no.")
    assert deliveries.replay([dead.pk]) == 1
    until(all_delivered("broken"))
    assert len(ledger.events) == 4


class Unkind(BaseException):
    pass


@pytest.mark.parametrize(
    "error", [ValueError("the key is hunter2"), Unkind("hunter2"), SystemExit("hunter2"), asyncio.CancelledError()]
)
@pytest.mark.parametrize("is_async", [True, False])
def test_whatever_a_handler_raises_costs_only_its_own_delivery(
    running: RunningServer, ledger: Ledger, error: BaseException, is_async: bool
) -> None:
    async def awaited(event: Event) -> None:
        raise error

    def threaded(event: Event) -> None:
        raise error

    handles("SessionCreated", name="raises", retries=ONCE)(awaited if is_async else threaded)
    handles("SessionCreated", name="works")(ledger.note)
    services.create_session("s1")
    until(lambda: states("raises") == ["dead"])
    until(all_delivered("works"))
    kept = only("raises").last_error
    assert kept.startswith(f"{type(error).__name__} at test_handlers.py:")
    assert "hunter2" not in kept
    assert httpx.get(f"{running.url}/health", timeout=30).status_code == 200


@pytest.mark.parametrize("is_async", [True, False])
def test_a_handler_that_hangs_is_given_up_and_holds_up_nobody(
    running: RunningServer, ledger: Ledger, is_async: bool
) -> None:
    release = threading.Event()
    calls: list[int] = []

    async def awaited(event: Event) -> None:
        calls.append(event.seq)
        await asyncio.Event().wait()

    def threaded(event: Event) -> None:
        calls.append(event.seq)
        release.wait(PATIENCE_SECONDS)

    chosen = awaited if is_async else threaded
    handles("SessionCreated", name="hangs", timeout_seconds=0.05, retries=AT_ONCE)(chosen)
    handles("SessionCreated", name="works")(ledger.note)
    try:
        for number in range(6):
            services.create_session(f"s{number}")
        until(all_delivered("works"))
        until(lambda: states("hangs") == ["dead"] * 6)
        errors = set(EventDelivery.objects.filter(handler="hangs").values_list("last_error", flat=True))
        expected = "Not done after 0.05 s." if is_async else "Earlier calls of the handler still hang."
        assert errors == {expected}
        assert len(calls) == (18 if is_async else 6), "a thread cannot be ended, so no second one joins it"
    finally:
        release.set()


def test_an_async_handler_that_will_not_be_cancelled_holds_up_nobody(running: RunningServer, ledger: Ledger) -> None:
    release = asyncio.Event()

    @handles("SessionCreated", timeout_seconds=0.05, retries=ONCE)
    async def stubborn(event: Event) -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                ledger.note(event)

    services.create_session("s1")
    until(lambda: states("stubborn") == ["dead"])
    assert ledger.heard.wait(PATIENCE_SECONDS)
    handles("SessionUpdated", name="works")(ledger.note)
    services.update_session("s1", title="Told")
    until(all_delivered("works"))
    running.loop.call_soon_threadsafe(release.set)
    until(lambda: not delivering.courier._hanging["stubborn"])


def test_a_slow_handler_takes_only_its_own_places(running: RunningServer, ledger: Ledger) -> None:
    release = threading.Event()
    at_work: list[int] = []

    @handles("SessionCreated")
    def slow(event: Event) -> None:
        at_work.append(event.seq)
        release.wait(PATIENCE_SECONDS)

    handles("SessionCreated", name="quick")(ledger.note)
    try:
        for number in range(10):
            services.create_session(f"s{number}")
        until(all_delivered("quick"))
        assert len(ledger.events) == 10
        assert len(at_work) <= delivering.AT_ONCE
        assert states("slow").count("running") <= delivering.AT_ONCE
    finally:
        release.set()
    until(all_delivered("slow"))


def test_a_failure_waits_before_it_is_tried_again(running: RunningServer, ledger: Ledger) -> None:
    @handles("SessionCreated", retries=NEVER)
    def waits(event: Event) -> None:
        ledger.note(event)
        raise NotDelivered("later")

    services.create_session("s1")
    until(lambda: states("waits") == ["due"] and only("waits").last_error == "later")
    handles("SessionUpdated", name="after")(ledger.note)
    services.update_session("s1", title="Told")
    until(all_delivered("after"))
    assert [event.type for event in ledger.events] == ["SessionCreated", "SessionUpdated"]


# --- processes ---------------------------------------------------------------------------------------------------


def left_behind(**changes: Any) -> None:
    """As a process leaves a delivery that was killed while it ran it."""
    ended = {"lease_until": timezone.now() - timedelta(seconds=1), "attempts": 1, **changes}
    EventDelivery.objects.update(state=DeliveryState.RUNNING, lease_owner="a killed process", **ended)


@pytest.mark.django_db(transaction=True)
def test_what_a_killed_process_ran_is_taken_over(ledger: Ledger, request: pytest.FixtureRequest) -> None:
    handles("SessionCreated", name="survivor", retries=AT_ONCE)(ledger.note)
    services.create_session("s1")
    left_behind()
    request.getfixturevalue("running")
    until(all_delivered("survivor"))
    assert only("survivor").attempts == 2


@pytest.mark.django_db(transaction=True)
def test_a_handler_that_kills_every_process_is_given_up(ledger: Ledger, request: pytest.FixtureRequest) -> None:
    handles("SessionCreated", name="poison", retries=AT_ONCE)(ledger.note)
    services.create_session("s1")
    left_behind(attempts=3)
    request.getfixturevalue("running")
    until(lambda: states("poison") == ["dead"])
    assert only("poison").last_error == delivering.UNREPORTED
    assert ledger.events == []


@pytest.mark.django_db(transaction=True)
def test_what_another_process_runs_is_left_to_it(ledger: Ledger, request: pytest.FixtureRequest) -> None:
    handles("SessionCreated", name="elsewhere")(ledger.note)
    services.create_session("s1")
    left_behind(lease_until=timezone.now() + timedelta(hours=1))
    request.getfixturevalue("running")
    handles("SessionUpdated", name="here")(ledger.note)
    services.update_session("s1", title="Told")
    until(all_delivered("here"))
    assert states("elsewhere") == ["running"]
    assert [event.type for event in ledger.events] == ["SessionUpdated"]


def test_a_process_that_ends_gives_back_what_it_runs(running: RunningServer, ledger: Ledger) -> None:
    @handles("SessionCreated", retries=ONCE)
    async def interrupted(event: Event) -> None:
        ledger.note(event)
        await asyncio.Event().wait()

    services.create_session("s1")
    assert ledger.heard.wait(PATIENCE_SECONDS)
    asyncio.run_coroutine_threadsafe(delivering.courier.stop(0), running.loop).result(PATIENCE_SECONDS)
    left = only("interrupted")
    assert (left.state, left.attempts, left.lease_until) == ("due", 0, None)


def test_what_a_handler_is_owed_waits_for_a_process_that_has_it(running: RunningServer, ledger: Ledger) -> None:
    with handlers.temporarily():
        handles("SessionCreated", name="removed", retries=NEVER)(_refuse)
        services.create_session("s1")
        until(lambda: set(EventDelivery.objects.values_list("state", "attempts")) == {("due", 1)})
    handles("SessionUpdated", name="present")(ledger.note)

    def looked_again(title: str) -> None:
        """A look of the courier that began after this has handed something over, so those before it are done."""
        services.update_session("s1", title=title)
        until(all_delivered("present"))

    looked_again("The look that still knew the removed one is over")
    assert deliveries.replay([only("removed").pk]) == 1
    looked_again("The one after it found the delivery due")
    assert (states("removed"), only("removed").attempts) == (["due"], 0)


def _refuse(event: Event) -> None:
    raise NotDelivered("no")


# --- registering -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patterns", "options", "complaint"),
    [
        ((), {}, "Name the event types"),
        (("AgentSwithced",), {}, "'AgentSwithced'"),
        (("SessionCreated", "Nothing*"), {}, "'Nothing*'"),
        (("SessionCreated",), {"name": "taken"}, "'taken'"),
        (("SessionCreated",), {"name": "x" * 101}, "longer than 100"),
    ],
)
def test_mistakes_are_told_when_a_handler_is_registered(
    patterns: tuple[str, ...], options: dict[str, Any], complaint: str, ledger: Ledger
) -> None:
    handles("SessionCreated", name="taken")(ledger.note)
    with pytest.raises(ValueError) as told:
        handles(*patterns, **options)(ledger.note)
    assert complaint in str(told.value)


def test_what_is_registered_temporarily_is_forgotten(ledger: Ledger) -> None:
    before = handlers.registered()
    with handlers.temporarily():
        handles("*")(_refuse)
        assert handlers.registered().keys() - before.keys() == {"_refuse"}
    assert handlers.registered() == before


def test_the_log_sink_is_there_only_when_asked_for(settings: Any) -> None:
    assert ("log_sink" in handlers.registered()) is settings.EVENT_LOG


def test_the_log_sink_tells_what_happened_and_nothing_that_was_said(
    running: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    handles("*", name="log", in_order=True)(handlers.log_sink)
    with caplog.at_level(logging.INFO, logger="agents_app.handlers"):
        services.create_session("s1")
        services.switch_agent("s1", "coder", reason="the secret plan")
        until(all_delivered("log"))
    lines = [record.getMessage() for record in caplog.records if record.name == "agents_app.handlers"]
    assert [line.split()[0] for line in lines] == list(Event.objects.order_by("seq").values_list("type", flat=True))
    assert "session='s1' seq=1 " in lines[0]
    assert not [line for line in lines if "secret plan" in line]


# --- manage.py deliveries ----------------------------------------------------------------------------------------


def manage(*arguments: str) -> str:
    out = io.StringIO()
    call_command("deliveries", *arguments, stdout=out)
    return out.getvalue()


@pytest.fixture
def buried(db: None) -> list[EventDelivery]:
    """Two dead letters and one that is due."""
    handles("SessionCreated", name="first")(_refuse)
    handles("SessionCreated", name="second")(_refuse)
    handles("SessionUpdated", name="due")(_refuse)
    services.create_session("s1")
    services.update_session("s1", title="Told")
    for name in ("first", "second"):
        (claimed,) = deliveries.claim(name, owner="me", lease_seconds=30, limit=1)
        deliveries.fail(claimed, "HTTP 503", policy=ONCE, chance=0)
    return list(deliveries.listed(state=DeliveryState.DEAD).order_by("pk"))


def test_list_shows_deliveries_and_counts(buried: list[EventDelivery]) -> None:
    told = manage("list")
    assert len(told.splitlines()) == 4
    assert told.splitlines()[-1] == "1 due, 0 running, 0 delivered, 2 dead, 0 discarded"
    dead = manage("list", "--dead").splitlines()
    assert [line.split()[0] for line in dead[:-1]] == [str(delivery.pk) for delivery in reversed(buried)]
    assert "SessionCreated #1 of s1" in dead[0]
    assert dead[0].endswith("HTTP 503")
    assert len(manage("list", "--handler", "first").splitlines()) == 2
    assert len(manage("list", "--limit", "1").splitlines()) == 2


@pytest.mark.parametrize(("arguments", "left"), [(["--dead"], 0), (["--dead", "--handler", "first"], 1), (["{id}"], 1)])
def test_replay_makes_dead_letters_due(buried: list[EventDelivery], arguments: list[str], left: int) -> None:
    told = manage("replay", *(argument.format(id=buried[0].pk) for argument in arguments))
    assert told == f"{2 - left} made due\n"
    assert states().count("dead") == left


@pytest.mark.parametrize(("arguments", "left"), [(["--dead"], 0), (["--dead", "--handler", "first"], 1), (["{id}"], 1)])
def test_discard_ends_dead_letters_and_keeps_them(buried: list[EventDelivery], arguments: list[str], left: int) -> None:
    told = manage("discard", *(argument.format(id=buried[0].pk) for argument in arguments))
    assert told == f"{2 - left} discarded\n"
    assert (states().count("dead"), states().count("discarded")) == (left, 2 - left)
    with pytest.raises(CommandError, match="no dead letters"):
        manage("discard", str(only("due").pk))


@pytest.mark.parametrize(
    "arguments", [[], ["1", "--dead"], ["1", "--handler", "first"], ["999999999"], ["not-a-number"]]
)
def test_replay_refuses_what_it_cannot_do(buried: list[EventDelivery], arguments: list[str]) -> None:
    with pytest.raises(CommandError):
        manage("replay", *arguments)
    assert states().count("dead") == 2


# --- a handler that is gone --------------------------------------------------------------------------------------


def owed_to(handler: str, event: Event, *, due_for_seconds: float, **fields: Any) -> EventDelivery:
    due_at = timezone.now() - timedelta(seconds=due_for_seconds)
    return EventDelivery.objects.create(event=event, handler=handler, next_at=due_at, **fields)


def test_what_a_renamed_handler_was_owed_is_a_dead_letter_and_its_new_name_goes_on(
    server: RunningServer, client: httpx.Client, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    session = services.create_session("s")
    created = Event.objects.get(session=session, type="SessionCreated")
    late = timezone.now() - timedelta(seconds=2 * delivering.UNKNOWN_SECONDS)
    gone = [owed_to("old_name", created, due_for_seconds=2 * delivering.UNKNOWN_SECONDS)]
    gone.append(owed_to("older_name", created, due_for_seconds=0, state="running", lease_until=late, lease_owner="x"))
    young = owed_to("another_process_may_have_it", created, due_for_seconds=0)
    handles("SessionUpdated", name="new_name", in_order=True)(ledger.note)
    client.get("/health")  # the server's loops begin with what comes first
    client.patch("/sessions/s", json={"title": "New"})
    until(lambda: [EventDelivery.objects.get(pk=one.pk).state for one in gone] == ["dead", "dead"])
    until(all_delivered("new_name"))
    assert {EventDelivery.objects.get(pk=one.pk).last_error for one in gone} == {delivering.UNKNOWN}
    assert EventDelivery.objects.get(pk=young.pk).state == "due"
    assert client.get("/health/ready").json()["checks"]["outbox"]["dead_letters"] == 2
    out = io.StringIO()
    call_command("deliveries", "list", "--dead", stdout=out)
    assert "old_name" in out.getvalue()
    assert "No handler of this name is installed" in out.getvalue()
    assert any("'old_name'" in record.getMessage() for record in caplog.records)


def test_it_takes_its_dead_letters_once_it_has_its_old_name_again(
    server: RunningServer, client: httpx.Client, ledger: Ledger
) -> None:
    session = services.create_session("s")
    created = Event.objects.get(session=session, type="SessionCreated")
    delivery = owed_to("old_name", created, due_for_seconds=2 * delivering.UNKNOWN_SECONDS)
    client.get("/health")
    until(lambda: states("old_name") == ["dead"])
    handles("SessionCreated", name="old_name")(ledger.note)
    assert deliveries.replay([delivery.pk]) == 1
    until(all_delivered("old_name"))
    assert [event.pk for event in ledger.events] == [created.pk]
