"""Whatever becomes of the model, the person is told, what was shown is kept, and the session goes on."""

from __future__ import annotations

from typing import Any, NamedTuple

import httpx
import pytest

from sessions_app.models import Event, LLMRequest, Message, Run
from tests import talk
from tests.conftest import KEY
from tests.listening import same_story, stored, truth
from tests.model_server import (
    Cut,
    ModelServer,
    Reply,
    cut_after,
    cut_mid_event,
    end_after,
    error_in_stream,
    garbage,
    hang_after,
    hang_before_head,
    html,
    huge_event,
    status,
    strict,
    text,
    tool_calls,
    verdict,
)

SECRET = "sk-planted-secret-0123456789"
LEAK = {"error": {"message": f"bad key {SECRET} at http://provider.internal:9000/v1", "type": "planted"}}
READ = '{"path": "a.txt"}'


class Failure(NamedTuple):
    reply: Reply
    code: str
    shown: str = ""
    attempts: int = 1


FAILURES = {
    "400": Failure(status(400, body=LEAK), "LLM_REFUSED"),
    "401": Failure(status(401, body=LEAK), "LLM_REFUSED"),
    "404": Failure(status(404, body=LEAK), "LLM_REFUSED"),
    "422": Failure(status(422, body=LEAK), "LLM_REFUSED"),
    "redirect": Failure(status(302, {"Location": "http://provider.internal:9000/"}), "LLM_REFUSED"),
    "429": Failure(status(429, {"Retry-After": "0"}, LEAK), "LLM_RATE_LIMITED", attempts=3),
    "429 for an hour": Failure(status(429, {"Retry-After": "3600"}, LEAK), "LLM_RATE_LIMITED"),
    "500": Failure(status(500, {"Retry-After": "0"}, LEAK), "LLM_UNAVAILABLE", attempts=3),
    "503": Failure(status(503, {"Retry-After": "0"}, LEAK), "LLM_UNAVAILABLE", attempts=3),
    "503 for an hour": Failure(status(503, {"Retry-After": "3600"}, LEAK), "LLM_UNAVAILABLE"),
    "cut before a word": Failure(cut_after(0), "LLM_CUT"),
    "cut": Failure(cut_after(3), "LLM_CUT", "one two three "),
    "cut in an event": Failure(cut_mid_event(), "LLM_CUT", "one two three four five"),
    "ended early": Failure(end_after(2), "LLM_CUT", "one two "),
    "garbage": Failure(garbage(), "LLM_INVALID_RESPONSE"),
    "HTML": Failure(html(), "LLM_INVALID_RESPONSE"),
    "an event too big": Failure(huge_event(), "LLM_INVALID_RESPONSE"),
    "an error in the stream": Failure(error_in_stream(LEAK["error"], "one two"), "LLM_ERROR", "one two"),
    "silence": Failure(hang_before_head(), "LLM_TIMEOUT"),
    "silence after words": Failure(hang_after(2), "LLM_TIMEOUT", "one two "),
    "the output limit": Failure(text("one two", finish="length"), "LLM_OUTPUT_LIMIT", "one two"),
    "the output limit at once": Failure(text(finish="length"), "LLM_OUTPUT_LIMIT"),
}


@pytest.fixture(autouse=True)
def _impatient(settings: Any) -> None:
    settings.LLM_FIRST_BYTE_TIMEOUT_SECONDS = settings.LLM_IDLE_TIMEOUT_SECONDS = 0.4
    settings.LLM_API_KEY = SECRET


def failed(heard: talk.Heard, failure: Failure) -> None:
    """The text is closed, not final; then one error, last."""
    *before, last = heard.frames
    assert (last["type"], last["code"], last["is_final"]) == ("error", failure.code, True)
    assert last["content"] == last["error"]
    assert heard.types.count("error") == 1
    assert not any(frame["is_final"] for frame in before)
    assert heard.tokens == failure.shown
    assert heard.contents == ([failure.shown] if failure.shown else [])


def goes_on(client: httpx.Client, model: ModelServer) -> None:
    assert Run.objects.get(pk=Run.objects.latest("pk").pk).state == "failed"
    heard = talk.say(client, "s", "And now?")
    assert heard.contents == ["Hello world"]
    assert strict(model.requests[-1].body["messages"]) == []
    assert [message["content"] for message in model.requests[-1].body["messages"]].count("And now?") == 1
    truth(client, "s")


def no_secrets(heard: talk.Heard, model: ModelServer, caplog: pytest.LogCaptureFixture) -> None:
    rows = [*Event.objects.values(), *Message.objects.values(), *Run.objects.values(), *LLMRequest.objects.values()]
    lines = [record.getMessage() + str(record.exc_text) for record in caplog.records if record.name != "httpx"]
    for told in (str(heard.frames), str(rows), "\n".join(lines)):
        for secret in (SECRET, KEY, "provider.internal", f"127.0.0.1:{model.port}", "Traceback", "httpx."):
            assert secret not in told


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_a_failing_answer_ends_in_one_error_and_loses_nothing(
    client: httpx.Client, model: ModelServer, caplog: pytest.LogCaptureFixture, failure: Failure
) -> None:
    model.reply(*[failure.reply] * failure.attempts)
    heard = talk.say(client, "s", "Go", agent_type="coder")
    failed(heard, failure)
    assert len(model.requests) == failure.attempts
    rows = truth(client, "s")
    marked = [{"role": "assistant", "content": failure.shown, "interrupted": True}] if failure.shown else []
    assert rows == [{"role": "user", "content": "Go"}, *marked]
    assert client.get("/sessions/s/pending-approvals").json()["count"] == 0
    [measured] = client.get("/events/metrics/session/s").json()["requests"]
    assert (measured["success"], measured["error"]) == (False, failure.code)
    same_story(heard, stored(client, "s"))
    no_secrets(heard, model, caplog)
    goes_on(client, model)


@pytest.mark.parametrize(
    "failure",
    [
        FAILURES[name]
        for name in ("400", "429 for an hour", "500", "garbage", "HTML", "silence", "the output limit")
    ],
    ids=lambda failure: failure.code,
)  # fmt: skip
def test_the_same_when_the_upstream_is_asked_without_streaming(
    client: httpx.Client, model: ModelServer, settings: Any, caplog: pytest.LogCaptureFixture, failure: Failure
) -> None:
    settings.LLM_STREAM, settings.LLM_TOTAL_TIMEOUT_SECONDS = "false", 0.4
    model.reply(*[failure.reply] * failure.attempts)
    heard = talk.say(client, "s", "Go", agent_type="coder")
    failed(heard, failure)
    no_secrets(heard, model, caplog)
    goes_on(client, model)


def test_the_proxys_disguised_failure_is_an_error_and_no_text(
    client: httpx.Client, model: ModelServer, settings: Any
) -> None:
    model.health = {"status": "healthy", "service": "llm-proxy"}
    settings.LLM_RETRY_BUDGET_SECONDS = 0
    model.reply(text(f"[Error] LiteLLM proxy unavailable: http://provider.internal {SECRET}"))
    heard = talk.say(client, "s", "Go", agent_type="coder")
    failed(heard, Failure(status(200), "LLM_UNAVAILABLE"))
    assert truth(client, "s") == [{"role": "user", "content": "Go"}]


def test_an_unreachable_model_is_told_within_the_budget(client: httpx.Client, settings: Any) -> None:
    settings.LLM_PROXY_URL, settings.LLM_MODEL, settings.LLM_RETRY_BUDGET_SECONDS = "http://127.0.0.1:9", "m", 1
    heard = talk.say(client, "s", "Go", agent_type="coder")
    failed(heard, Failure(status(500), "LLM_UNAVAILABLE"))
    assert "127.0.0.1" not in str(heard.frames)


@pytest.mark.parametrize("url", ["nonsense", "http://", "ftp://x", "http://[::1", "http://x:99999", ""])
def test_an_address_that_is_none_is_told_too(client: httpx.Client, settings: Any, url: str) -> None:
    settings.LLM_PROXY_URL, settings.LLM_MODEL, settings.LLM_RETRY_BUDGET_SECONDS = url, "m", 0
    heard = talk.say(client, "s", "Go", agent_type="coder")
    failed(heard, Failure(status(500), "LLM_UNAVAILABLE"))
    assert truth(client, "s") == [{"role": "user", "content": "Go"}]


@pytest.mark.parametrize("again", [status(429, {"Retry-After": "0"}), status(500, {"Retry-After": "0"})])
def test_a_failure_that_passes_is_never_seen(client: httpx.Client, model: ModelServer, again: Reply) -> None:
    model.reply(again, again, text("At last"))
    heard = talk.say(client, "s", "Go", agent_type="coder")
    assert heard.contents == ["At last"]
    assert "error" not in heard.types
    assert len(model.requests) == 3
    truth(client, "s")


@pytest.mark.parametrize("name", ["cut", "ended early", "an error in the stream", "silence after words"])
def test_nothing_is_asked_again_once_something_was_shown(client: httpx.Client, model: ModelServer, name: str) -> None:
    model.reply(FAILURES[name].reply)
    failed(talk.say(client, "s", "Go", agent_type="coder"), FAILURES[name])
    assert len(model.requests) == 1


@pytest.mark.parametrize("reply", [text(), text(usage=None), text(reasoning="I think, therefore")])
def test_an_empty_answer_ends_the_turn_cleanly(client: httpx.Client, model: ModelServer, reply: Reply) -> None:
    model.reply(reply)
    heard = talk.say(client, "s", "Go", agent_type="coder")
    assert heard.types == ["agent_switched", "assistant_message"]
    assert heard.frames[-1] == {"type": "assistant_message", "token": "", "content": "", "is_final": True}
    assert truth(client, "s") == [{"role": "user", "content": "Go"}]
    assert talk.say(client, "s", "And now?").contents == ["Hello world"]
    assert strict(model.requests[-1].body["messages"]) == []


@pytest.mark.parametrize("name", ["500", "cut", "silence", "HTML", "the output limit"])
def test_a_failure_after_tools_keeps_the_calls_and_their_results(
    client: httpx.Client, model: ModelServer, name: str
) -> None:
    failure = FAILURES[name]
    calls = [("call_1", "read_file", READ), ("call_2", "read_file", READ)]
    model.reply(tool_calls(calls, "Reading."), *[failure.reply] * failure.attempts)
    talk.say(client, "s", "Go", agent_type="coder")
    assert talk.result(client, "s", "call_2", "two").frames == []
    failed(talk.result(client, "s", "call_1", "one"), failure)
    rows = truth(client, "s")
    assert [row["role"] for row in rows[:4]] == ["user", "assistant", "tool", "tool"]
    assert client.get("/sessions/s/pending-approvals").json()["count"] == 0
    goes_on(client, model)


CALLS = [("call_1", "write_file", '{"path": "a", "content": "b"}')]


@pytest.mark.parametrize(
    "reply",
    [
        tool_calls(CALLS, "Writing.", finish="length"),
        tool_calls(CALLS, "Writing.", finish=None, usage=None, done=False),
        Reply([*tool_calls(CALLS, "Writing.", finish=None, usage=None, done=False).parts, Cut()]),
    ],
    ids=["output limit", "ended early", "cut"],
)
def test_calls_of_an_answer_that_broke_off_never_go_out(client: httpx.Client, model: ModelServer, reply: Reply) -> None:
    model.reply(reply)
    heard = talk.say(client, "s", "Go", agent_type="coder")
    assert heard.calls == []
    assert heard.contents == ["Writing."]
    assert heard.error is not None
    assert client.get("/sessions/s/pending-approvals").json()["count"] == 0
    goes_on(client, model)


@pytest.mark.parametrize("name", ["400", "500", "HTML", "garbage", "cut before a word"])
def test_a_classifier_that_fails_leaves_the_choice_to_keywords(
    client: httpx.Client, model: ModelServer, name: str
) -> None:
    model.route(FAILURES[name].reply)
    heard = talk.say(client, "s", "Fix the crash on login")
    assert heard.types[0] == "agent_switched"
    assert heard.frames[0]["metadata"]["confidence"] == "low"
    assert heard.frames[0]["metadata"]["to_agent"] == "debug"
    assert heard.contents == ["Hello world"]
    assert len(model.requests) == 2
    truth(client, "s")


def test_a_silent_classifier_is_not_waited_for_long(client: httpx.Client, model: ModelServer, settings: Any) -> None:
    settings.LLM_ROUTING_TIMEOUT_SECONDS = 0.3
    model.route(hang_before_head())
    heard = talk.say(client, "s", "Fix the crash on login")
    assert (heard.frames[0]["metadata"]["to_agent"], heard.contents) == ("debug", ["Hello world"])


def test_a_nonsense_verdict_leaves_the_choice_to_keywords(client: httpx.Client, model: ModelServer) -> None:
    model.route(verdict("president"))
    heard = talk.say(client, "s", "Fix the crash on login")
    assert heard.frames[0]["metadata"]["to_agent"] == "debug"


def test_russians_are_told_in_russian(client: httpx.Client, model: ModelServer) -> None:
    model.reply(status(400))
    heard = talk.say(client, "s", "Исправь падение", agent_type="coder")
    assert heard.error is not None
    assert any("а" <= letter <= "я" for letter in heard.error["content"])


def test_an_answer_beyond_its_bound_is_closed_with_what_was_shown(
    client: httpx.Client, model: ModelServer, settings: Any
) -> None:
    settings.MAX_ANSWER_BYTES = 2000
    model.reply(text(*["0123456789 " * 20] * 20))
    heard = talk.say(client, "s", "Go", agent_type="coder")
    assert heard.error is not None
    assert heard.error["code"] == "ANSWER_TOO_LONG"
    assert heard.tokens == "".join(heard.contents)
    assert len(heard.tokens) <= 2000
    goes_on(client, model)


def test_silence_is_covered_by_comments(client: httpx.Client, model: ModelServer, settings: Any) -> None:
    settings.KEEPALIVE_SECONDS, settings.LLM_FIRST_BYTE_TIMEOUT_SECONDS = 1, 2.5
    model.reply(hang_before_head())
    heard = talk.say(client, "s", "Go", agent_type="coder")
    assert heard.comments >= 1
    failed(heard, FAILURES["silence"])
