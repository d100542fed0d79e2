"""What a provider's refusal means, and when to try again. Pure; never repeats a provider's words."""

from __future__ import annotations

import random
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from agents_app.llm_events import loads
from sessions_app.errors import (
    ContextTooLong,
    LLMFault,
    LLMGarbage,
    LLMModelUnknown,
    LLMOutputLimit,
    LLMRateLimited,
    LLMRefused,
    LLMUnavailable,
)

_chance = random.Random()  # noqa: S311  no secret; not everybody's, which tests hold still
MAX_ATTEMPTS = 3
BACKOFF_SECONDS = 0.5
# What today's LLM proxy answers, with status 200, when the provider behind it failed.
PROXY_FAILURE = "[Error] LiteLLM proxy unavailable:"

# OpenAI, Azure, vLLM, SGLang, TGI, llama.cpp, Ollama, Anthropic, Gemini, Mistral, Bedrock, DeepSeek, LiteLLM
_CONTEXT = re.compile(
    r"context_length_exceeded|exceed_context_size|ContextWindowExceeded|context[ _-]?window|context[ _-]?length"
    r"|maximum (model )?context|max_model_len|exceeds? (the |your )?(available |model'?s? )?context"
    r"|larger than the (max|context)|context size (has been )?exceeded|prompt (is )?too (long|large)"
    r"|prompt contains \d+ tokens|input (is )?too long|too many (input |prompt )?tokens"
    r"|input token count .{0,40}exceeds|reduce the length of (the|your) (messages|prompt|input)"
    r"|tokens? (must|should) (be|have) .{0,40}(<=|less than)|request_too_large",
    re.IGNORECASE,
)
_STREAM_OPTIONS = re.compile(
    r"stream_options|include_usage"
    r"|(unknown|unrecognized|unsupported|unexpected|extra|additional)[ _-](request )?"
    r"(arguments?|parameters?|fields?|propert|inputs?|keys?)",
    re.IGNORECASE,
)
_MODEL = re.compile(
    r"model_?not_?found|(invalid|unknown|unsupported|no such|not a valid) model"
    r"|models? .{0,80}(not found|does ?n[o']t exist|not exist|is not (available|supported|valid)|not supported)",
    re.IGNORECASE,
)
_RATE = re.compile(r"rate.?limit|too many requests|overloaded|quota", re.IGNORECASE)
_DELAY = re.compile(r"[0-9]{1,30}(\.[0-9]{1,9})?")


class Again(Exception):
    """A failure after which another attempt may help, as long as nothing was shown."""

    def __init__(self, fault: LLMFault, after_seconds: float | None = None) -> None:
        super().__init__(fault.code)
        self.fault = fault
        self.after_seconds = after_seconds

    def delay_seconds(self, attempt: int) -> float:
        """What the provider asked for, else twice as long each time; spread, so that not all come back at once."""
        if self.after_seconds is not None:
            return self.after_seconds + _chance.uniform(0, 0.1)
        return BACKOFF_SECONDS * 2.0 ** (attempt - 1) * _chance.uniform(1, 2)


def failure_of(status: int, body: bytes, retry_after: str | None = None) -> Again | LLMFault:
    """For an answer whose status is not a success."""
    reason = f"HTTP {status}"
    if status == 413 or (status >= 400 and status != 429 and _CONTEXT.search(_words(body))):
        return ContextTooLong(reason=reason)
    if status == 429:
        return Again(LLMRateLimited(reason=reason), delay_asked(retry_after))
    if status >= 500:
        return Again(LLMUnavailable(reason=reason), delay_asked(retry_after))
    if status == 404 or (status in (400, 422) and _MODEL.search(_words(body)[:10_000])):
        return LLMModelUnknown(reason=reason)
    return LLMRefused(reason=reason)


def failure_told(error: Any) -> Again | LLMFault:
    """For an error object inside an answer with status 200."""
    code = str(error.get("code")) if isinstance(error, dict) else ""
    status = int(code) if re.fullmatch("[1-5][0-9][0-9]", code) else 0
    words = str(error)[:10_000]
    if _CONTEXT.search(words):
        return ContextTooLong(reason="error in the answer")
    if status >= 400:
        return failure_of(status, b"")
    if _RATE.search(words):
        return Again(LLMRateLimited(reason="error in the answer"))
    return LLMFault(reason="error in the answer")


def proxy_failure(text: str) -> Again | LLMFault | None:
    """For the text of an answer that did not stream."""
    if not text.lstrip().startswith(PROXY_FAILURE):
        return None
    if _CONTEXT.search(text[:10_000]):
        return ContextTooLong(reason="failure of the proxy")
    return Again(LLMUnavailable(reason="failure of the proxy"))


def is_the_models(fault: LLMFault) -> bool:
    """Whether another model of the upstream may do better: not where the request itself, or its key, is refused."""
    if isinstance(fault, LLMRefused):
        return isinstance(fault, LLMModelUnknown)
    return not isinstance(fault, ContextTooLong | LLMOutputLimit)


def is_about_stream_options(status: int, body: bytes) -> bool:
    return status in (400, 422) and bool(_STREAM_OPTIONS.search(_words(body)))


def delay_asked(retry_after: str | None, now: datetime | None = None) -> float | None:
    """`Retry-After` in seconds, from a number or an HTTP date; None where it says nothing usable."""
    value = (retry_after or "").strip()
    if _DELAY.fullmatch(value):
        return float(value)
    try:
        at = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    seconds = (at.replace(tzinfo=at.tzinfo or UTC) - (now or datetime.now(UTC))).total_seconds()
    return seconds if seconds > 0 else None


def _words(body: bytes) -> str:
    """The message, code and type of an error; the whole text where there is no JSON."""
    text = body[:65_536].decode("utf-8", "replace")
    try:
        told = loads(body)
    except LLMGarbage:
        return text
    error = told.get("error", told) if isinstance(told, dict) else told
    return str(error)
