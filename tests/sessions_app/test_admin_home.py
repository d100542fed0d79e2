"""The admin's home: tiles of now, charts of the day and the month, at the same price however much is stored."""

from __future__ import annotations

import re
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from runtime_project.settings import prices
from sessions_app import doctor, gauges, hourly
from sessions_app.admin import board, charts
from sessions_app.models import Approval, EventDelivery, HourlyTally, LLMRequest, Run, RunState
from tests.sessions_app import admin_rows
from tests.sessions_app.test_admin import operator, visitor

__all__ = ["operator", "visitor"]
pytestmark = pytest.mark.django_db


def count(hours_ago: int, name: str, label: str, value: int) -> None:
    hour = hourly.hour_of(timezone.now()) - timedelta(hours=hours_ago)
    HourlyTally.objects.create(hour=hour, name=name, label=label, value=value)


def shown_tiles() -> dict[str, Any]:
    return {str(tile["label"]): tile for tile in board.tiles()}


def test_each_tile_says_how_many_and_leads_to_the_list_behind_it(operator: Client) -> None:
    session = admin_rows.conversation("s")
    Run.objects.create(session=session, state=RunState.RUNNING)
    EventDelivery.objects.update(state="dead")
    count(0, hourly.TURNS, "completed", 3)
    count(0, hourly.TURNS, "failed", 1)
    count(0, hourly.FIRST_TOKEN, "0.5", 4)
    tiles = shown_tiles()
    assert tiles["Turns under way"]["value"] == 1
    assert tiles["Approvals that wait"]["value"] == Approval.objects.count()
    assert tiles["Dead letters"]["value"] == EventDelivery.objects.count()
    assert (tiles["Turns that failed today"]["value"], tiles["Turns that failed today"]["hint"]) == ("25.0%", "1 of 4")
    assert tiles["First token today, p50"]["value"] == "375 ms"
    assert tiles["Breaker of the model"]["value"] == "closed"
    for tile in tiles.values():
        assert operator.get(tile["address"]).status_code == 200, tile["label"]


def test_the_doctors_count_stands_on_the_home_page(operator: Client) -> None:
    broken = admin_rows.conversation("s")
    broken.message_count = 99
    broken.save()
    with pytest.raises(SystemExit):
        call_command("doctor", stdout=StringIO())
    assert shown_tiles()["Broken states"]["value"] == len(doctor.examine()) > 0
    gauges.note_broken(gauges.DOCTOR, 0)
    gauges.note_broken(gauges.WATCHDOG, 2)
    assert "Broken states" in operator.get("/admin/").content.decode()
    assert shown_tiles()["Broken states"]["value"] == 2


@pytest.mark.parametrize(
    ("configured", "hint"),
    [({}, ""), ({"m": (2.0, 10.0)}, "cost 3.00"), ({"other": (1.0, 1.0)}, "cost 0.00")],
)
def test_tokens_cost_what_their_models_price_says(settings: Any, configured: dict[str, Any], hint: str) -> None:
    settings.MODEL_PRICES = configured
    count(0, hourly.PROMPT, "m", 1_000_000)
    count(0, hourly.COMPLETION, "m", 100_000)
    assert shown_tiles()["Tokens today"]["hint"] == hint


@pytest.mark.parametrize(("configured", "shown"), [({}, None), ({"m": (2.0, 10.0)}, "3.0000")])
def test_a_session_says_what_it_has_cost(
    settings: Any, operator: Client, configured: dict[str, Any], shown: str | None
) -> None:
    settings.MODEL_PRICES = configured
    session = admin_rows.conversation("s")
    LLMRequest.objects.filter(session=session).update(
        model="m", prompt_tokens=1_000_000, completion_tokens=100_000, total_tokens=1_100_000
    )
    page = operator.get(reverse("admin:sessions_app_session_change", args=[session.pk]))
    assert dict(page.context["facts"]).get("Cost") == shown


def test_prices_are_read_and_nonsense_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_RUNTIME__MODEL_PRICES", "small=0.15/0.6,a/b=c=2")
    assert prices("MODEL_PRICES") == {"small": (0.15, 0.6), "a/b=c": (2.0, 2.0)}
    monkeypatch.setenv("AGENT_RUNTIME__MODEL_PRICES", "small:1")
    with pytest.raises(ImproperlyConfigured, match="small:1"):
        prices("MODEL_PRICES")


def test_a_chart_stacks_what_ended_in_its_hour_and_in_no_other() -> None:
    count(0, hourly.TURNS, "completed", 4)
    count(0, hourly.TURNS, "failed", 2)
    count(23, hourly.TURNS, "completed", 3)
    count(24, hourly.TURNS, "completed", 100)
    turns = board.drawn("24h")[0]
    assert (turns.top, [total for _, _, total in turns.legend]) == ("6", ["7", "2"])
    newest = [block for block in turns.blocks if block.x > charts.WIDTH * 22 / 24]
    assert [(block.css, block.height) for block in newest] == [("tone-good", 80.0), ("tone-bad", 40.0)]
    assert newest[0].y == 40.0  # it stands on the ground, the other upon it
    assert newest[1].y == 0.0
    assert board.drawn("30d")[0].top == "109" or len(board.drawn("30d")[0].blocks) > 2  # midnight lies between


def test_many_models_share_the_last_colour() -> None:
    for number in range(9):
        count(0, hourly.PROMPT, f"m{number}", 10 * (number + 1))
    by_model = board.drawn("24h")[2]
    assert [words for _, words, _ in by_model.legend] == ["m8", "m7", "m6", "m5", "m4", "others"]
    assert by_model.legend[-1][2] == "100"


def test_nothing_counted_is_said_and_a_hostile_model_name_is_text(operator: Client) -> None:
    assert operator.get("/admin/").content.decode().count("Nothing yet.") >= 4
    count(0, hourly.PROMPT, '"><script>alert(1)</script>\u202e', 5)
    page = operator.get("/admin/").content.decode()
    assert "<script>alert" not in page
    assert "⟦U+202E⟧" in page


def test_the_home_costs_the_same_queries_with_an_hour_and_with_a_month(operator: Client) -> None:
    def queries() -> int:
        with CaptureQueriesContext(
            connection,
        ) as made:
            assert operator.get("/admin/?range=30d").status_code == 200
        return len(made)

    count(0, hourly.TURNS, "completed", 1)
    admin_rows.conversation("a")
    operator.get("/admin/?range=30d")
    few = queries()
    for hours_ago in range(1, 700):
        count(hours_ago, hourly.TURNS, "completed", 1)
    for number in range(5):
        admin_rows.conversation(f"b{number}")
    assert queries() == few


def test_only_who_may_view_sessions_sees_the_numbers(visitor: Client, operator: Client) -> None:
    answer = operator.get("/admin/sessions_app/session/home/?range=nonsense")
    assert re.search(r'aria-current="true">24 hours', answer.content.decode())
    stranger = Client()
    assert stranger.get("/admin/sessions_app/session/home/").status_code == 302
