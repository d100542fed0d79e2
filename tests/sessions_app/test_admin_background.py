"""Many sessions at once, from the admin: what is shown is what is done, in the background, and can be watched."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from sessions_app import batches
from sessions_app.admin import actions
from sessions_app.models import Approval, AuditEntry, Batch, BatchState, Message, Run, RunState, Session
from tests.sessions_app import admin_rows
from tests.sessions_app.test_admin import act, html, listing, operator, own_page, visitor
from tests.sessions_app.test_batches import finish

__all__ = ["operator", "visitor"]
pytestmark = pytest.mark.django_db
MANY = actions.AT_ONCE + 1


def many(count: int = MANY) -> list[Session]:
    Session.objects.bulk_create([Session(session_id=f"s{number}") for number in range(count)])
    return list(Session.objects.order_by("pk"))


def button(name: str, batch: Batch) -> str:
    return reverse(f"admin:sessions_app_batch_{name}", args=[batch.pk])


@pytest.mark.parametrize("action", ["deactivate", "activate", "delete", "purge"])
def test_more_than_a_page_is_frozen_shown_and_begun_when_agreed(operator: Client, action: str) -> None:
    sessions = many()
    asked = act(operator, action, sessions[0], select_across="1", confirmed=action)
    batch = Batch.objects.get()
    assert asked.context["batch"] == batch
    assert batch.state == BatchState.PREPARED
    late = Session.objects.create(session_id="late")
    page = operator.post(button("start", batch), follow=True)
    assert page.redirect_chain[0][0] == own_page(batch)
    batch.refresh_from_db()
    assert (batch.state, batch.total, batch.who) == (BatchState.QUEUED, MANY, "operator:anna")
    finish(batch)
    assert batch.done == MANY
    late.refresh_from_db()
    assert late.is_active, "nobody saw it"
    shown = html(operator, own_page(batch))
    assert f'value="{MANY}"' in shown
    assert "finished" in shown
    assert AuditEntry.objects.get(action="batch.start").who == "operator:anna"
    assert LogEntry.objects.get().get_change_message() == "Began"


def test_a_page_reads_what_was_left_alone_and_offers_to_stop(operator: Client) -> None:
    sessions = many(3)
    batch = batches.prepare("cancel_run", [row.pk for row in sessions], who="operator:anna")
    operator.post(button("start", batch))
    shown = html(operator, own_page(batch))
    assert 'class="stop"' in shown
    batches.claim(batch.pk, "me", 30)
    batches.step(batch.pk, "me", 30)
    parts = html(operator, button("parts", batch))
    assert "no run is under way" in parts
    assert "data-under-way" in parts
    operator.post(button("stop", batch))
    parts = html(operator, button("parts", batch))
    assert "data-under-way" not in parts
    assert AuditEntry.objects.get(action="batch.stop").who == "operator:anna"
    assert "already" in operator.post(button("stop", batch), follow=True).content.decode()


def test_a_second_start_and_somebody_elses_are_refused(operator: Client) -> None:
    batch = batches.prepare("deactivate", [], who="operator:bob")
    assert "somebody else" in operator.post(button("start", batch), follow=True).content.decode()
    batch.refresh_from_db()
    assert batch.state == BatchState.PREPARED


def test_nobody_starts_or_stops_by_a_link(operator: Client) -> None:
    batch = batches.prepare("deactivate", [], who="operator:anna")
    for name in ("start", "stop"):
        assert operator.get(button(name, batch)).status_code == 405
    assert operator.get(reverse("admin:sessions_app_batch_parts", args=[10**6])).status_code == 404


def test_pages_cost_the_same_however_much_is_left_alone(operator: Client) -> None:
    costs = []
    for count in (3, 30):
        batch = batches.prepare("cancel_run", [row.pk for row in many(count)], who="operator:anna")
        batches.start(batch.pk, who="operator:anna")
        finish(batch)
        with CaptureQueriesContext(connection) as queries:
            html(operator, own_page(batch))
            html(operator, listing("batch"))
        costs.append(len(queries))
        Session.objects.all().delete()
    assert costs[0] == costs[1]


# --- purging -----------------------------------------------------------------------------------------------------


def test_a_purge_shows_every_table_and_names_what_stays(operator: Client) -> None:
    idle = admin_rows.conversation("idle", calls=2)
    Approval.objects.all().update(state="approved")
    works = Session.objects.create(session_id="works\u202e")
    Run.objects.create(session=works, state=RunState.RUNNING)
    asked = act(operator, "purge", idle, works)
    going = asked.context["going"]
    assert [row.session_id for row in going["sessions"]] == ["idle"]
    assert [row.pk for row in going["kept"]["sessions"]] == [works.pk]
    assert [count for _, count in going["counts"]] == [1, 5, 1, 2, 2, 1, 1, 4, 4, 0, 0]
    assert [label for label, _ in going["counts"]][:4] == ["Sessions", "Messages", "Runs", "Tool calls"]
    assert "works⟦U+202E⟧" in asked.content.decode()
    done = act(operator, "purge", idle, works, confirmed="purge").content.decode()
    assert "in use" in done
    assert [row.pk for row in Session.objects.all()] == [works.pk]
    assert not Message.objects.exists()
    entry = AuditEntry.objects.get(action="session.purge")
    assert (entry.who, entry.subject) == ("operator:anna", "idle")


def test_a_preview_costs_the_same_with_more_sessions(operator: Client) -> None:
    costs = []
    for count in (2, 20):
        rows = [admin_rows.conversation(f"{count}-{number}") for number in range(count)]
        with CaptureQueriesContext(connection) as queries:
            act(operator, "purge", *rows)
        costs.append(len(queries))
    assert costs[0] == costs[1]


# --- the other actions -------------------------------------------------------------------------------------------


def test_a_session_goes_back_to_the_orchestrator(operator: Client) -> None:
    session = Session.objects.create(session_id="s", current_agent="coder")
    act(operator, "reset_agent", session)
    session.refresh_from_db()
    assert session.current_agent == "orchestrator"
    assert AuditEntry.objects.get().who == "operator:anna"
    assert "current agent" in act(operator, "reset_agent", session).content.decode()


def test_an_expired_session_asks_first_and_is_activated_again(operator: Client) -> None:
    session = Session.objects.create(session_id="s")
    act(operator, "expire", session)
    assert Session.objects.get().is_active
    act(operator, "expire", session, confirmed="expire")
    row = Session.objects.get()
    assert (row.is_active, bool(row.expired_at)) == (False, True)
    assert AuditEntry.objects.get().action == "session.expire"
    act(operator, "activate", session)
    assert Session.objects.get().is_active


def test_old_sessions_beyond_a_page_go_in_the_background(operator: Client) -> None:
    many()
    moment = timezone.now()
    answer = operator.post(reverse("admin:sessions_app_session_delete_older"), {"before": moment.isoformat()})
    batch = Batch.objects.get()
    assert answer["Location"] == own_page(batch)
    used = Session.objects.order_by("pk")[0]
    Session.objects.filter(pk=used.pk).update(last_activity=moment)
    finish(batch)
    assert (batch.done, batch.skipped) == (MANY - 1, 1)
    assert [row.pk for row in Session.objects.all()] == [used.pk]


def test_buttons_are_on_the_page_as_the_session_allows(operator: Client) -> None:
    session = Session.objects.create(session_id="s", current_agent="coder")
    page: Any = html(operator, own_page(session))
    for name in ("reset_agent", "expire", "export", "purge"):
        assert f'value="{name}"' in page
    Session.objects.update(is_active=False, current_agent="orchestrator")
    page = html(operator, own_page(session))
    assert 'value="reset_agent"' not in page
    assert 'value="expire"' not in page
