"""Rows that are made quickly are the rows that their models' constructors make."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import models

from sessions_app.models import Event, LLMRequest, Message, Run, RunState, Session
from sessions_app.rows import Blank, stored

SESSION = Session(pk=7, session_id="s1")
RUN = Run(pk=8, session=SESSION)
GIVEN: dict[type[models.Model], dict[str, Any]] = {
    Session: {"session_id": "s1", "owner": "me"},
    Run: {"session": SESSION, "state": RunState.RUNNING, "request": {"a": 1}},
    Message: {"session": SESSION, "run": RUN, "number": 1, "role": Message.USER, "content": "hi"},
    Event: {"session": SESSION, "run": None, "seq": 1, "type": "T", "data": {"n": 1}},
    LLMRequest: {"session": SESSION, "run": RUN, "first_token_ms": None},
}
MADE_ANEW = {"created_at", "last_activity", "at", "started_at", "event_id"}


@pytest.mark.parametrize("model", GIVEN, ids=lambda model: model.__name__)
def test_a_blank_makes_what_the_constructor_makes(model: type[models.Model]) -> None:
    made, wanted = Blank(model)(**GIVEN[model]), model(**GIVEN[model])
    assert (type(made), made._state.adding, made._state.db) == (model, True, None)
    for field in model._meta.concrete_fields:
        same = type if field.name in MADE_ANEW and field.name not in GIVEN[model] else lambda value: value
        assert same(getattr(made, field.attname)) == same(getattr(wanted, field.attname)), field
        if field.is_relation:
            assert getattr(made, field.name) is getattr(wanted, field.name)


def test_what_is_made_anew_is_nobody_elses() -> None:
    blank = Blank(Event)
    one, other = (blank(session=SESSION, seq=seq, type="T") for seq in (1, 2))
    assert one.event_id != other.event_id
    one.data["mine"] = True
    assert other.data == {}


def test_a_name_that_is_no_field_is_refused() -> None:
    with pytest.raises(TypeError, match="Message has no field 'contents'"):
        Blank(Message)(contents="x")


def test_a_stored_row_knows_where_it_is_from() -> None:
    row = stored(Session, "default", {"id": 7, "session_id": "s1"})
    assert (row.pk, row.session_id, row._state.adding, row._state.db) == (7, "s1", False, "default")
    assert row == SESSION
    assert "title" in row.get_deferred_fields()
