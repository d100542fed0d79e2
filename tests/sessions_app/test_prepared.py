"""What is prepared does what the queryset it came from does, with other values each time, on both databases."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.db import IntegrityError, connection, transaction
from django.forms.models import model_to_dict
from django.utils import timezone

from sessions_app import prepared, writing
from sessions_app.models import Event, LLMRequest, Message, MessageState, Run, RunState, Session
from sessions_app.prepared import Select, Slot, Update

pytestmark = pytest.mark.django_db

CALLS = [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": "\u2028ж"}'}}]
NAMED = Select[Session](lambda: Session.objects.order_by().filter(session_id=Slot("name")))
SAID = Select[tuple[Any, ...]](
    lambda: (
        Message.objects.filter(session=Slot("session"), in_context=True)
        .order_by("number")
        .values_list("pk", "tool_calls")
    )
)
CLOSED = Update(
    lambda: Message.objects.filter(pk=Slot("pk"), state=MessageState.OPEN), ("content", "state", "tool_calls")
)


@pytest.fixture
def session() -> Session:
    return Session.objects.create(session_id="s1", title="Ж\u2028", last_activity=timezone.now() - timedelta(days=1))


def message(session: Session, number: int, **fields: Any) -> Message:
    return Message(session=session, number=number, role=Message.ASSISTANT, **fields)


def test_a_prepared_select_gives_what_its_queryset_gives(session: Session) -> None:
    Session.objects.create(session_id="s2")
    for name in ("s1", "s2"):
        found = NAMED.first(name=name)
        assert found is not None
        assert (type(found), model_to_dict(found)) == (Session, model_to_dict(Session.objects.get(session_id=name)))
        assert not found._state.adding
    assert NAMED.first(name="nobody' OR 1=1 --") is None


ODD = ["it's", "100%", "%s", "%%", "a\\'b", "ж", "", 'say "x"', "?", "--\n"]


@pytest.mark.parametrize("odd", ODD)
def test_constants_of_a_statement_are_what_the_queryset_says(session: Session, odd: str) -> None:
    for title in ODD:
        Session.objects.create(session_id=f"of {title}", title=title)
    found = Select[Session](
        lambda: Session.objects.order_by().filter(session_id=Slot("name"), title=odd, message_count__in=[0, 7])
    )
    assert [one.title for one in found.all(name=f"of {odd}")] == [odd]
    assert found.all(name=f"of {ODD[ODD.index(odd) - 1]}") == []
    marked = Update(lambda: Session.objects.filter(pk=Slot("pk"), title=odd), ("description",))
    one = Session.objects.get(title=odd)
    assert (marked.run(pk=one.pk, description="%s?"), marked.run(pk=session.pk, description="")) == (1, 0)
    one.refresh_from_db()
    assert one.description == "%s?"


def test_a_statement_of_a_partial_index_binds_only_what_it_is_given() -> None:
    """SQLite would plan it anew at each run: several times what the statement itself costs."""
    for prepared_one in (writing._BY_NAME, writing._BY_KEY):
        _, bound, *_ = prepared._thread.compiled[prepared_one]
        assert [type(one) for one in bound] == [Slot]


@pytest.mark.skipif(settings.ON_SQLITE, reason="needs AGENT_RUNTIME__DB_URL=postgres://...")
def test_postgresql_keeps_our_statements_and_none_of_djangos(session: Session) -> None:
    raw = connection.connection
    for number in range(1, 4):
        prepared.insert([message(session, number, content="x" * number)])
        assert NAMED.first(name="s1") == session
        Message.objects.filter(number=number).update(content=f"the {number}. text, which is nobody's business")
    assert len(raw._prepared._names) >= 2
    assert not raw._prepared._counts
    with pytest.raises(IntegrityError), transaction.atomic():
        Session.objects.create(session_id="s1")
    assert NAMED.first(name="s1") == session


def test_rows_of_a_prepared_select_are_converted(session: Session) -> None:
    rows = [message(session, 2, tool_calls=CALLS), message(session, 1), message(session, 3, in_context=False)]
    prepared.insert(rows)
    assert SAID.all(session=session.pk) == [(rows[1].pk, None), (rows[0].pk, CALLS)]
    assert SAID.all(session=session.pk + 1) == []


def test_inserted_rows_are_the_same_as_saved_ones(session: Session) -> None:
    run = Run(session=session, state=RunState.RUNNING, lease_until=timezone.now(), request={"a": [1, "ж", None]})
    prepared.insert([run])
    said = message(session, 1, run=run, content="x" * 70_000, tool_calls=CALLS)
    event = Event(session=session, seq=1, type="T", run=run, message=said, data={"n": 2**60})
    prepared.insert([said])
    asked = LLMRequest(session=session, run=run, first_token_ms=None, success=False)
    for row in (event, asked):
        prepared.insert([row])
    assert event.message is said  # a reader of the event needs no query for it
    for row in (run, said, event, asked):
        assert not row._state.adding
        stored = type(row)._default_manager.get(pk=row.pk)
        for field in row._meta.concrete_fields:
            assert getattr(stored, field.attname) == getattr(row, field.attname), field


def test_many_rows_are_inserted_in_order(session: Session) -> None:
    rows = [message(session, number) for number in range(1, 301)]
    prepared.insert(rows)
    assert [row.pk for row in rows] == list(Message.objects.order_by("number").values_list("pk", flat=True))


def test_a_constraint_holds(session: Session) -> None:
    prepared.insert([message(session, 1)])
    with pytest.raises(IntegrityError), transaction.atomic():
        prepared.insert([message(session, 1)])


def test_a_prepared_update_changes_the_rows_of_its_queryset(session: Session) -> None:
    rows = [message(session, 1, state=MessageState.OPEN, tool_calls=CALLS), message(session, 2)]
    prepared.insert(rows)
    told = {"content": "100 % done", "state": MessageState.COMPLETE, "tool_calls": None}
    assert CLOSED.run(pk=rows[0].pk, **told) == 1
    assert CLOSED.run(pk=rows[1].pk, **told) == 0
    rows[0].refresh_from_db()
    assert (rows[0].content, rows[0].state, rows[0].tool_calls) == ("100 % done", MessageState.COMPLETE, None)
    assert Message.objects.filter(tool_calls__isnull=True).count() == 2


def test_a_prepared_update_of_each_is_that_update_with_the_values_of_each(session: Session) -> None:
    rows = [message(session, number, state=state) for number, state in ((1, "open"), (2, "open"), (3, "complete"))]
    prepared.insert(rows)
    texts = ["100% ж", "it's %s?", "not open"]
    CLOSED.run_each(
        [
            {"pk": row.pk, "content": text, "state": MessageState.COMPLETE, "tool_calls": CALLS}
            for row, text in zip(rows, texts, strict=True)
        ]
    )
    CLOSED.run_each([])
    stored = list(Message.objects.order_by("number").values_list("content", "state", "tool_calls"))
    assert stored == [(texts[0], "complete", CALLS), (texts[1], "complete", CALLS), ("", "complete", None)]
