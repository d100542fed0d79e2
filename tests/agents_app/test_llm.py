import asyncio
import logging
import socket
import time
from email.utils import formatdate

import pytest

from agents_app import llm
from agents_app.llm import RequestedCall, Usage
from sessions_app.errors import (
    AnswerTooLong,
    ContextTooLong,
    LLMCut,
    LLMFault,
    LLMGarbage,
    LLMModelUnknown,
    LLMOutputLimit,
    LLMRateLimited,
    LLMRefused,
    LLMTimeout,
    LLMUnavailable,
)
from tests.model_server import (
    Gate,
    ModelServer,
    Pause,
    Reply,
    chunk,
    chunks,
    cut_after,
    cut_mid_event,
    drip,
    end_after,
    error_in_stream,
    function_call,
    garbage,
    hang_after,
    hang_before_head,
    html,
    huge_event,
    noisy,
    status,
    text,
    tool_calls,
    verdict,
)

TOOL = {"type": "function", "function": {"name": "read_file", "parameters": {"type": "object", "properties": {}}}}
BODY = {"model": "m", "messages": [{"role": "user", "content": "Привет, secret-prompt"}], "tools": [TOOL]}
PROXY = {"status": "healthy", "service": "llm-proxy"}
SOON = {"Retry-After": "0"}


@pytest.fixture
def model(settings):
    with ModelServer() as model:
        settings.LLM_PROXY_URL, settings.LLM_MODEL, settings.LLM_STREAM = model.url, "m", "true"
        settings.INTERNAL_API_KEY, settings.LLM_API_KEY = "secret-internal", ""
        yield model


@pytest.fixture(autouse=True)
async def closed():
    yield
    await llm.close()


class Told:
    """What one request showed, and how it ended."""

    def __init__(self):
        self.pieces, self.answer, self.fault = [], None, None

    @property
    def text(self):
        return "".join(self.pieces)


async def tell(body=BODY, **kwargs):
    told = Told()
    try:
        told.answer = await llm.stream(body, told.pieces.append, **kwargs)
        assert told.answer.text == told.text
    except LLMFault as fault:
        told.fault = fault
    return told


# What goes up


@pytest.mark.parametrize("ending", ["", "/", "/v1", "/v1/"])
async def test_the_request_is_the_contracts(model, settings, ending):
    settings.LLM_PROXY_URL += ending
    settings.LLM_API_KEY = "secret-bearer"
    await tell({**BODY, "temperature": 0.3}, correlation_id="corr-1")
    (headers, body, path), *_ = model.requests
    assert path == "/v1/chat/completions"
    assert body == {**BODY, "temperature": 0.3, "stream": True, "stream_options": {"include_usage": True}}
    assert headers["x-internal-auth"] == "secret-internal"
    assert headers["authorization"] == "Bearer secret-bearer"
    assert headers["accept-encoding"] == "identity"
    assert headers["x-correlation-id"] == "corr-1"


async def test_no_bearer_without_a_key_and_no_odd_correlation_id(model):
    await tell(correlation_id="a\r\nX-Evil: 1")
    assert "authorization" not in model.requests[0].headers
    assert "x-correlation-id" not in model.requests[0].headers
    assert "x-evil" not in model.requests[0].headers


async def test_a_body_that_strict_json_refuses_goes_up_as_it_is(model):
    odd = {**BODY, "messages": [{"role": "user", "content": "\ud83d", "number": 2**70}]}
    await tell(odd)
    assert model.requests[0].body["messages"] == odd["messages"]


async def test_no_proxy_of_the_environment_is_used(model, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    assert (await tell()).text == "Hello world"


async def test_no_redirect_is_followed(model):
    model.reply(status(307, {"Location": "/v1/chat/completions"}))
    assert isinstance((await tell()).fault, LLMRefused)
    assert len(model.requests) == 1


async def test_stream_options_are_left_out_once_refused(model):
    model.reply(status(400, body={"error": {"message": "Unrecognized request argument supplied: stream_options"}}))
    assert (await tell()).text == "Hello world"
    await tell()
    assert ["stream_options" in request.body for request in model.requests] == [True, False, False]


# What comes down


async def test_text_is_told_while_the_model_still_writes(model):
    gate, told = Gate(), Told()
    heard = asyncio.Event()

    def hear(piece):
        told.pieces.append(piece)
        heard.set()

    model.reply(text("Hello ", gate, "big world"))
    answering = asyncio.create_task(llm.stream(BODY, hear))
    await heard.wait()
    assert told.text == "Hello "
    gate.open()
    answer = await answering
    assert (answer.text, answer.finish_reason, answer.model) == ("Hello big world", "stop", "scripted")
    assert answer.usage == Usage(11, 7, 18)


async def test_what_one_read_brings_is_told_at_once(model):
    words = [chunk({"content": f"{n} "}) for n in range(50)]
    model.reply(Reply([b"".join(b"data: %s\n\n" % _json(word) for word in words), chunk({}, "stop")]))
    told = await tell()
    assert told.text == "".join(f"{n} " for n in range(50))
    assert told.pieces[0] == told.text


ANSWERS = {
    "words": (text("Hello big world"), "Hello big world", []),
    "noise": (noisy(text("Hello world")), "Hello world", []),
    "dripped": (drip(text("При\u2028вет \U0001f600")), "При\u2028вет \U0001f600", []),
    "dripped noise": (drip(noisy(text("Hi"))), "Hi", []),
    "separators": (text("a\u2028b\u2029c\u0085d\x0be"), "a\u2028b\u2029c\u0085d\x0be", []),
    "NUL": (text("a\x00b"), "a\\u0000b", []),
    "lone surrogate": (text("a\ud83d!"), "a\ufffd!", []),
    "nothing": (chunks([]), "", []),
    "no [DONE]": (text("Hello", done=False), "Hello", []),
    "no finish reason": (text("Hello", finish=None), "Hello", []),
    "no usage": (text("Hello", usage=None), "Hello", []),
    "reasoning": (text("Yes", reasoning="hm, hm"), "Yes", []),
    "calls": (
        tool_calls([("a", "read_file", '{"path": "x"}'), ("b", "list_files", "{}")], text="So: "),
        "So: ",
        [RequestedCall("a", "read_file", '{"path": "x"}'), RequestedCall("b", "list_files", "{}")],
    ),
    "legacy": (function_call("read_file", '{"path": "x"}'), "", [RequestedCall("", "read_file", '{"path": "x"}')]),
}


@pytest.mark.parametrize("streams", ["true", "false"])
@pytest.mark.parametrize(("reply", "said", "calls"), ANSWERS.values(), ids=ANSWERS)
async def test_an_answer_is_the_same_streamed_and_whole(model, settings, streams, reply, said, calls):
    settings.LLM_STREAM = streams
    model.reply(reply)
    told = await tell()
    assert told.fault is None
    assert (told.text, told.answer.calls) == (said, calls)
    assert len(told.pieces) <= 1 or streams == "true"


async def test_reasoning_is_never_told(model):
    model.reply(text("Yes", reasoning="hm, hm"))
    told = await tell()
    assert (told.text, told.answer.reasoning) == ("Yes", "hm, hm")


async def test_a_whole_answer_to_a_streamed_request_is_read_and_a_stream_to_a_whole_one(model, settings):
    model.reply(Reply([_json({"choices": [{"message": {"content": "whole"}}]})], content_type="application/json"))
    assert (await tell()).text == "whole"
    settings.LLM_STREAM = "false"
    model.reply(Reply([b'data: {"choices": [{"delta": {"content": "st"}}]}\n\ndata: [DONE]\n\n']))
    assert (await tell()).pieces == ["st"]


async def test_a_cut_or_silence_after_the_finish_reason_is_a_normal_end(model, settings):
    settings.LLM_IDLE_TIMEOUT_SECONDS = 0.2
    for end in (Gate(), b"data: {"):
        finished = [*text("Hello", done=False).parts, end]
        model.reply(Reply(finished))
        told = await tell()
        assert (told.fault, told.answer.text, told.answer.usage) == (None, "Hello", Usage(11, 7, 18))
    model.reply(Reply([*text("Hello", usage=None, done=False).parts, *cut_after(0).parts]))
    assert (await tell()).fault is None


async def test_connections_are_used_again(model):
    for _ in range(5):
        await tell()
    assert model.connections == 1


async def test_a_stale_connection_is_no_failure(model):
    await tell()
    model.reply(text("never").held(_cut_gate := Gate()), text("again"))
    answering = asyncio.create_task(tell())
    await _cut_gate.arrived()
    model.drop_connections()
    assert (await answering).text == "again"


async def test_150_streams_run_at_once(model):
    gate = Gate()
    model.always(lambda body: text("Hello ", gate, "world"))
    streams = [asyncio.create_task(tell()) for _ in range(150)]
    await model.until(lambda: len(model.requests) == 150, 60)
    gate.open()
    assert {told.text for told in await asyncio.gather(*streams)} == {"Hello world"}


# Failures

FAILURES = {
    "400": (status(400), LLMRefused, ""),
    "401": (status(401), LLMRefused, ""),
    "404": (status(404), LLMModelUnknown, ""),
    "context": (status(400, body={"error": {"code": "context_length_exceeded"}}), ContextTooLong, ""),
    "413": (status(413), ContextTooLong, ""),
    "a long refusal": (status(400, body="x" * 1_000_000), LLMRefused, ""),
    "html": (html(), LLMGarbage, ""),
    "garbage": (garbage(), LLMGarbage, ""),
    "empty body": (Reply([]), LLMGarbage, ""),
    "no JSON": (Reply([*end_after(2).parts, b"data: {oops}\n\n"]), LLMGarbage, "one two "),
    "wrong types": (Reply([*end_after(2).parts, {"choices": "x"}]), LLMGarbage, "one two "),
    "too much in one read": (Reply([b'data: {"choices":[{"delta":{"content":"a"}}]}\n\ndata: 5\n\n']), LLMGarbage, "a"),
    "huge event": (huge_event(), LLMGarbage, ""),
    "compressed": (Reply([b"\x1f\x8b"], headers={"Content-Encoding": "gzip"}), LLMGarbage, ""),
    "cut at the head": (cut_after(0), LLMCut, ""),
    "cut": (cut_after(2), LLMCut, "one two "),
    "cut in an event": (cut_mid_event(), LLMCut, "one two three four five"),
    "cut while dripping": (drip(cut_after(1)), LLMCut, "one "),
    "early end": (end_after(2), LLMCut, "one two "),
    "early end in an event": (Reply([*end_after(2).parts, b"data: {"]), LLMCut, "one two "),
    "output limit": (text("one two", finish="length"), LLMOutputLimit, "one two"),
    "filtered": (text("one", finish="content_filter"), LLMRefused, "one"),
    "error in the stream": (error_in_stream({"message": "boom"}, "one two"), LLMFault, "one two"),
    "error as text": (error_in_stream("boom"), LLMFault, ""),
    "late 503": (error_in_stream({"code": 503}, "one "), LLMUnavailable, "one "),
    "late context": (error_in_stream({"code": "context_length_exceeded"}), ContextTooLong, ""),
}


@pytest.mark.parametrize(("reply", "fault", "shown"), FAILURES.values(), ids=FAILURES)
async def test_a_failure_has_its_name_and_what_was_shown_stays_shown(model, reply, fault, shown):
    model.reply(reply)
    told = await tell()
    assert (type(told.fault), told.text) == (fault, shown)
    assert len(model.requests) == 1
    assert (await tell()).text == "Hello world"


WHOLE_FAILURES = {
    "400": (status(400), LLMRefused, ""),
    "html": (html(), LLMGarbage, ""),
    "garbage": (garbage(), LLMGarbage, ""),
    "no choices": (Reply([b'{"choices": []}']), LLMGarbage, ""),
    "broken JSON": (Reply([b'{"choices": [']), LLMGarbage, ""),
    "cut": (cut_after(2), LLMCut, ""),
    "error": (error_in_stream({"message": "boom"}), LLMFault, ""),
    "output limit": (text("one two", finish="length"), LLMOutputLimit, "one two"),
}


@pytest.mark.parametrize(("reply", "fault", "shown"), WHOLE_FAILURES.values(), ids=WHOLE_FAILURES)
async def test_a_whole_answer_fails_by_the_same_names(model, settings, reply, fault, shown):
    settings.LLM_STREAM = "false"
    model.reply(reply)
    told = await tell()
    assert (type(told.fault), told.text) == (fault, shown)


async def test_an_answer_that_is_too_big_ends(model, settings):
    settings.MAX_ANSWER_BYTES = 1000
    model.always(text("x " * 1000))
    for streams in ("true", "false"):
        settings.LLM_STREAM = streams
        with pytest.raises(AnswerTooLong):
            await llm.stream(BODY, lambda text: None)
    settings.MAX_ANSWER_BYTES = 10
    model.always(Reply([b'{"a": "' + b"x" * 3_000_000 + b'"}']))
    assert isinstance((await tell()).fault, LLMGarbage)


async def test_what_the_listener_raises_ends_the_request(model):
    def refuse(text):
        raise ValueError("enough")

    model.reply(hang_after(1))
    with pytest.raises(ValueError, match="enough"):
        await llm.stream(BODY, refuse)
    model.reply(text("one"))
    with pytest.raises(ValueError, match="enough"):
        await llm.stream(BODY, refuse)
    await model.until(lambda: model.connections_closed_by_client >= 1)


# Silence

SILENCES = {
    "before the head": (hang_before_head(), "", "LLM_FIRST_BYTE_TIMEOUT_SECONDS"),
    "after the head": (hang_after(0), "", "LLM_FIRST_BYTE_TIMEOUT_SECONDS"),
    "comments only": (Reply([b": ping\n\n", Gate()]), "", "LLM_FIRST_BYTE_TIMEOUT_SECONDS"),
    "after text": (hang_after(2), "one two ", "LLM_IDLE_TIMEOUT_SECONDS"),
    "after text that came for longer": (
        Reply([*[part for n in range(8) for part in (chunk({"content": str(n)}), Pause(0.06))], Gate()]),
        "01234567",
        "LLM_IDLE_TIMEOUT_SECONDS",
    ),
    "in the first event": (Reply([b"data: {", Gate()]), "", "LLM_IDLE_TIMEOUT_SECONDS"),
    "dripped": (drip(text("Hello"), every_seconds=0.02), "", "LLM_IDLE_TIMEOUT_SECONDS"),
    "comments after text": (
        Reply([*end_after(1).parts, *[b": ping\n\n", Pause(0.05)] * 200]),
        "one ",
        "LLM_IDLE_TIMEOUT_SECONDS",
    ),
    "steady, without an end": (
        Reply([part for _ in range(200) for part in (chunk({"reasoning_content": "hm"}), Pause(0.05))]),
        "",
        "LLM_STREAM_TOTAL_TIMEOUT_SECONDS",
    ),
}


@pytest.mark.parametrize(("reply", "shown", "bound"), SILENCES.values(), ids=SILENCES)
async def test_silence_is_bounded_by_its_own_setting_and_not_tried_again(model, settings, reply, shown, bound):
    setattr(settings, bound, 0.3)
    model.reply(reply)
    told = await asyncio.wait_for(tell(), 30)
    assert (type(told.fault), told.text) == (LLMTimeout, shown)
    assert len(model.requests) == 1
    await model.until(lambda: model.connections_closed_by_client == 1)


async def test_a_whole_answer_is_bounded_in_total_only(model, settings):
    settings.LLM_STREAM = "false"
    settings.LLM_FIRST_BYTE_TIMEOUT_SECONDS = settings.LLM_IDLE_TIMEOUT_SECONDS = 0.01
    settings.LLM_TOTAL_TIMEOUT_SECONDS = 0.3
    gate = Gate()
    model.reply(text("Hello ", gate, "world"))
    assert isinstance((await asyncio.wait_for(tell(), 30)).fault, LLMTimeout)


async def test_a_slow_model_that_keeps_writing_is_never_silent(model, settings):
    settings.LLM_IDLE_TIMEOUT_SECONDS = settings.LLM_FIRST_BYTE_TIMEOUT_SECONDS = 0.5
    parts = [part for n in range(10) for part in (chunk({"content": f"{n}"}), Pause(0.1))]
    model.reply(Reply([*parts, chunk({}, "stop")]))
    assert (await tell()).text == "0123456789"


async def test_cancelling_closes_the_upstream_connection(model):
    gate, told = Gate(), Told()
    model.reply(text("Hello ", gate, "world"))
    answering = asyncio.create_task(llm.stream(BODY, told.pieces.append))
    await gate.arrived()
    answering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await answering
    await model.until(lambda: model.connections_closed_by_client == 1)


# Trying again


@pytest.mark.parametrize(
    "reply",
    [status(429, SOON), status(500, SOON), status(503, {"Retry-After": formatdate(time.time() - 5, usegmt=True)})],
)
async def test_429_and_5xx_are_tried_again(model, reply):
    model.reply(reply, reply)
    assert (await tell()).text == "Hello world"
    assert len(model.requests) == 3


@pytest.mark.parametrize(("code", "fault"), [(429, LLMRateLimited), (502, LLMUnavailable)])
async def test_three_attempts_are_enough(model, code, fault):
    model.always(status(code, SOON))
    assert type((await tell()).fault) is fault
    assert len(model.requests) == 3


async def test_an_error_event_before_any_text_is_tried_again(model):
    model.reply(error_in_stream({"code": 503}))
    assert (await tell()).text == "Hello world"


async def test_retry_after_is_waited_for(model):
    model.reply(status(429, {"Retry-After": "1"}))
    began = time.monotonic()
    assert (await tell()).text == "Hello world"
    assert time.monotonic() - began >= 1


@pytest.mark.parametrize(
    "after", ["56", "86400", formatdate(time.time() + 3600, usegmt=True)], ids=["just", "far", "date"]
)
async def test_a_retry_after_beyond_the_budget_ends_at_once(model, after):
    model.always(status(429, {"Retry-After": after}))
    assert isinstance((await asyncio.wait_for(tell(), 30)).fault, LLMRateLimited)
    assert len(model.requests) == 1


async def test_no_attempt_is_made_that_would_end_after_the_budget(model, settings):
    settings.LLM_RETRY_BUDGET_SECONDS = 0.4
    model.always(status(500))
    assert isinstance((await tell()).fault, LLMUnavailable)
    assert len(model.requests) == 1


async def test_nobody_there_is_unavailable(settings):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        settings.LLM_PROXY_URL, settings.LLM_MODEL = f"http://127.0.0.1:{closed.getsockname()[1]}", "m"
        settings.LLM_RETRY_BUDGET_SECONDS = 0
        assert isinstance((await tell()).fault, LLMUnavailable)


@pytest.mark.parametrize(
    "url", ["", "nonsense", "ftp://x", "http://", "http://[", "http://a b", "http://127.0.0.1:99999"]
)
async def test_an_address_that_cannot_be_is_unavailable(settings, url):
    settings.LLM_PROXY_URL, settings.LLM_RETRY_BUDGET_SECONDS = url, 0
    assert isinstance((await tell()).fault, LLMUnavailable)


async def test_no_secret_is_in_a_fault_or_a_log(model, settings, caplog):
    caplog.set_level(logging.INFO, "agents_app")
    settings.LLM_API_KEY = "secret-bearer"
    model.reply(status(500, SOON, {"error": "secret-body"}), status(400, body={"error": "secret-body"}))
    fault = (await tell()).fault
    assert "HTTP 500" in caplog.text
    for said in (caplog.text, repr(fault), str(fault), fault.text(), str(fault.params)):
        assert "secret" not in said
        assert "127.0.0.1" not in said


# The LLM proxy in use today


async def test_the_llm_proxy_is_asked_without_streaming(model, settings):
    settings.LLM_STREAM, model.health = "auto", PROXY
    model.reply(tool_calls([("a", "read_file", "{}")], text="So"))
    told = await tell()
    assert (told.pieces, told.answer.calls) == (["So"], [RequestedCall("a", "read_file", "{}")])
    assert model.requests[0].body == {**BODY, "stream": False}
    assert model.probes[0].headers["x-internal-auth"] == "secret-internal"


@pytest.mark.parametrize("health", [{"status": "ok"}, status(404), html(), Reply([b"[]"]), {"service": "other"}])
async def test_every_other_upstream_is_asked_for_a_stream_and_probed_once(model, settings, health):
    settings.LLM_STREAM, model.health = "auto", health
    await asyncio.gather(*(tell() for _ in range(5)))
    assert all(request.body["stream"] for request in model.requests)
    assert len(model.probes) == 1


async def test_a_failed_probe_means_a_stream_and_is_not_remembered(model, settings):
    settings.LLM_STREAM, model.health = "auto", status(503)
    await tell()
    model.health = PROXY
    await tell()
    assert [request.body["stream"] for request in model.requests] == [True, False]


async def test_a_probe_without_an_answer_fails(model, settings, monkeypatch):
    monkeypatch.setattr("agents_app.llm_upstream.PROBE_SECONDS", 0.1)
    settings.LLM_STREAM, model.health = "auto", hang_before_head()
    assert (await tell()).text == "Hello world"


async def test_what_a_probe_said_is_kept_for_a_while(model, settings, monkeypatch):
    settings.LLM_STREAM, model.health = "auto", PROXY
    await tell()
    await tell()
    assert len(model.probes) == 1
    await llm.close()
    monkeypatch.setattr("agents_app.llm_upstream.PROBE_KEPT_SECONDS", 0)
    await tell()
    await tell()
    assert len(model.probes) == 3


async def test_the_proxys_failure_text_is_a_failure(model, settings):
    settings.LLM_STREAM, model.health = "auto", PROXY
    model.always(text("[Error] LiteLLM proxy unavailable: connection refused"))
    settings.LLM_RETRY_BUDGET_SECONDS = 0
    told = await tell()
    assert (type(told.fault), told.text) == (LLMUnavailable, "")


async def test_the_same_text_from_another_upstream_is_text(model, settings):
    settings.LLM_STREAM = "auto"
    model.reply(text("[Error] LiteLLM proxy unavailable: is what it says"))
    assert (await tell()).fault is None


# Asking


async def test_asking_is_one_whole_request(model):
    model.route(verdict("debug"))
    body = {"model": "m", "messages": BODY["messages"], "temperature": 0.3}
    answer = await llm.ask(body, correlation_id="c")
    assert '"agent": "debug"' in answer.text
    assert model.requests[0].body == {**body, "stream": False}


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        (status(429, SOON), LLMRateLimited),
        (status(500), LLMUnavailable),
        (status(400), LLMRefused),
        (html(), LLMGarbage),
        (cut_after(1), LLMCut),
        (hang_before_head(), LLMTimeout),
        (hang_after(1), LLMTimeout),
        (text("x" * 2000), LLMGarbage),
        (text("[Error] LiteLLM proxy unavailable:"), LLMUnavailable),
    ],
)
async def test_asking_fails_once_and_by_name(model, settings, reply, fault):
    settings.LLM_ROUTING_TIMEOUT_SECONDS, settings.MAX_ANSWER_BYTES = 0.3, 1000
    model.route(reply)
    with pytest.raises(LLMFault) as raised:
        await llm.ask({"model": "m", "messages": []})
    assert type(raised.value) is fault
    assert len(model.requests) == 1


# Fallback models


UNKNOWN = status(400, body={"error": {"message": "Invalid model name passed in model=m"}})


@pytest.mark.parametrize(
    ("failures", "asked"),
    [
        ([status(503, SOON)] * 3, "mmm"),
        ([status(429, {"Retry-After": "3600"})], "m"),
        ([status(404)], "m"),
        ([UNKNOWN], "m"),
        ([cut_after(0)], "m"),
        ([garbage()], "m"),
        ([hang_before_head()], "m"),
    ],
    ids=["503", "429", "404", "no such model", "cut", "garbage", "silence"],
)
async def test_the_next_model_is_asked_when_one_fails(model, settings, failures, asked):
    settings.LLM_FALLBACK_MODELS, settings.LLM_FIRST_BYTE_TIMEOUT_SECONDS = ["m", "spare", "never"], 0.5
    model.reply(*failures, text("From the spare"))
    told = await tell()
    assert (told.text, told.answer.model) == ("From the spare", "spare")
    assert [request.body["model"] for request in model.requests] == [*asked, "spare"]


async def test_models_are_asked_in_their_order_until_none_is_left(model, settings):
    settings.LLM_FALLBACK_MODELS = ["second", "third"]
    model.reply(status(404), UNKNOWN, status(503, SOON), status(503, SOON), status(503, SOON))
    assert type((await tell()).fault) is LLMUnavailable
    assert [request.body["model"] for request in model.requests] == ["m", "second", *["third"] * 3]


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        (status(400), LLMRefused),
        (status(401), LLMRefused),
        (status(403), LLMRefused),
        (status(413), ContextTooLong),
        (cut_after(2), LLMCut),
        (text("one", finish="length"), LLMOutputLimit),
    ],
)
async def test_no_other_model_is_asked_where_it_would_not_help_or_something_was_shown(model, settings, reply, fault):
    settings.LLM_FALLBACK_MODELS = ["spare"]
    model.reply(reply)
    assert type((await tell()).fault) is fault
    assert len(model.requests) == 1


async def test_no_other_model_is_asked_when_the_time_is_up_or_nobody_may(model, settings):
    settings.LLM_FALLBACK_MODELS = ["spare"]
    model.reply(status(404), status(404))
    assert type((await tell(spent_seconds=56)).fault) is LLMModelUnknown

    async def no():
        return False

    assert type((await tell(may_retry=no)).fault) is LLMModelUnknown
    assert len(model.requests) == 2


# The demo model


async def test_without_an_address_the_demo_model_answers(settings):
    settings.LLM_PROXY_URL, settings.DEMO_MODEL_WORD_SECONDS = "", 0
    told = await tell({**BODY, "model": "fake-llm"})
    assert told.answer.text
    assert len(told.pieces) > 1
    assert (await llm.ask({"model": "fake-llm", "messages": BODY["messages"]})).text


async def test_fake_llm_at_an_address_is_asked_there(model):
    assert (await tell({**BODY, "model": "fake-llm"})).text == "Hello world"
    assert model.requests


def _json(value):
    import orjson

    return orjson.dumps(value)
