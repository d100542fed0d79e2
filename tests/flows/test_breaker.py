"""A proxy that is down: turns fail at once and clearly, everything else goes on, and it recovers alone."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from django.utils import timezone

from agents_app import breaker
from sessions_app import breakers
from sessions_app.models import Breaker, LLMRequest, Run
from tests import talk
from tests.conftest import RunningServer
from tests.flows.test_model_failures import FAILURES
from tests.listening import posting, truth
from tests.model_replies import drip
from tests.model_server import Gate, ModelServer, Reply, cut_after, garbage, hang_before_head, status, text, verdict

DOWN = status(503, {"Retry-After": "0"})
REFUSED = "The language model cannot be reached right now. Please try again in"


@pytest.fixture(autouse=True)
def _soon_enough(settings: Any) -> None:
    settings.BREAKER_FAILURES, settings.LLM_STREAM = 3, "true"


def fail(client: httpx.Client, model: ModelServer, reply: Reply = DOWN, session_id: str = "s") -> talk.Heard:
    model.always(reply)
    heard = talk.say(client, session_id, "Go", agent_type="coder")
    assert heard.error is not None
    return heard


def opened(client: httpx.Client, model: ModelServer, settings: Any) -> None:
    """Three failed turns, and time enough for what a test does while it is open."""
    settings.BREAKER_RESET_SECONDS = 600
    for _ in range(3):
        fail(client, model)
    assert breakers.state().state == "open"
    model.requests.clear()


def due() -> None:
    """The time for a probe has come."""
    Breaker.objects.update(next_probe_at=timezone.now())


def test_it_opens_after_so_many_failed_turns_and_then_says_so_at_once(
    client: httpx.Client, model: ModelServer, settings: Any
) -> None:
    settings.BREAKER_RESET_SECONDS = 600
    for count in (1, 2, 3):
        assert fail(client, model, session_id=f"s{count}").error["code"] == "LLM_UNAVAILABLE"  # type: ignore[index]
        assert breakers.state().failures == count
    assert len(model.requests) == 9  # a turn's own retries count once
    heard = talk.say(client, "s1", "And now?")
    assert len(model.requests) == 9
    assert heard.types == ["error"]
    assert heard.error is not None
    assert (heard.error["code"], heard.error["is_final"]) == ("LLM_UNAVAILABLE", True)
    assert heard.error["content"].startswith(REFUSED)
    assert [row["content"] for row in truth(client, "s1")] == ["Go", "And now?"]
    assert client.get("/sessions").json()["total"] == 3
    ready = client.get("/health/ready")
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
    told = ready.json()["checks"]["llm"]
    assert (told["status"], told["breaker"]) == ("failing", "open")
    assert "\nagent_runtime_breaker_state 2.0\n" in client.get("/metrics").text
    assert Run.objects.latest("pk").error_code == "LLM_UNAVAILABLE"


def test_routing_falls_to_keywords_without_asking(client: httpx.Client, model: ModelServer, settings: Any) -> None:
    opened(client, model, settings)
    heard = talk.say(client, "new", "Почини падение при входе")
    assert heard.types == ["agent_switched", "error"]
    assert heard.frames[0]["metadata"]["to_agent"] == "debug"
    assert heard.error is not None
    assert "Языковая модель" in heard.error["content"]
    assert model.requests == []


@pytest.mark.parametrize("reply", [cut_after(0), cut_after(2), hang_before_head()], ids=["cut", "cut late", "silence"])
def test_cuts_and_silence_count(client: httpx.Client, model: ModelServer, settings: Any, reply: Reply) -> None:
    settings.LLM_FIRST_BYTE_TIMEOUT_SECONDS = 0.3
    fail(client, model, reply)
    assert breakers.state().failures == 1


@pytest.mark.parametrize(
    "reply",
    [
        status(400),
        status(401),
        status(404),
        status(429, {"Retry-After": "3600"}),
        garbage(),
        text("a", finish="length"),
    ],
)
def test_refusals_and_nonsense_do_not_count(client: httpx.Client, model: ModelServer, reply: Reply) -> None:
    fail(client, model)
    fail(client, model, reply)
    assert breakers.state().failures == 1
    model.always(text("fine"))
    assert talk.say(client, "s", "Go").contents == ["fine"]
    assert breakers.state().failures == 0


COUNTED = {"LLM_UNAVAILABLE", "LLM_CUT", "LLM_TIMEOUT"}
SILENT = ("silence", "silence after words", "a byte now and then")
SLOW = drip(text("one two three four five"), every_seconds=0.2)  # each byte in time, all of them too late


@pytest.mark.parametrize("name", [*FAILURES, "a byte now and then"])
def test_each_way_of_failing_counts_once_or_not_at_all_and_a_probe_that_meets_it_opens_it_again_or_closes_it(
    client: httpx.Client, model: ModelServer, settings: Any, name: str
) -> None:
    if name in SILENT:
        settings.LLM_FIRST_BYTE_TIMEOUT_SECONDS = settings.LLM_IDLE_TIMEOUT_SECONDS = 0.6
    reply = FAILURES[name].reply if name in FAILURES else SLOW
    heard = fail(client, model, reply)
    assert heard.error is not None
    code = heard.error["code"]
    assert code == (FAILURES[name].code if name in FAILURES else "LLM_TIMEOUT")
    assert breakers.state().failures == (code in COUNTED)
    opened(client, model, settings)
    due()
    asked = len(model.requests)
    assert fail(client, model, reply, "probe").error
    assert len(model.requests) == asked + 1  # a probe is never retried
    is_there = code in ("LLM_REFUSED", "LLM_RATE_LIMITED", "LLM_OUTPUT_LIMIT")
    assert breakers.state().state == ("closed" if is_there else "open")


def test_a_cancelled_turn_does_not_count(client: httpx.Client, model: ModelServer) -> None:
    gate = Gate()
    model.reply(text("One ", gate, "two"))
    with posting(client, "s", "Go", agent_type="coder") as answer:
        answer.until(lambda heard: heard.tokens == "One ")
        client.post("/sessions/s/cancel")
        answer.ended()
    assert breakers.state() == breakers.Circuit()


def test_routing_alone_never_opens_it(client: httpx.Client, model: ModelServer) -> None:
    model.always_route(status(503))
    for number in range(4):
        assert talk.say(client, f"s{number}", "Fix it").contents == ["Hello world"]
    assert breakers.state() == breakers.Circuit()
    model.always_route(verdict("coder"))
    model.always(DOWN)
    for number in range(4, 7):  # and a routing that is answered does not make up for an answer that is not
        talk.say(client, f"s{number}", "Fix it")
    assert breakers.state().state == "open"


def test_of_many_exactly_one_tries_and_the_others_are_told_at_once(
    client: httpx.Client, model: ModelServer, settings: Any
) -> None:
    opened(client, model, settings)
    due()
    gate = Gate()
    model.always(text("Hello ", "again").held(gate))
    barrier = threading.Barrier(12)

    def ask(number: int) -> talk.Heard:
        barrier.wait()
        heard = talk.say(client, f"many{number}", "Go", agent_type="coder")
        told.release()
        return heard

    told = threading.Semaphore(0)
    with ThreadPoolExecutor(12) as pool:
        asked = [pool.submit(ask, number) for number in range(12)]
        for _ in range(11):
            assert told.acquire(timeout=30)
        assert breakers.state().state == "half_open"
        assert talk.say(client, "late", "Go").error is not None  # not even by routing
        gate.open()
        heard = [one.result() for one in asked]
    assert len(model.requests) == 1
    assert sorted(one.tokens for one in heard) == [""] * 11 + ["Hello again"]
    assert breakers.state().state == "closed"
    assert talk.say(client, "late", "Go", agent_type="coder").contents == ["Hello again"]


def test_a_probe_is_never_tried_again_and_no_other_model_is(
    client: httpx.Client, model: ModelServer, settings: Any
) -> None:
    opened(client, model, settings)
    due()
    settings.LLM_FALLBACK_MODELS = ["spare"]
    fail(client, model)
    assert len(model.requests) == 1
    circuit = breakers.state()
    assert (circuit.state, circuit.probe) == ("open", "")
    assert breakers.seconds_left(circuit) > 500


def test_a_routing_request_may_be_the_probe(client: httpx.Client, model: ModelServer, settings: Any) -> None:
    opened(client, model, settings)
    due()
    model.always_route(status(503))
    assert talk.say(client, "one", "Fix it").types == ["agent_switched", "error"]
    assert len(model.requests) == 1
    due()
    model.always_route(verdict("coder"))
    model.always(text("Back"))
    assert talk.say(client, "two", "Fix it").contents == ["Back"]
    assert breakers.state().state == "closed"


def test_a_probe_that_is_cancelled_leaves_its_place_to_the_next(
    client: httpx.Client, model: ModelServer, server: RunningServer, settings: Any
) -> None:
    opened(client, model, settings)
    due()
    gate = Gate()
    model.reply(text("One ", gate))
    model.always(text("Fine"))
    with posting(client, "s", "Go") as answer:
        answer.until(lambda heard: heard.tokens == "One ")
        client.post("/sessions/s/cancel")
        answer.ended()
    assert talk.say(client, "s", "Go").contents == ["Fine"]
    assert breakers.state().state == "closed"


def test_a_probe_that_has_spoken_for_long_has_proved_enough(
    client: httpx.Client, model: ModelServer, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "PROVEN_SECONDS", 0)
    opened(client, model, settings)
    due()
    gate = Gate()
    model.reply(text("One ", gate, "two"))
    model.always(text("Fine"))
    with posting(client, "s", "Go") as answer:
        answer.until(lambda heard: heard.tokens == "One ")
        for _ in range(1000):
            if breakers.state().state == "closed":
                break
            client.get("/health")
        assert talk.say(client, "other", "Go", agent_type="coder").contents == ["Fine"]
        gate.open()
        assert answer.ended().contents == ["One two"]


def test_a_reset_by_hand_works_at_once(client: httpx.Client, model: ModelServer, settings: Any) -> None:
    opened(client, model, settings)
    model.always(text("Fine"))
    breakers.reset("anna")  # as `manage.py breaker --reset` and the admin do, in another process
    assert talk.say(client, "s", "Go").contents == ["Fine"]


def test_nobody_tries_again_after_another_has_opened_it(
    client: httpx.Client, model: ModelServer, settings: Any
) -> None:
    settings.BREAKER_RESET_SECONDS = 600
    gate = Gate()
    model.reply(DOWN.held(gate))
    with posting(client, "waits", "Go", agent_type="coder") as answer:
        answer.begun()
        for _ in range(3):
            fail(client, model)
        gate.open()
        assert answer.ended().error is not None
    assert len(model.requests) == 10


def test_a_demo_needs_no_breaker(client: httpx.Client, settings: Any) -> None:
    breakers.change(lambda circuit: breakers.Circuit(state="open", next_probe_at=timezone.now()))
    assert talk.say(client, "s", "Hello", agent_type="coder").error is None


def test_the_model_that_answered_is_on_record(client: httpx.Client, model: ModelServer, settings: Any) -> None:
    settings.LLM_FALLBACK_MODELS = ["spare"]
    model.reply(status(404), text("Fine"))
    assert talk.say(client, "s", "Go", agent_type="coder").contents == ["Fine"]
    assert LLMRequest.objects.get().model == "spare"
