"""GET /metrics: what Prometheus reads, from whichever process it asks."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx
import pytest
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families

from sessions_app import gauges
from sessions_app.models import Beat, DeliveryState, Event, EventDelivery
from tests import talk
from tests.conftest import RunningServer
from tests.listening import following
from tests.model_server import ModelServer, error_in_stream, text, tool_calls

Series = dict[tuple[str, ...], float]
WRITE = '{"path": "a.txt", "content": "x"}'


def scrape(client: httpx.Client) -> Series:
    """Each sample by its name and the values of its labels, in the order of their names."""
    answer = client.get("/metrics")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = list(text_string_to_metric_families(answer.text))
    assert all(family.name.startswith("agent_runtime_") for family in families)
    return {
        (sample.name.removeprefix("agent_runtime_"), *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


def test_before_anything_happens_the_series_stand_at_zero(client: httpx.Client) -> None:
    series = scrape(client)
    for name in (
        ("turns_total", "completed"),
        ("turns_total", "failed"),
        ("tokens_total", "prompt"),
        ("approval_decisions_total", "expired"),
        ("time_to_first_token_seconds_count",),
        ("active_streams",),
        ("approvals_waiting",),
        ("outbox_lag_seconds",),
        ("breaker_state",),
        ("dead_letters",),
    ):
        assert series[name] == 0


def test_a_turn_is_counted_when_its_body_ends(client: httpx.Client, model: ModelServer) -> None:
    model.reply(text("Hello"), error_in_stream({"message": "no"}))
    talk.say(client, "s", "Go", agent_type="coder")
    talk.say(client, "s", "Again")
    series = scrape(client)
    assert series["turns_total", "completed"] == 1
    assert series["turns_total", "failed"] == 1
    assert series["tokens_total", "prompt"] > 0
    assert series["tokens_total", "completion"] > 0
    assert series["time_to_first_token_seconds_count",] >= 1
    assert series["time_to_first_token_seconds_bucket", "+Inf"] == series["time_to_first_token_seconds_count",]
    assert series["db_seconds_count", "write"] >= 2
    assert series["db_seconds_sum", "write"] > 0


def test_calls_and_decisions_are_counted_and_a_made_up_tool_is_no_series(
    client: httpx.Client, model: ModelServer
) -> None:
    model.reply(tool_calls([("call_1", "write_file", WRITE), ("call_2", "x{y}\nz", "{}")]))
    talk.say(client, "s", "Write", agent_type="coder")
    series = scrape(client)
    assert series["approvals_waiting",] == 1
    assert series["tool_calls_total", "refused", "other"] == 1
    talk.decide(client, "s", "call_1", "approve")
    talk.result(client, "s", "call_1", "ok")
    series = scrape(client)
    assert series["approvals_waiting",] == 0
    assert series["approval_decisions_total", "approve"] == 1
    assert series["tool_calls_total", "completed", "write_file"] == 1
    client.delete("/sessions/s")
    assert scrape(client)["tool_calls_total", "completed", "write_file"] == 1


def test_streams_of_all_living_processes_are_added_up(client: httpx.Client, model: ModelServer) -> None:
    now = timezone.now()
    gone = now - timedelta(seconds=gauges.ALIVE_SECONDS + 1)
    Beat.objects.create(process="another", active_streams=5, seen_at=now)
    Beat.objects.create(process="killed", active_streams=90, seen_at=gone)
    talk.say(client, "s", "Go", agent_type="coder")
    with following(client, "s", "0.0") as log:
        log.until(lambda heard: heard.contents != [])
        assert scrape(client)["active_streams",] == 6


def test_the_outbox_is_measured(client: httpx.Client, model: ModelServer) -> None:
    talk.say(client, "s", "Go", agent_type="coder")
    first, second, third = Event.objects.all()[:3]
    due = timezone.now() - timedelta(seconds=90)
    EventDelivery.objects.create(event=first, handler="unknown", state=DeliveryState.DEAD)
    EventDelivery.objects.create(event=second, handler="unknown", next_at=due)
    EventDelivery.objects.create(event=third, handler="unknown", next_at=timezone.now() + timedelta(hours=1))
    series = scrape(client)
    assert series["dead_letters",] == 1
    assert 90 <= series["outbox_lag_seconds",] < 180
    ready = client.get("/health/ready").json()
    assert ready["status"] == "degraded"
    assert ready["checks"]["outbox"]["status"] == "failing"


# --- who may -----------------------------------------------------------------------------------------------------


def test_the_key_is_asked_for_unless_the_metrics_are_public(
    client: httpx.Client, server: RunningServer, settings: Any
) -> None:
    with httpx.Client(base_url=server.url, timeout=30) as nobody:
        assert nobody.get("/metrics").status_code == 401
        settings.METRICS_PUBLIC = True
        scrape(nobody)
        assert nobody.get("/sessions").status_code == 401
        settings.RATE_LIMIT_PER_MINUTE = 1
        for _ in range(3):
            scrape(nobody)


def test_an_owner_is_told_nothing_about_all(client: httpx.Client, settings: Any) -> None:
    settings.OWNER_HEADER = "X-Owner"
    assert client.get("/metrics", headers={"X-Owner": "anna"}).status_code == 403
    scrape(client)


def test_guessing_the_key_of_the_metrics_is_limited(server: RunningServer, settings: Any) -> None:
    settings.RATE_LIMIT_PER_MINUTE = 2
    guesses = [
        httpx.get(f"{server.url}/metrics", headers={"X-Internal-Auth": f"guess-{n}"}, timeout=30) for n in range(3)
    ]
    assert [answer.status_code for answer in guesses] == [401, 401, 429]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_metrics_are_only_read(client: httpx.Client, method: str) -> None:
    assert client.request(method, "/metrics").status_code == 405
