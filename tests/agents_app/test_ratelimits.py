"""A process's own accounts: fixed windows of a minute that are forgotten when they are over."""

from __future__ import annotations

from agents_app.ratelimits import WINDOW_SECONDS, Here

NOON = 1_800_000_000.0
ANNA, BORIS = ("address", "anna"), ("address", "boris")


def test_a_window_counts_from_its_first_hit_and_ends_after_a_minute() -> None:
    here = Here()
    hits = [here.hit(2, ANNA, NOON + after) for after in (0, 30, 59.9)]
    assert [(hit.allowed, hit.remaining) for hit in hits] == [(True, 1), (True, 0), (False, 0)]
    assert {hit.reset for hit in hits} == {int(NOON) + WINDOW_SECONDS + 1}
    assert here.hit(2, BORIS, NOON + 30).remaining == 1
    again = here.hit(2, ANNA, NOON + WINDOW_SECONDS)
    assert (again.allowed, again.remaining, again.reset) == (True, 1, int(NOON) + 2 * WINDOW_SECONDS + 1)


def test_what_is_over_is_forgotten_once_a_minute() -> None:
    here = Here()
    for n in range(1000):
        here.hit(1, ("session", str(n)), NOON)
    here.hit(1, ANNA, NOON + 30)
    assert len(here._windows) == 1001
    here.hit(1, BORIS, NOON + WINDOW_SECONDS)
    assert set(here._windows) == {ANNA, BORIS}
    assert not here.hit(1, ANNA, NOON + WINDOW_SECONDS).allowed


def test_a_clock_set_back_refuses_nobody_for_longer_than_a_window() -> None:
    here = Here()
    for n in range(10):
        here.hit(1, ("session", str(n)), NOON)
    assert here.hit(1, ("session", "0"), NOON - 3600).allowed
    assert len(here._windows) == 1
    assert not here.hit(1, ("session", "0"), NOON - 3600 + 30).allowed
