"""How lines of the log are written: one pipeline for our own and for every library's. Used by settings.py: imports no
Django.

Nothing of what people or models wrote, and no secret, may pass above DEBUG: secrets are known by the names of their
fields, by their look, and by heart; what an exception says is left out unless it is known to be about the program.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from contextlib import nullcontext, suppress
from datetime import UTC, datetime
from typing import Any, TextIO

import orjson
import structlog
from structlog.typing import EventDict

from sessions_app import lines
from sessions_app.lines import Line

REDACTED = "[redacted]"
MIN_SECRET_CHARACTERS = 6  # a shorter one, replaced wherever it stands, would spoil every line
NESTED_LEVELS = 4
SECRET_NAMES = re.compile(
    r"authorization|cookie|credential|password|passwd|secret|api[_-]?key|internal[_-]?auth|private[_-]?key|(^|[_-])token$",
    re.IGNORECASE,
)
# What stands after the name of a header or a parameter, what begins like a key, a JWT, and a URL's password.
SECRET_LOOKS = re.compile(
    r"(?P<before>\bBearer\s+|\bBasic\s+(?=[A-Za-z0-9+/=]{8})"
    r"|(?:x[-_]internal[-_]auth|authorization|api[-_]?key|password|passwd|secret|\baccess_token|\btoken)['\"]?\s*[=:]\s*"
    r"(?:b?['\"])?(?:Bearer\s+|Basic\s+)?)[^\s'\",;&)}\]]+"
    r"|\bsk-[A-Za-z0-9_-]{6,}|\bkey-[0-9a-f]{8}\.[A-Za-z0-9_-]{8,}"
    r"|\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*)?"
    r"|(?P<address>\b[a-z][a-z0-9+.-]*://[^\s/:@]*:)[^\s/@]+(?=@)",
    re.IGNORECASE,
)
# Most lines hold none of it: one look for these, in lower case, is cheaper than the search.
TRACES = ("bearer", "basic", "auth", "key", "passw", "secret", "token", "sk-", "eyj", "://")
CONTROL = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
PLAIN_TYPES = frozenset({int, float, bool, type(None)})
OURS = frozenset({"level", "logger", "timestamp"})  # fields whose values nobody sends
# Exceptions that speak of the program and its surroundings, never of what somebody sent.
PLAIN = (OSError, ImportError, NameError, AttributeError, TypeError, NotImplementedError, RecursionError, MemoryError)
PLAIN_NAMES = frozenset({"ImproperlyConfigured", "AppRegistryNotReady", "CommandError"})


def config(*, level: str, form: str, secrets: Iterable[str]) -> dict[str, Any]:
    """Django's LOGGING. `form`: json, text, or auto: text at a terminal."""
    readable = form == "text" or (form == "auto" and sys.stderr.isatty())
    known = sorted({secret for secret in secrets if len(secret) >= MIN_SECRET_CHARACTERS}, key=len, reverse=True)
    by_heart = re.compile("|".join(map(re.escape, known))) if known else None
    # No line says where in the code it was written, nor by which thread: not to find that out makes lines cheaper.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"told_elsewhere": {"()": ToldElsewhere}},
        "formatters": {
            "line": {"()": Lines, "readable": readable, "verbose": level == "DEBUG", "by_heart": by_heart},
        },
        "handlers": {"stderr": {"()": Together, "formatter": "line"}},
        "root": {"handlers": ["stderr"], "level": level},
        # httpx writes every address at INFO; a query string is none of a log's business.
        "loggers": {name: {"level": "WARNING"} for name in ("httpx", "httpcore", "daphne", "websockets", "asyncio")}
        # Its receiver writes a traceback a second while Redis is away; ours is the line that says so.
        | {"django.db.backends": {"level": "INFO"}, "channels_redis": {"level": "CRITICAL"}}
        # Django's own handlers would write their lines a second time, and not our way.
        | {name: {"level": "INFO", "handlers": [], "propagate": True} for name in ("django", "django.server")}
        | {"django.request": {"filters": ["told_elsewhere"]}}
        # The same of the job queue while PostgreSQL is away; what a job raises is logged where it is run.
        | {"procrastinate": {"level": "CRITICAL"}},
    }


class Together(logging.StreamHandler[TextIO]):
    """Writes at once what one pass of an event loop has to say, since each write is a system call. What is worse than
    INFO, or said outside of a loop, is out before its caller goes on, after all that was said before it. A process that
    is killed takes with it what its last pass has said."""

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__(stream)
        self._lines: list[str] = []
        self._awaited: asyncio.AbstractEventLoop | None = None

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.append(self.format(record) + self.terminator)
            loop = _running_loop() if record.levelno <= logging.INFO else None
            if loop is None:
                self.flush()
            elif self._awaited is not loop:
                self._awaited = loop
                loop.call_soon(self._pass_is_over)
        except RecursionError:
            raise
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        with self.lock or nullcontext():
            lines, self._lines, self._awaited = self._lines, [], None
            try:
                self.stream.write("".join(lines))
            except UnicodeError:  # of one of them, for which the others are not to blame
                for line in lines:
                    self.stream.write(line.encode("ascii", "backslashreplace").decode())
            super().flush()

    def _pass_is_over(self) -> None:
        with suppress(OSError, ValueError):  # the stream is gone, and nobody is there who could be told
            self.flush()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class Lines(logging.Formatter):
    """Makes a line of what any logger was given. By hand for what structlog has processors for: this is passed twice a
    turn, and here is one formatter."""

    def __init__(self, *, readable: bool, verbose: bool, by_heart: re.Pattern[str] | None) -> None:
        super().__init__()
        self._verbose, self._by_heart = verbose, by_heart
        self._write = _as_text() if readable else _as_json

    def format(self, record: logging.LogRecord) -> str:
        line: EventDict = {**record.msg} if isinstance(record.msg, Line) else _of_a_library(record)
        for name, value in lines.common().items():
            line.setdefault(name, value)
        line["level"], line["logger"] = record.levelname.lower(), record.name
        line["timestamp"] = datetime.fromtimestamp(record.created, UTC).isoformat().replace("+00:00", "Z")
        if "exc_info" in line:
            _tell_exception(line, verbose=self._verbose)
        return self._write(_without_secrets(line, self._by_heart))


def _of_a_library(record: logging.LogRecord) -> EventDict:
    """A line of somebody else's: its text, and what it was given beside."""
    line = _with_extras(logging.root, "", {"event": record.getMessage(), "_record": record})
    del line["_record"]
    if record.exc_info:
        line["exc_info"] = record.exc_info
    return dict(line)


_with_extras = structlog.stdlib.ExtraAdder()


class ToldElsewhere(logging.Filter):
    """Django's line for every 4xx and 5xx says what the access line says; with an exception it says more."""

    def filter(self, record: logging.LogRecord) -> bool:
        return bool(record.exc_info)


# --- what must not be written ------------------------------------------------------------------------------------


def _without_secrets(line: EventDict, by_heart: re.Pattern[str] | None) -> EventDict:
    line.pop("color_message", None)  # of uvicorn: the event once more
    if line.get("logger") == "asyncio":  # the lines after the first show the exception of a task, with its words
        line["event"] = str(line["event"]).partition("\n")[0]
    if _is_plain(line, by_heart):
        return line
    for name, value in line.items():
        if name not in OURS:
            line[name] = _clean(name, value, by_heart)
    return line


def _is_plain(line: EventDict, by_heart: re.Pattern[str] | None) -> bool:
    """Whether there is nothing to look for, as in most lines: one look at all values together finds no trace."""
    if _some_name_a_secret(tuple(line)):
        return False
    texts = []
    for value in line.values():
        if type(value) is str:
            texts.append(value)
        elif type(value) not in PLAIN_TYPES:
            return False
    together = "\n".join(texts)
    return not _may_hold(together) and (by_heart is None or not by_heart.search(together))


def _may_hold(text: str) -> bool:
    lowered = text.casefold()
    for trace in TRACES:  # noqa: SIM110  `any` costs twice as much, for two lines a turn
        if trace in lowered:
            return True
    return False


@functools.lru_cache(1000)
def _some_name_a_secret(names: tuple[str, ...]) -> bool:
    return any(map(_names_a_secret, names))


@functools.lru_cache(1000)
def _names_a_secret(name: str) -> bool:
    return bool(SECRET_NAMES.search(name))


def _clean(name: str, value: Any, by_heart: re.Pattern[str] | None, depth: int = 0) -> Any:
    if isinstance(value, bool | int | float | None):
        return value
    if _names_a_secret(name):
        return REDACTED
    if isinstance(value, MutableMapping) and depth < NESTED_LEVELS:
        return {str(key): _clean(str(key), inner, by_heart, depth + 1) for key, inner in value.items()}
    if isinstance(value, list | tuple) and depth < NESTED_LEVELS:
        return [_clean("", inner, by_heart, depth + 1) for inner in value]
    return clean(value if isinstance(value, str) else str(value), by_heart)


def clean(text: str, by_heart: re.Pattern[str] | None = None) -> str:
    """The text without what is, or looks like, a secret."""
    if by_heart is not None:
        text = by_heart.sub(REDACTED, text)
    return SECRET_LOOKS.sub(_redacted, text) if _may_hold(text) else text


def _redacted(found: re.Match[str]) -> str:
    return (found["before"] or found["address"] or "") + REDACTED


def _tell_exception(line: EventDict, *, verbose: bool) -> None:
    given = line.pop("exc_info")
    error = given[1] if isinstance(given, tuple) else given
    if given is True:
        error = sys.exc_info()[1]
    if isinstance(error, BaseException):
        line["exception"] = "\n".join(_told(error, verbose))


def _told(error: BaseException, verbose: bool) -> Iterator[str]:
    """A traceback as Python writes it, but for what the exception says where that may be somebody's words."""
    if verbose:
        yield "".join(traceback.format_exception(error)).rstrip()
        return
    chain: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in chain:
        chain.append(one)
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    for one in reversed(chain):
        yield "Traceback (most recent call last):"
        yield "".join(traceback.format_tb(one.__traceback__)).rstrip()
        yield _named(one)


def _named(error: BaseException) -> str:
    kind = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    if isinstance(error, PLAIN) or type(error).__name__ in PLAIN_NAMES or hasattr(error, "retryable"):
        return f"{kind}: {error}"
    return kind


# --- how it is written -------------------------------------------------------------------------------------------


def _as_json(line: EventDict) -> str:
    try:
        return orjson.dumps(line, default=str).decode()
    except TypeError:  # half a character, a number beyond 64 bits
        return json.dumps(line, default=str)


def _as_text() -> Callable[[EventDict], str]:
    render = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
    )
    return lambda line: str(render(None, "", _escaped(line)))


def _escaped(line: EventDict) -> EventDict:
    """No line of a terminal is made by what a client sent."""
    return {
        name: value.translate(CONTROL) if isinstance(value, str) and name != "exception" else value
        for name, value in line.items()
    }
