import json
from datetime import UTC, datetime

import pytest

from agents_app.llm_failures import Again, delay_asked, failure_of, failure_told, is_about_stream_options, proxy_failure
from sessions_app.errors import ContextTooLong, LLMFault, LLMModelUnknown, LLMRateLimited, LLMRefused, LLMUnavailable

TOO_LONG = {
    "OpenAI": {"error": {"message": "too much", "code": "context_length_exceeded"}},
    "OpenAI, older": {"error": {"message": "This model's maximum context length is 8192 tokens. However, you asked"}},
    "vLLM": {"object": "error", "message": "Please make sure that `max_model_len` is no smaller", "code": 400},
    "llama.cpp": {"error": {"code": 400, "message": "the request exceeds the available context size, try more"}},
    "llama.cpp, type": {"error": {"code": 400, "message": "no", "type": "exceed_context_size_error"}},
    "LiteLLM": {"error": {"message": "litellm.ContextWindowExceededError: 2 tokens > 1"}},
    "Anthropic": {"type": "error", "error": {"message": "prompt is too long: 20 > 10"}},
    "Gemini": {"error": {"message": "The input token count (2000000) exceeds the maximum number of tokens allowed"}},
    "Mistral": {"message": "Prompt contains 40000 tokens, too large for model with 32768 maximum context length"},
    "TGI": {"error": "Input validation error: `inputs` tokens must have less than 4096 tokens. Given: 5000"},
    "Bedrock": {"message": "Input is too long for requested model."},
}


@pytest.mark.parametrize("body", TOO_LONG.values(), ids=TOO_LONG)
def test_every_wording_of_a_full_context_is_understood(body):
    for status in (400, 422, 500):
        assert isinstance(failure_of(status, json.dumps(body).encode()), ContextTooLong)
    assert isinstance(failure_told(body.get("error", body)), ContextTooLong)


@pytest.mark.parametrize(
    ("status", "fault", "again"),
    [
        (301, LLMRefused, False),
        (400, LLMRefused, False),
        (401, LLMRefused, False),
        (404, LLMModelUnknown, False),
        (413, ContextTooLong, False),
        (429, LLMRateLimited, True),
        (500, LLMUnavailable, True),
        (503, LLMUnavailable, True),
        (529, LLMUnavailable, True),
    ],
)
@pytest.mark.parametrize("body", [b"", b"no", b'{"error": "no"}', b'{"error": null}', b"[]", b"\xff\x00" * 99_999])
def test_a_status_says_what_failed_and_whether_to_try_again(status, fault, again, body):
    failure = failure_of(status, body)
    assert isinstance(failure, Again) is again
    assert type(failure.fault if isinstance(failure, Again) else failure) is fault


@pytest.mark.parametrize(
    ("error", "fault", "again"),
    [
        ("boom", LLMFault, False),
        ({"message": "boom"}, LLMFault, False),
        ({"code": 429}, LLMRateLimited, True),
        ({"code": "503"}, LLMUnavailable, True),
        ({"code": 400}, LLMRefused, False),
        ({"code": "rate_limit_exceeded"}, LLMRateLimited, True),
        ({"type": "overloaded_error"}, LLMRateLimited, True),
        ([1], LLMFault, False),
    ],
)
def test_an_error_inside_an_answer_is_read_like_a_status(error, fault, again):
    failure = failure_told(error)
    assert isinstance(failure, Again) is again
    assert type(failure.fault if isinstance(failure, Again) else failure) is fault


NOW = datetime(2026, 11, 22, 10, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7),
        (" 0 ", 0),
        ("1.5", 1.5),
        ("Sun, 22 Nov 2026 10:00:30 GMT", 30),
        ("Sun, 22 Nov 2026 10:00:30 -0000", 30),
        ("Sun, 22 Nov 2026 09:00:00 GMT", None),
        ("Sun, 22 Nov 99999999999 09:00:00 GMT", None),
        *[(odd, None) for odd in (None, "", "soon", "-1", "nan", "1e9", "inf", "\u0661")],
    ],
)
def test_retry_after_is_seconds_or_a_date(header, seconds):
    assert delay_asked(header, NOW) == seconds


def test_delays_grow_and_are_spread():
    again = Again(LLMUnavailable())
    for attempt, least in ((1, 0.5), (2, 1.0)):
        delays = {again.delay_seconds(attempt) for _ in range(50)}
        assert len(delays) > 40
        assert min(delays) >= least
        assert max(delays) <= 2 * least
    assert 3 <= Again(LLMRateLimited(), 3).delay_seconds(1) <= 3.1


@pytest.mark.parametrize(
    ("status", "body", "is_about"),
    [
        (400, b'{"error": {"message": "Unrecognized request argument supplied: stream_options"}}', True),
        (400, b"Extra inputs are not permitted", True),
        (422, b'{"detail": [{"loc": ["body", "stream_options"]}]}', True),
        (400, b'{"error": {"message": "model not found"}}', False),
        (400, b"", False),
        (500, b"stream_options", False),
    ],
)
def test_only_a_refusal_of_stream_options_is_about_them(status, body, is_about):
    assert is_about_stream_options(status, body) is is_about


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[Error] LiteLLM proxy unavailable: connection refused", LLMUnavailable),
        ("\n[Error] LiteLLM proxy unavailable:", LLMUnavailable),
        ("[Error] LiteLLM proxy unavailable: maximum context length is 8192", ContextTooLong),
        ("It says: [Error] LiteLLM proxy unavailable:", type(None)),
        ("", type(None)),
    ],
)
def test_the_proxys_failures_are_told_by_their_prefix(text, fault):
    failure = proxy_failure(text)
    assert type(failure.fault if isinstance(failure, Again) else failure) is fault


def test_faults_repeat_nothing_that_a_provider_said():
    secret = b'{"error": {"message": "key sk-secret at http://10.0.0.1 is wrong"}}'
    for status in (400, 401, 429, 500):
        failure = failure_of(status, secret)
        fault = failure.fault if isinstance(failure, Again) else failure
        assert "secret" not in f"{fault!r}{fault}{fault.text()}{fault.params}{failure!r}"
