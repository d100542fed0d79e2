"""Deliveries: written with their event, claimed once, tried again by the policy, replayed by hand."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from sessions_app import deliveries, events, metrics, services
from sessions_app.deliveries import RetryPolicy
from sessions_app.models import DeliveryState, Event, EventDelivery

HANDLER = "test_ledger"
ONCE = RetryPolicy(max_attempts=1)
AT_ONCE = RetryPolicy(max_attempts=3, first_seconds=0)


@pytest.fixture
def subscribed() -> Iterator[None]:
    events.subscribe("Session*", HANDLER)
    yield
    events.unsubscribe(HANDLER)


@pytest.fixture
def owed(db: None, subscribed: None) -> list[EventDelivery]:
    """Three events of one session that the handler asked for, oldest first."""
    services.create_session("s1")
    services.deactivate("s1")
    services.activate("s1")
    return list(EventDelivery.objects.order_by("pk"))


def claim(**changes: Any) -> list[EventDelivery]:
    return deliveries.claim(HANDLER, **{"owner": "me", "lease_seconds": 30, "limit": 10, **changes})


def lapse(delivery: EventDelivery) -> None:
    """As if its process had been killed some time ago."""
    EventDelivery.objects.filter(pk=delivery.pk).update(lease_until=timezone.now() - timedelta(seconds=1))


def state(delivery: EventDelivery) -> tuple[str, int]:
    stored = EventDelivery.objects.get(pk=delivery.pk)
    return stored.state, stored.attempts


# --- the policy --------------------------------------------------------------------------------------------------

PLAIN = RetryPolicy(max_attempts=5, first_seconds=1, factor=2, longest_seconds=5, jitter=0.5)


@pytest.mark.parametrize(
    ("policy", "attempts", "chance", "wait"),
    [
        (PLAIN, 1, 0, 1),
        (PLAIN, 2, 0, 2),
        (PLAIN, 3, 0, 4),
        (PLAIN, 4, 0, 5),
        (PLAIN, 5, 0, None),
        (PLAIN, 6, 0, None),
        (PLAIN, 1, 1, 0.5),
        (PLAIN, 2, 0.5, 1.5),
        (PLAIN, 4, 1, 2.5),
        (PLAIN, 0, 0, 1),
        (ONCE, 1, 0, None),
        (AT_ONCE, 2, 0.7, 0),
        (RetryPolicy(jitter=0), 1, 1, 1),
        (RetryPolicy(), 7, 0, 64),
        (RetryPolicy(), 8, 0, None),
        (RetryPolicy(max_attempts=10**9), 10**6, 0, 3600),
        (RetryPolicy(factor=1, first_seconds=7), 4, 0, 7),
    ],
)
def test_retry_policy(policy: RetryPolicy, attempts: int, chance: float, wait: float | None) -> None:
    assert policy.wait_seconds(attempts, chance) == wait


# --- written with the event --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "types"),
    [
        ("SessionCreated", ["SessionCreated"]),
        ("Session*", ["SessionCreated", "SessionUpdated"]),
        ("*", ["SessionCreated", "AgentAssigned", "SessionUpdated"]),
        ("session*", []),
        ("Created", []),
    ],
)
@pytest.mark.django_db
def test_only_subscribed_events_owe_a_delivery(pattern: str, types: list[str]) -> None:
    events.subscribe(pattern, HANDLER)
    try:
        services.create_session("s1")
        services.update_session("s1", title="Told")
    finally:
        events.unsubscribe(HANDLER)
    assert list(EventDelivery.objects.order_by("pk").values_list("event__type", flat=True)) == types
    assert set(EventDelivery.objects.values_list("handler", "state", "attempts")) <= {(HANDLER, "due", 0)}


@pytest.mark.django_db
def test_two_patterns_that_both_match_owe_one_delivery(subscribed: None) -> None:
    events.subscribe("SessionCreated", HANDLER)
    services.create_session("s1")
    assert EventDelivery.objects.filter(event__type="SessionCreated").count() == 1


@pytest.mark.django_db
def test_without_subscriber_an_event_costs_no_statement_more() -> None:
    def statements() -> int:
        with CaptureQueriesContext(connection) as told:
            services.update_session("s1", title="Told")
        return len(told)

    services.create_session("s1")
    without = statements()
    events.subscribe("SessionUpdated", HANDLER)
    try:
        assert statements() == without + 1
    finally:
        events.unsubscribe(HANDLER)
    assert statements() == without


@pytest.mark.django_db(transaction=True)
def test_event_that_is_rolled_back_owes_nothing(subscribed: None) -> None:
    with transaction.atomic():
        services.create_session("s1")
        assert EventDelivery.objects.exists()
        transaction.set_rollback(True)
    assert not EventDelivery.objects.exists()


@pytest.mark.django_db
def test_a_deleted_session_takes_its_deliveries_along(owed: list[EventDelivery]) -> None:
    claim(limit=1)
    services.delete_session("s1")
    assert not EventDelivery.objects.exists()


# --- taken -------------------------------------------------------------------------------------------------------


def test_a_claim_holds_a_lease_and_brings_event_and_session(
    owed: list[EventDelivery], django_assert_num_queries: Any
) -> None:
    before = timezone.now()
    claimed = claim(limit=2)
    assert [delivery.pk for delivery in claimed] == [delivery.pk for delivery in owed[:2]]
    for delivery in claimed:
        assert (delivery.state, delivery.attempts, delivery.lease_owner) == (DeliveryState.RUNNING, 1, "me")
        assert delivery.lease_until is not None
        assert timedelta(seconds=30) <= delivery.lease_until - before < timedelta(seconds=60)
        with django_assert_num_queries(0):
            assert delivery.event.session.session_id == "s1"


def test_what_is_claimed_is_not_claimed_again(owed: list[EventDelivery]) -> None:
    assert len(claim(limit=2)) == 2
    assert [delivery.pk for delivery in claim(owner="other")] == [owed[2].pk]
    assert claim() == []
    assert deliveries.with_due([HANDLER]) == []


def test_only_what_is_due_is_claimed_and_only_of_the_handler(owed: list[EventDelivery]) -> None:
    EventDelivery.objects.filter(pk=owed[0].pk).update(next_at=timezone.now() + timedelta(hours=1))
    EventDelivery.objects.filter(pk=owed[1].pk).update(handler="another")
    assert deliveries.with_due([HANDLER, "another", "nobody"]) == ["another", HANDLER]
    assert deliveries.with_due(["nobody"]) == []
    assert [delivery.pk for delivery in claim()] == [owed[2].pk]


@pytest.mark.django_db(transaction=True)
def test_of_several_processes_one_claims_each(subscribed: None) -> None:
    for number in range(20):
        services.create_session(f"s{number}")
    barrier = threading.Barrier(4)

    def take(owner: str) -> list[int]:
        barrier.wait(30)
        taken: list[int] = []
        try:
            while got := claim(owner=owner, limit=3):
                taken += [delivery.pk for delivery in got]
        finally:
            connection.close()
        return taken

    with ThreadPoolExecutor(4) as pool:
        taken = [pk for got in pool.map(take, "abcd") for pk in got]
    assert len(taken) == len(set(taken))
    assert set(taken) | {delivery.pk for delivery in claim()} == set(EventDelivery.objects.values_list("pk", flat=True))


# --- in order ----------------------------------------------------------------------------------------------------


def test_in_order_a_session_gives_its_next_one_only_after_the_last(owed: list[EventDelivery]) -> None:
    services.create_session("s2")
    other = EventDelivery.objects.get(event__session__session_id="s2")
    first, second = claim(in_order=True)
    assert {first.pk, second.pk} == {owed[0].pk, other.pk}
    assert claim(in_order=True) == []
    deliveries.succeed(first)
    assert [delivery.pk for delivery in claim(in_order=True)] == [owed[1].pk]


def test_in_order_a_failed_one_holds_up_its_session_until_it_is_given_up(owed: list[EventDelivery]) -> None:
    slow = RetryPolicy(max_attempts=2, first_seconds=3600, jitter=0)
    (first,) = claim(in_order=True)
    assert deliveries.fail(first, "no", policy=slow, chance=0) == DeliveryState.DUE
    assert claim(in_order=True) == []
    EventDelivery.objects.filter(pk=first.pk).update(next_at=timezone.now())
    (again,) = claim(in_order=True)
    assert again.pk == first.pk
    assert deliveries.fail(again, "no", policy=slow, chance=0) == DeliveryState.DEAD
    assert [delivery.pk for delivery in claim(in_order=True)] == [owed[1].pk]


def test_in_order_of_one_handler_does_not_wait_for_another(owed: list[EventDelivery]) -> None:
    EventDelivery.objects.filter(pk=owed[0].pk).update(handler="another")
    assert [delivery.pk for delivery in claim(in_order=True)] == [owed[1].pk]


# --- reported ----------------------------------------------------------------------------------------------------


def test_what_was_delivered_is_done(owed: list[EventDelivery]) -> None:
    (delivery,) = claim(limit=1)
    assert deliveries.succeed(delivery)
    stored = EventDelivery.objects.get(pk=delivery.pk)
    assert (stored.state, stored.attempts, stored.lease_owner, stored.lease_until) == ("delivered", 1, "", None)
    assert stored.delivered_at is not None
    assert not deliveries.succeed(delivery), "once only"


def test_a_failure_waits_as_the_policy_says_and_the_last_one_is_a_dead_letter(owed: list[EventDelivery]) -> None:
    policy = RetryPolicy(max_attempts=2, first_seconds=60, jitter=0)
    (delivery,) = claim(limit=1)
    before = timezone.now()
    assert deliveries.fail(delivery, "no answer", policy=policy, chance=0) == DeliveryState.DUE
    stored = EventDelivery.objects.get(pk=delivery.pk)
    assert stored.last_error == "no answer"
    assert timedelta(seconds=60) <= stored.next_at - before < timedelta(seconds=90)
    EventDelivery.objects.filter(pk=delivery.pk).update(next_at=before)
    again = next(got for got in claim() if got.pk == delivery.pk)
    assert deliveries.fail(again, "no answer", policy=policy, chance=0) == DeliveryState.DEAD
    assert state(delivery) == ("dead", 2)
    assert claim() == [], "a dead letter is not due"


@pytest.mark.parametrize(
    ("error", "kept"),
    [("x" * 500, "x" * 200), ("a\x00b\nc\ud800", "a b c"), ("", ""), ("Отказ 🙂", "Отказ 🙂")],
)
def test_errors_are_kept_on_one_short_line(owed: list[EventDelivery], error: str, kept: str) -> None:
    (delivery,) = claim(limit=1)
    deliveries.fail(delivery, error, policy=ONCE, chance=0)
    assert EventDelivery.objects.get(pk=delivery.pk).last_error == kept


def test_what_is_given_back_is_due_at_once_and_has_cost_no_attempt(owed: list[EventDelivery]) -> None:
    (delivery,) = claim(limit=1)
    assert deliveries.give_back(delivery)
    assert state(delivery) == ("due", 0)
    assert delivery.pk in [got.pk for got in claim()]


def test_a_lapsed_lease_is_found_and_its_old_owner_changes_nothing(owed: list[EventDelivery]) -> None:
    (killed,) = claim(limit=1, owner="killed")
    assert deliveries.lapsed([HANDLER]) == []
    lapse(killed)
    (found,) = deliveries.lapsed([HANDLER])
    assert deliveries.lapsed(["another"]) == []
    assert deliveries.fail(found, "killed", policy=AT_ONCE, chance=0) == DeliveryState.DUE
    assert deliveries.fail(found, "killed", policy=AT_ONCE, chance=0) is None, "the second finder comes too late"
    taken = next(delivery for delivery in claim(owner="other") if delivery.pk == killed.pk)
    assert taken.attempts == 2
    for late in (deliveries.succeed(killed), deliveries.give_back(killed)):
        assert late is False
    assert deliveries.fail(killed, "late", policy=ONCE, chance=0) is None
    assert state(killed) == ("running", 2)
    assert deliveries.succeed(taken)


# --- by hand -----------------------------------------------------------------------------------------------------


def bury(count: int) -> list[EventDelivery]:
    dead = claim(limit=count)
    for delivery in dead:
        deliveries.fail(delivery, "no", policy=ONCE, chance=0)
    return dead


def test_replay_of_one_gives_it_all_its_attempts_again(owed: list[EventDelivery]) -> None:
    first, second = bury(2)
    assert deliveries.replay([first.pk, 10**9]) == 1
    assert (state(first), state(second)) == (("due", 0), ("dead", 1))
    assert EventDelivery.objects.get(pk=first.pk).last_error == ""
    assert first.pk in [delivery.pk for delivery in claim()]


def test_replay_of_all_dead_letters_may_name_a_handler(owed: list[EventDelivery]) -> None:
    bury(2)
    assert deliveries.replay_dead("another") == 0
    assert deliveries.replay_dead(HANDLER) == 2
    assert deliveries.replay_dead() == 0
    assert len(claim()) == 3


def test_replay_repeats_what_was_delivered_but_nothing_that_is_being_run(owed: list[EventDelivery]) -> None:
    done, running = claim(limit=2)
    deliveries.succeed(done)
    assert deliveries.replay([done.pk, running.pk]) == 1
    assert (state(done), state(running)) == (("due", 0), ("running", 1))
    assert EventDelivery.objects.get(pk=done.pk).delivered_at is None


# --- read --------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_counts_name_every_state() -> None:
    assert deliveries.counts() == {"due": 0, "running": 0, "delivered": 0, "dead": 0, "discarded": 0}


def test_counts_and_lists_show_what_there_is(owed: list[EventDelivery]) -> None:
    (dead,) = bury(1)
    deliveries.succeed(claim(limit=1)[0])
    assert deliveries.counts() == {"due": 1, "running": 0, "delivered": 1, "dead": 1, "discarded": 0}
    assert [delivery.pk for delivery in deliveries.listed()] == sorted((d.pk for d in owed), reverse=True)
    assert [delivery.pk for delivery in deliveries.listed(state="dead", handler=HANDLER)] == [dead.pk]
    assert list(deliveries.listed(handler="another")) == []


def test_stats_count_what_was_delivered_and_given_up(owed: list[EventDelivery]) -> None:
    bury(1)
    for delivery in claim():
        deliveries.succeed(delivery)
    found = metrics.stats()
    assert (found["successful_handlers"], found["failed_handlers"], found["success_rate"]) == (2, 1, 0.667)
    assert found["total_published"] == Event.objects.count()


@pytest.mark.parametrize("in_order", [False, True])
def test_claims_find_their_rows_by_index(owed: list[EventDelivery], in_order: bool) -> None:
    """However many deliveries are done: no statement of the loop reads the whole table."""
    if connection.vendor != "sqlite":
        pytest.skip("PostgreSQL reads small tables as a whole, whatever the index")
    with Explained() as plans:
        claim(in_order=in_order)
        deliveries.with_due([HANDLER])
        deliveries.lapsed([HANDLER])
    assert plans
    assert [plan for plan in plans if "SCAN sessions_app_eventdelivery" in plan and "INDEX" not in plan] == []


class Explained:
    """SQLite's plans of the statements run meanwhile."""

    def __enter__(self) -> list[str]:
        self.plans: list[str] = []
        self._wrapper = connection.execute_wrapper(self._explain)
        self._wrapper.__enter__()
        return self.plans

    def __exit__(self, *_: object) -> None:
        self._wrapper.__exit__(None, None, None)

    def _explain(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith(("SELECT", "UPDATE")):
            explained = connection.connection.cursor().execute("EXPLAIN QUERY PLAN " + sql.replace("%s", "?"), params)
            self.plans += [row[-1] for row in explained]
        return execute(sql, params, many, context)
