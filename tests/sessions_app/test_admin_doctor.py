"""The doctor's page: each broken state by name, with a repair that names its operator."""

from __future__ import annotations

from io import StringIO

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from sessions_app import doctor, gauges
from sessions_app.admin import checkup
from sessions_app.models import AuditEntry, Batch, Event, Run, RunState, Session
from tests.sessions_app.test_admin import html, operator, visitor
from tests.sessions_app.test_batches import finish

__all__ = ["operator", "visitor"]
pytestmark = pytest.mark.django_db
PAGE, REPAIR = "admin:sessions_app_session_doctor", "admin:sessions_app_session_repair"


def whole() -> str:
    """The page of all checks, also of those that read everything that is stored."""
    return reverse(PAGE) + "?whole=1"


def wrong(*names: str) -> list[Session]:
    return [Session.objects.create(session_id=name, message_count=7) for name in names]


def broken() -> list[tuple[str, str]]:
    return [(one.broken.name, one.session_id) for one in doctor.examine()]


def test_all_checks_are_named_also_when_nothing_is_found(operator: Client) -> None:
    page = html(operator, whole())
    assert "Nothing is broken." in page
    for check in doctor.BROKEN:
        assert check.name in page
    assert "Repair" not in page


def test_without_being_asked_it_reads_only_what_an_index_answers(operator: Client) -> None:
    wrong("a")
    lost = Session.objects.create(session_id="lost")
    Run.objects.create(session=lost, state=RunState.WAITING)
    with CaptureQueriesContext(connection) as queries:
        page = html(operator, reverse(PAGE))
    assert not [one["sql"] for one in queries if "GROUP BY" in one["sql"]]
    assert "run-waits-for-nothing" in page
    assert "Nothing is broken." not in page
    assert "Not looked for" in page
    assert page.index("Not looked for") < page.index("wrong-counter")
    operator.post(reverse(REPAIR))
    assert broken() == [("wrong-counter", "a")]


def test_what_is_repaired_takes_nothing_from_the_count_of_what_is_not(operator: Client) -> None:
    wrong("a", "b")
    call_command_doctor()
    assert gauges.broken_states() == 2
    Run.objects.create(session=Session.objects.create(session_id="lost"), state=RunState.WAITING)
    operator.post(reverse(REPAIR))
    assert broken() == [("wrong-counter", "a"), ("wrong-counter", "b")]
    assert gauges.broken_states() == 2
    home = operator.get(reverse("admin:index")).content.decode()
    assert whole() in home
    assert f'"{reverse(PAGE)}"' not in home
    operator.post(reverse(REPAIR), {"whole": "1"})
    assert gauges.broken_states() == 0


def test_a_repair_in_the_background_is_counted(operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "SHOWN", 1)
    wrong("a", "b")
    call_command_doctor()
    operator.post(reverse(REPAIR), {"whole": "1"})
    finish(Batch.objects.get())
    assert (broken(), gauges.broken_states()) == ([], 0)


def call_command_doctor() -> None:
    with pytest.raises(SystemExit):
        call_command("doctor", stdout=StringIO())


def test_one_finding_is_repaired_by_its_button_and_the_other_stays(operator: Client) -> None:
    first, _ = wrong("first\u202e", "second")
    gauges.note_broken(gauges.DOCTOR, 2)
    page = html(operator, whole())
    assert "first⟦U+202E⟧" in page
    assert f'name="session" value="{first.pk}"' in page
    assert "Repair these 2" in page
    assert "Repair all" in page
    assert "Nobody can repair" not in page
    told = {"check": "wrong-counter", "session": first.pk, "whole": "1"}
    said = operator.post(reverse(REPAIR), told, follow=True)
    assert "Looked for and not found" in said.content.decode()
    assert "Not looked for" not in said.content.decode()
    assert "1 broken state repaired." in said.content.decode()
    assert broken() == [("wrong-counter", "second")]
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.who, entry.subject) == ("session.repair", "operator:anna", "wrong-counter")
    assert LogEntry.objects.get().get_change_message() == "Repaired wrong-counter"
    assert gauges.broken_states() == 1


def test_all_of_a_check_and_all_there_is_are_repaired(operator: Client) -> None:
    wrong("a", "b")
    behind = Session.objects.create(session_id="c")
    Event.objects.create(session=behind, seq=1, type="x")
    assert ("numbers-behind", "c") in broken()
    operator.post(reverse(REPAIR), {"check": "wrong-counter"})
    assert broken() == [("numbers-behind", "c")]
    operator.post(reverse(REPAIR), {"whole": "1"})
    assert broken() == []


def test_what_cannot_be_repaired_says_so_and_has_no_button(operator: Client) -> None:
    session = Session.objects.create(session_id="gap", last_seq=3)
    for seq in (1, 3):
        Event.objects.create(session=session, seq=seq, type="x")
    page = html(operator, whole())
    assert "Nobody can repair this" in page
    assert reverse(REPAIR) not in page
    operator.post(reverse(REPAIR), {"whole": "1"})
    assert broken() == [("event-gap", "gap")]


def test_a_check_that_is_none_is_no_page(operator: Client) -> None:
    assert operator.post(reverse(REPAIR), {"check": "nonsense"}).status_code == 404
    assert operator.get(reverse(REPAIR)).status_code == 405
    assert operator.post(reverse(REPAIR), {"check": "wrong-counter", "session": "x"}).status_code == 302


def test_very_many_findings_are_repaired_in_the_background(operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "SHOWN", 2)
    wrong("a", "b", "c")
    page = html(operator, whole())
    assert "and 1 more" in page
    operator.post(reverse(REPAIR), {"whole": "1"})
    assert len(broken()) == 3
    batch = finish(Batch.objects.get())
    assert batch.done == 3
    assert broken() == []
    assert set(AuditEntry.objects.filter(action="session.repair").values_list("who", flat=True)) == {"operator:anna"}


def test_the_page_costs_the_same_queries_with_more_findings(operator: Client) -> None:
    costs = []
    for count in (2, 20):
        wrong(*(f"{count} {number}" for number in range(count)))
        with CaptureQueriesContext(connection) as queries:
            html(operator, whole())
        costs.append(len(queries))
    assert costs[0] == costs[1]


def test_it_is_read_in_russian_too(operator: Client) -> None:
    wrong("a")
    page = operator.get(whole(), headers={"accept-language": "ru"}).content.decode()
    assert "сессия с неверным числом сообщений" in page


def test_a_viewer_sees_the_findings_and_no_button(visitor: Client) -> None:
    viewer = User.objects.create(username="vera", is_staff=True)
    viewer.user_permissions.set(Permission.objects.filter(codename="view_session"))
    visitor.force_login(viewer)
    wrong("a", "b")
    page = html(visitor, whole())
    assert "wrong-counter" in page
    assert reverse(REPAIR) not in page
    assert visitor.post(reverse(REPAIR)).status_code == 403
    assert len(broken()) == 2
