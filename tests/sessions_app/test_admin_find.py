"""One box finds whatever an operator has in their hands, and leads to the place."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from sessions_app import prepared
from sessions_app.admin import finding
from sessions_app.models import (
    DeliveryState,
    Event,
    EventDelivery,
    LLMRequest,
    Message,
    Run,
    RunState,
    Session,
    ToolCall,
)
from tests.sessions_app import admin_rows
from tests.sessions_app.test_admin import operator, visitor
from tests.sessions_app.test_admin_hostile import HOSTILE, Page

__all__ = ["operator", "visitor"]
pytestmark = pytest.mark.django_db
FIND = "admin:sessions_app_session_find"
EVENT_ID = uuid.UUID("0b9f7a52-5a54-4d0e-9a3b-2f1f6b1f7d11")


@pytest.fixture
def story() -> Session:
    """A session with one of everything that may be looked for, beside another with nothing of it."""
    admin_rows.conversation("another")
    session = Session.objects.create(
        session_id="ide-7f3a", title="Исправь падение при логине", owner="alice", last_number=2
    )
    run = Run.objects.create(
        session=session, state=RunState.FAILED, error_code="LLM_RATE_LIMITED", correlation_id="req-42", agent="coder"
    )
    Message.objects.create(
        session=session, run=run, number=1, role=Message.USER, content="Почини " + "z" * 300 + " Логин"
    )
    answer = Message.objects.create(session=session, run=run, number=2, role=Message.ASSISTANT, content="Reading it")
    run.tool_calls.create(
        session=session, message=answer, call_id="call_9z", name="read_file", state="completed",
        arguments={"path": "src/вход/login.py"},
    )  # fmt: skip
    LLMRequest.objects.create(session=session, run=run, model="gpt-9", error="LLM_RATE_LIMITED", success=False)
    event = Event.objects.create(
        session=session, seq=1, type="TaskFailed", event_id=EVENT_ID, correlation_id="req-42", run=run
    )
    EventDelivery.objects.create(
        event=event, handler="webhooks", state=DeliveryState.DEAD, last_error="HTTP 418 from the hook"
    )
    return session


def found(client: Client, words: str) -> dict[str, list[finding.Hit]]:
    context = client.get(reverse(FIND), {"q": words}).context
    return {str(group.name): group.hits for group in context["groups"] if group.hits}


@pytest.mark.parametrize("store", [prepared.insert, ToolCall.objects.bulk_create])
def test_arguments_are_found_however_they_were_written(
    operator: Client, story: Session, store: Callable[[list[ToolCall]], object]
) -> None:
    message = Message.objects.get(session=story, number=2)
    said = {"text": 'скажи "да"\n'}
    store([ToolCall(session=story, run=message.run, message=message, call_id="c2", name="say", arguments=said)])
    for words in ('скажи "да"', "скажи", '"да"'):
        assert len(found(operator, words).get("Tool calls", [])) == 1, words


@pytest.mark.parametrize(
    ("words", "kinds"),
    [
        ("ide-7f3a", {"Sessions"}),
        ("alice", {"Sessions"}),
        ("ЛОГИНЕ", {"Sessions"}),
        ("  логин ", {"Sessions", "Messages"}),
        ("Reading it", {"Messages"}),
        ("src/вход/login.py", {"Tool calls"}),
        ("login.py", {"Tool calls"}),
        ("call_9z", {"Tool calls"}),
        ("LLM_RATE_LIMITED", {"Runs", "Model requests"}),
        ("req-42", {"Runs", "Events"}),
        (str(EVENT_ID), {"Events"}),
        (EVENT_ID.hex, {"Events"}),
        ("HTTP 418", {"Dead letters"}),
        ("gpt-9", {"Model requests"}),
        ("nowhere at all", set()),
        ("100%_", set()),
    ],
)
def test_what_people_have_in_their_hands_is_found(
    operator: Client, story: Session, words: str, kinds: set[str]
) -> None:
    assert found(operator, words).keys() == kinds


def test_a_run_is_found_by_its_number_with_and_without_its_sign(operator: Client, story: Session) -> None:
    Run.objects.create(pk=4711, session=story, state=RunState.COMPLETED)
    for words in ("#4711", "4711"):
        [hit] = found(operator, words)["Runs"]
        assert hit.address == reverse("admin:sessions_app_run_change", args=[4711])


def test_each_hit_leads_to_its_place(operator: Client, story: Session) -> None:
    [hit] = found(operator, "Reading it")["Messages"]
    assert hit.address.endswith("#m2")
    assert 'id="m2"' in operator.get(hit.address).content.decode()
    for words in ("call_9z", "LLM_RATE_LIMITED", "req-42", "HTTP 418", "alice"):
        for hits in found(operator, words).values():
            assert all(operator.get(hit.address).status_code == 200 for hit in hits)


def test_what_fits_is_shown_with_what_is_around_it(operator: Client, story: Session) -> None:
    [hit] = found(operator, "логин")["Messages"]
    assert hit.detail.startswith("… zzz")
    assert hit.detail.endswith("Логин")
    assert "<mark>Логин</mark>" in operator.get(reverse(FIND), {"q": "логин"}).content.decode()


@pytest.mark.parametrize(
    "words", ["", "x", "  ", "x" * 201, "a\x00b", "99999999999999999999999", "%", "'; DROP TABLE x; --", "⟦", "\ud800"]
)
def test_nonsense_finds_nothing_and_breaks_nothing(operator: Client, story: Session, words: str) -> None:
    answer = operator.get(reverse(FIND), {"q": words.encode("utf-8", "surrogatepass")})
    assert answer.status_code == 200
    assert all(not group.hits for group in answer.context["groups"])


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_is_text(operator: Client, text: str) -> None:
    admin_rows.conversation(f"hostile {text}"[:255], text=f"needle {text}")
    page = operator.get(reverse(FIND), {"q": "needle"}).content.decode()
    assert Page(page).dangers == []
    assert Page(operator.get(reverse(FIND), {"q": text}).content.decode()).dangers == []
    assert "\u202e" not in page


def test_only_the_newest_rows_are_read_and_the_page_says_so(
    operator: Client, story: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "NEWEST_ROWS", 3)
    for number in range(5):
        Message.objects.create(session=story, number=10 + number, role=Message.USER, content=f"later {number}")
    assert found(operator, "Reading it") == {}
    assert len(found(operator, "later")["Messages"]) == 3
    assert "newest 3 rows" in operator.get(reverse(FIND), {"q": "later"}).content.decode()
    assert found(operator, "ide-7f3a").keys() == {"Sessions"}  # an id is found however old


def test_a_search_costs_the_same_queries_whatever_it_finds(operator: Client) -> None:
    costs = []
    for rows in (2, 30):
        for number in range(rows):
            admin_rows.conversation(f"{rows} {number}", text="needle")
        operator.get(reverse(FIND), {"q": "needle"})
        with CaptureQueriesContext(connection) as queries:
            page = operator.get(reverse(FIND), {"q": "needle"})
        costs.append(len(queries))
        assert all(len(group.hits) <= finding.SHOWN for group in page.context["groups"])
    assert costs[0] == costs[1] <= 20


def test_kinds_that_one_may_not_see_are_not_looked_for(story: Session) -> None:
    client, user = Client(), User.objects.create_user("reader", password="x", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename="view_session"))
    client.force_login(user)
    assert found(client, "логин").keys() == {"Sessions"}
    user.user_permissions.clear()
    client.force_login(User.objects.get(pk=user.pk))
    assert client.get(reverse(FIND), {"q": "логин"}).status_code == 403
    assert 'id="find"' not in client.get(reverse("admin:index")).content.decode()


def test_the_box_is_on_every_page_and_keeps_what_was_looked_for(operator: Client, story: Session) -> None:
    for address in (reverse("admin:index"), reverse("admin:sessions_app_run_changelist")):
        assert 'id="find"' in operator.get(address).content.decode()
    assert 'name="q" value="req-42"' in operator.get(reverse(FIND), {"q": "req-42"}).content.decode()


@pytest.mark.parametrize(
    ("text", "words", "pieces"),
    [
        ("one two one", "ONE", [("", False), ("one", True), (" two ", False), ("one", True), ("", False)]),
        ("one", "", [("one", False)]),
        ("İİ x", "x", [("İİ x", False)]),  # folds into more letters than it has
    ],
)
def test_what_was_looked_for_is_marked(text: str, words: str, pieces: Any) -> None:
    assert list(finding.marked(text, words)) == pieces
