"""What operators do to sessions: each destructive thing shows what goes, asks, and leaves its doer's name."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import DELETION, LogEntry
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from sessions_app.admin import actions
from sessions_app.models import Message, Run, RunState, Session
from tests.sessions_app import admin_rows
from tests.sessions_app.test_admin import SESSIONS, act, operator, own_page, visitor

__all__ = ["operator", "visitor"]
pytestmark = pytest.mark.django_db
OLDER = "admin:sessions_app_session_delete_older"


def facts(session: Session) -> tuple[Any, ...]:
    row = Session.objects.filter(pk=session.pk).first()
    stops = Run.objects.filter(session_id=session.pk, cancel_requested_at__isnull=False).count()
    return row and row.is_active, Message.objects.filter(session_id=session.pk).exists(), stops


@pytest.mark.parametrize(
    ("action", "after"),
    [
        ("deactivate", (False, True)),
        ("clear_messages", (True, False)),
        ("cancel_run", (True, True, 1)),
        ("delete", (None, False)),
    ],
)
def test_a_destructive_action_asks_first_and_then_does_it(
    operator: Client, action: str, after: tuple[Any, ...]
) -> None:
    session = admin_rows.conversation("s")
    lease = {"lease_owner": "somebody", "lease_until": timezone.now() + timedelta(hours=1)}
    Run.objects.create(session=session, state=RunState.RUNNING, **lease)
    before = facts(session)
    asked = act(operator, action, session)
    assert "admin/sessions_app/session/confirm.html" in [template.name for template in asked.templates]
    assert facts(session) == before
    done = act(operator, action, session, confirmed=action)
    assert "1 session." in done.content.decode()
    assert facts(session)[: len(after)] == after
    assert LogEntry.objects.get().object_repr == "s"


def test_activating_takes_nothing_away_and_is_not_asked(operator: Client) -> None:
    session = Session.objects.create(session_id="s", is_active=False)
    act(operator, "activate", session)
    session.refresh_from_db()
    assert session.is_active


def test_an_agreement_to_one_action_is_none_to_another(operator: Client) -> None:
    session = admin_rows.conversation("s")
    act(operator, "delete", session, confirmed="deactivate")
    assert facts(session)[0] is True


def test_the_question_counts_what_goes_and_names_the_first(operator: Client) -> None:
    sessions = [admin_rows.conversation(f"s{number}") for number in range(25)]
    going = act(operator, "delete", *sessions).context["going"]
    assert dict(going["counts"])["Sessions"] == 25
    assert dict(going["counts"])["Messages"] == 75
    assert (len(going["sessions"]), going["unnamed"]) == (20, 5)


def test_an_action_from_a_session_page_leads_back_to_it(operator: Client) -> None:
    session = admin_rows.conversation("s")
    back = {"back": str(session.pk)}
    assert act(operator, "deactivate", session, confirmed="deactivate", **back).redirect_chain[0][0] == own_page(
        session
    )
    assert act(operator, "delete", session, confirmed="delete", **back).redirect_chain[0][0] == reverse(SESSIONS)


def test_a_session_that_is_gone_meanwhile_is_reported_and_the_others_are_done(operator: Client) -> None:
    gone, there = Session(pk=99, session_id="gone\u202e"), Session.objects.create(session_id="there")
    said: list[str] = []

    class Told:
        def message_user(self, request: Any, text: str, level: int) -> None:
            said.append(text)

    request = operator.get(reverse(SESSIONS)).wsgi_request
    deactivate = next(action for action in actions.ACTIONS if action.name == "deactivate")
    assert actions.apply(Told(), request, [gone, there], deactivate) == 1
    assert said[0].startswith("gone⟦U+202E⟧: ")
    assert not Session.objects.get().is_active


def test_the_page_of_django_that_deletes_asks_like_the_action(operator: Client) -> None:
    session = admin_rows.conversation("s")
    address = reverse("admin:sessions_app_session_delete", args=[session.pk])
    assert operator.get(address).context["going"]["sessions"] == [session]
    assert Session.objects.exists()
    operator.post(address, {"confirmed": "delete"})
    assert not Session.objects.exists()
    assert operator.get(address).status_code == 302


# --- the old ones
def test_old_sessions_go_after_a_preview_and_the_others_stay(operator: Client) -> None:
    admin_rows.conversation("old", days_old=31)
    admin_rows.conversation("young", days_old=29)
    seen = operator.get(reverse(OLDER), {"days": "30"})
    assert [row.session_id for row in seen.context["going"]["sessions"]] == ["old"]
    assert Session.objects.count() == 2
    operator.post(reverse(OLDER), {"before": seen.context["before"].isoformat()})
    assert [row.session_id for row in Session.objects.all()] == ["young"]
    assert LogEntry.objects.get().action_flag == DELETION


def test_a_session_used_after_the_preview_stays(operator: Client) -> None:
    session = admin_rows.conversation("old", days_old=31)
    before = operator.get(reverse(OLDER), {"days": "30"}).context["before"].isoformat()
    Session.objects.filter(pk=session.pk).update(last_activity=timezone.now())
    operator.post(reverse(OLDER), {"before": before})
    assert Session.objects.exists()


@pytest.mark.parametrize("days", ["0", "-3", "x", "", "99999999999"])
def test_a_nonsense_age_deletes_nothing_and_says_so(operator: Client, days: str) -> None:
    admin_rows.conversation("old", days_old=31)
    assert operator.get(reverse(OLDER), {"days": days}).context["form"].errors
    operator.post(reverse(OLDER), {"before": days})
    assert Session.objects.exists()
