"""Events of a type are found without reading the log: rare ones by their index, those of every turn by looking back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.db import connection

from sessions_app import events, metrics
from sessions_app.models import OF_EVERY_TURN, Event, Session

pytestmark = pytest.mark.django_db
RARE = sorted(events.TYPES - set(OF_EVERY_TURN))


def test_the_types_of_every_turn_are_types() -> None:
    assert set(OF_EVERY_TURN) < events.TYPES
    assert not set(metrics.COUNTED_TYPES) & set(OF_EVERY_TURN)


@pytest.mark.skipif(
    connection.vendor != "sqlite", reason="PostgreSQL reads small tables as a whole, whatever the index"
)
@pytest.mark.parametrize(
    "types", [[events.TASK_FAILED], RARE, list(metrics.COUNTED_TYPES)], ids=["one", "all", "counted"]
)
def test_rare_types_are_found_by_their_index(types: list[str]) -> None:
    assert "event_by_rare_type" in events.of_types(Event.objects.order_by("-id"), types).explain()


def test_whatever_the_types_the_events_are_those() -> None:
    session = Session.objects.create(session_id="s")
    every = sorted(events.TYPES)
    Event.objects.bulk_create(Event(session=session, seq=n, type=type_) for n, type_ in enumerate(every, 1))
    for types in ([every[0]], RARE, list(OF_EVERY_TURN), [RARE[0], OF_EVERY_TURN[0]], every, []):
        found = events.of_types(Event.objects.order_by("type"), types)
        assert [event.type for event in found] == sorted(types)


def test_who_subscribes_while_the_stored_are_read_again_is_not_forgotten() -> None:
    def stored() -> Iterator[tuple[str, str]]:
        yield "Tool*", "webhook:1"
        events.subscribe("ToolCall*", "late")  # as another thread may, at this moment

    try:
        assert events.subscribers(events.TOOL_CALL_REQUESTED) == ()
        events.subscribe_stored(stored())
        assert events.subscribers(events.TOOL_CALL_REQUESTED) == ("late", "webhook:1")
        assert events.subscribers(events.TOOL_APPROVAL_DECIDED) == ("webhook:1",)
        events.subscribe_stored(())
        assert events.subscribers(events.TOOL_CALL_REQUESTED) == ("late",)
    finally:
        events.unsubscribe("late")
    assert events.subscribers(events.TOOL_CALL_REQUESTED) == ()
