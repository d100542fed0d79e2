"""The log: one pipeline, no secrets and nobody's words in it, and every line of a turn under one id."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import logging.config
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from runtime_project import logs
from sessions_app.lines import Line
from tests import talk
from tests.conftest import RunningServer
from tests.faults.servers import until
from tests.model_server import ModelServer, status, text, tool_calls, verdict
from tests.runtime_project.programs import serving

PLANTED = "planted-secret-9f8e7d"
PROMPT = "my diary says zanzibar"


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("Authorization: Bearer abc.def-123", "Authorization: Bearer [redacted]"),
        ("got bearer abcdef", "got bearer [redacted]"),
        ("key sk-proj-abcdef123456 used", "key [redacted] used"),
        ("jwt eyJhbGciOi.eyJzdWIiOi.c2ln", "jwt [redacted]"),
        ("X-Internal-Auth: hush", "X-Internal-Auth: [redacted]"),
        ("{'x-internal-auth': 'hush', 'a': 1}", "{'x-internal-auth': '[redacted]', 'a': 1}"),
        ("(b'x-internal-auth', b'hush')", "(b'x-internal-auth', b'hush')"),
        ("postgres://runtime:hush@db:5432/x", "postgres://runtime:[redacted]@db:5432/x"),
        ("redis://:hush@cache/0", "redis://:[redacted]@cache/0"),
        ("GET /x?token=hush&a=1", "GET /x?token=[redacted]&a=1"),
        ('{"api_key": "hush"}', '{"api_key": "[redacted]"}'),
        ("key-0a1b2c3d.abcdefghijkl", "[redacted]"),
        ("first_token_ms=3 prompt_tokens=7", "first_token_ms=3 prompt_tokens=7"),
        ("http://127.0.0.1:8001/sessions", "http://127.0.0.1:8001/sessions"),
        ("the basic idea of tokens", "the basic idea of tokens"),
    ],
)
def test_what_looks_like_a_secret_is_not_written(written: str, kept: str) -> None:
    assert logs.clean(written) == kept


class Log:
    """What a process of this configuration writes."""

    def __init__(self, **given: Any) -> None:
        config = logs.config(**{"level": "INFO", "form": "json", "secrets": [PLANTED], **given})
        formatter = config["formatters"]["line"]
        self.written = io.StringIO()
        self.handler = logging.StreamHandler(self.written)
        self.handler.setFormatter(formatter.pop("()")(**formatter))

    def __enter__(self) -> Log:
        logging.getLogger().addHandler(self.handler)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger().removeHandler(self.handler)

    @property
    def text(self) -> str:
        return self.written.getvalue()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]

    def until(self, holds: Callable[[list[dict[str, Any]]], bool]) -> None:
        """A request's line comes after the answer's last byte."""
        until(lambda: self.text.endswith("\n") and holds(self.lines), 30, "the line is written")


def test_only_our_own_lines_are_taken_apart() -> None:
    with Log() as log:
        logging.getLogger("ours").warning(Line(event="turn", steps=1, password="hush"))
        logging.getLogger("any").warning({"event": "x", 1: "password=hush"}, extra={"mine": 2})
    own, other = log.lines
    assert (own["event"], own["steps"], own["password"]) == ("turn", 1, "[redacted]")
    assert (other["event"], other["mine"]) == ("{'event': 'x', 1: 'password=[redacted]'}", 2)


def test_a_known_secret_is_not_written_wherever_it_stands() -> None:
    with Log() as log:
        logging.getLogger("any").warning("a %s b", PLANTED, extra={"deep": {"list": [f"x{PLANTED}"], "password": 1.5}})
    [line] = log.lines
    assert PLANTED not in log.text
    assert line["event"] == "a [redacted] b"
    assert line["deep"] == {"list": ["x[redacted]"], "password": 1.5}
    assert (line["level"], line["logger"]) == ("warning", "any")


def failing() -> BaseException:
    try:
        try:
            raise ValueError(PROMPT)
        except ValueError as cause:
            raise ConnectionRefusedError(111, f"refused by postgres://u:{PLANTED}@db") from cause
    except OSError as error:
        return error


def test_exceptions_are_told_without_the_words_of_others() -> None:
    with Log() as log:
        logging.getLogger("any").error("failed", exc_info=failing())
    [line] = log.lines
    assert PROMPT not in log.text
    assert PLANTED not in log.text
    assert "in failing" in line["exception"]
    assert "ValueError" in line["exception"]
    assert "ConnectionRefusedError: [Errno 111] refused" in line["exception"]


def test_at_debug_exceptions_say_everything_but_secrets() -> None:
    with Log(level="DEBUG") as log:
        logging.getLogger("any").error("failed", exc_info=failing())
    assert PROMPT in log.text
    assert PLANTED not in log.text


@pytest.mark.parametrize("form", ["json", "text"])
def test_what_a_client_sent_makes_no_line_of_its_own(form: str) -> None:
    log, alone = Log(form=form), logging.Logger("any")  # no other handler: half a character breaks those of the tests
    alone.addHandler(log.handler)
    alone.warning("session %s", "\x1b[2J\n2026 [info] forged \ud800")
    assert len(log.text.splitlines()) == 1
    assert "\x1b" not in log.text


def test_django_says_nothing_that_the_access_line_says() -> None:
    with Log() as log:
        logging.getLogger("django.request").warning("Not Found: /x")
        logging.getLogger("django.request").error("Internal Server Error: /x", exc_info=failing())
    assert [line["event"] for line in log.lines] == ["Internal Server Error: /x"]


def test_auto_is_json_where_nobody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with Log(form="auto") as log:
        logging.getLogger("any").warning("hello")
    assert log.lines[0]["event"] == "hello"


# --- a whole flow ------------------------------------------------------------------------------------------------


@pytest.fixture
def info() -> Iterator[None]:
    before = logging.getLogger().level
    logging.getLogger().setLevel("INFO")
    yield
    logging.getLogger().setLevel(before)


def test_every_line_of_a_turn_stands_under_the_callers_id(
    info: None, client: httpx.Client, server: RunningServer, model: ModelServer
) -> None:
    model.route(verdict("coder"))
    model.reply(status(500), tool_calls([("call_1", "read_file", '{"path": "a.txt"}')]), text("done"))
    message = {"type": "user_message", "content": PROMPT}
    with Log() as log:
        talk.post(client, "s", message, **{"X-Request-ID": "ask-1"})
        talk.post(client, "s", {"type": "tool_result", "call_id": "call_1", "result": "x"}, **{"X-Request-ID": "ask-2"})
        server.idle()
        log.until(lambda lines: sum(line["logger"] == "access" for line in lines) == 2)
    ours = [line for line in log.lines if line["logger"] in ("access", "turn", "agents_app.llm")]
    by_kind = [(line["logger"], line.get("outcome", line.get("status")), line["correlation_id"]) for line in ours]
    assert ("access", 200, "ask-1") in by_kind
    assert ("access", 200, "ask-2") in by_kind
    assert ("turn", "waiting", "ask-1") in by_kind
    assert ("turn", "completed", "ask-1") in by_kind  # the run's own id, whoever brought the result
    assert [line["correlation_id"] for line in ours if line["logger"] == "agents_app.llm"] == ["ask-1"]
    turns = [line for line in ours if line["logger"] == "turn"]
    assert {line["session_id"] for line in turns} == {"s"}
    assert turns[-1]["agent"] == "coder"
    assert turns[-1]["duration_ms"] > 0
    assert {request.headers["x-correlation-id"] for request in model.requests} == {"ask-1"}
    assert PROMPT not in log.text


def test_a_refused_request_has_its_line_and_a_probe_has_none(info: None, server: RunningServer) -> None:
    with Log() as log:
        httpx.get(f"{server.url}/sessions?token=hush", headers={"X-Internal-Auth": "wrong-key"}, timeout=30)
        httpx.get(f"{server.url}/health", timeout=30)
        httpx.get(f"{server.url}/no/such/place", timeout=30)
        log.until(lambda lines: any(line.get("path") == "/no/such/place" for line in lines))
    line, _ = [line for line in log.lines if line["logger"] == "access"]
    assert (line["method"], line["path"], line["status"]) == ("GET", "/sessions", 401)
    assert "hush" not in log.text
    assert "wrong-key" not in log.text


def test_no_secret_and_nobodys_words_are_in_the_log_of_a_server(tmp_path: Path) -> None:
    """Planted everywhere: keys, prompts, answers, arguments, results, queries, and what a broken model says."""
    secret = {name: f"{PLANTED}-{name}" for name in ("internal", "llm", "cookie", "query", "answer", "result", "error")}
    settings = {
        "AGENT_RUNTIME__INTERNAL_API_KEY": secret["internal"],
        "AGENT_RUNTIME__LLM_API_KEY": secret["llm"],
        "AGENT_RUNTIME__LLM_MODEL": "scripted",
        "AGENT_RUNTIME__EVENT_LOG": "true",
    }
    with ModelServer() as model, serving(tmp_path, AGENT_RUNTIME__LLM_PROXY_URL=model.url, **settings) as program:
        arguments = json.dumps({"path": "a.txt", "content": secret["answer"]})
        model.reply(tool_calls([("call_1", "write_file", arguments)], secret["answer"]), text(secret["answer"]))
        headers = {"X-Internal-Auth": secret["internal"], "Authorization": f"Bearer {PLANTED}", "X-Request-ID": "one"}
        with httpx.Client(base_url=program.url, headers=headers, timeout=30) as client:
            client.cookies.set("sessionid", secret["cookie"].replace("-", ""))
            talk.say(client, "s", f"{PROMPT} {PLANTED}", agent_type="coder")
            talk.result(client, "s", "call_1", secret["result"])
            model.reply(*[status(400, body={"error": {"message": secret["error"]}})] * 3)
            talk.say(client, "s", PROMPT)
            client.get(f"/sessions?key={secret['query']}")
            client.get("/sessions/s/history", headers={"X-Internal-Auth": f"wrong-{PLANTED}"})
            client.post(talk.PATH, content=f'{{"session_id": "{PLANTED}", broken'.encode())
        program.stop()
    log = program.errors.read_text()
    assert log.count('"logger":"access"') >= 6
    assert log.count('"logger":"turn"') == 3
    assert '"outcome":"failed"' in log
    for line in log.splitlines():
        json.loads(line)
    assert [line for line in log.splitlines() if "planted" in line or "zanzibar" in line] == []


# --- when it is written ------------------------------------------------------------------------------------------


class Counted(io.StringIO):
    """A stream that keeps each write by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []

    def write(self, text: str) -> int:
        self.writes.append(text)
        return len(text)


@pytest.fixture
def together() -> Iterator[tuple[logging.Logger, Counted]]:
    logger, stream = logging.Logger("together", logging.DEBUG), Counted()
    logger.addHandler(handler := logs.Together(stream))
    yield logger, stream
    handler.close()


def test_what_one_pass_of_a_loop_says_is_written_at_once(together: tuple[logging.Logger, Counted]) -> None:
    logger, stream = together

    async def turns() -> None:
        logger.info("one")
        logger.info("two")
        assert stream.writes == []
        await asyncio.sleep(0)
        assert stream.writes == ["one\ntwo\n"]
        logger.info("three")
        await asyncio.sleep(0)

    asyncio.run(turns())
    assert stream.writes == ["one\ntwo\n", "three\n"]


def test_a_warning_is_written_before_its_caller_goes_on_and_after_what_came_first(
    together: tuple[logging.Logger, Counted],
) -> None:
    logger, stream = together

    async def turn() -> None:
        logger.info("one")
        logger.warning("two")
        assert stream.writes == ["one\ntwo\n"]
        logger.info("three")
        await asyncio.to_thread(logger.info, "four")  # a thread has no loop
        assert "".join(stream.writes[1:]) == "three\nfour\n"

    asyncio.run(turn())


def test_a_loop_that_ends_first_loses_no_line(together: tuple[logging.Logger, Counted]) -> None:
    logger, stream = together
    loops = [asyncio.new_event_loop() for _ in range(2)]
    loops[0].call_soon(logger.info, "one")
    loops[0].call_soon(loops[0].stop)
    loops[0].run_forever()
    loops[1].run_until_complete(_said(logger, "two"))
    assert stream.writes == ["one\ntwo\n"]
    logger.info("three")
    assert stream.writes == ["one\ntwo\n", "three\n"]
    for loop in loops:
        loop.close()


async def _said(logger: logging.Logger, line: str) -> None:
    logger.info(line)
    await asyncio.sleep(0)


class Narrow(Counted):
    """A stream of another encoding."""

    def write(self, text: str) -> int:
        text.encode("ascii")
        return super().write(text)


def test_a_line_that_cannot_be_written_as_it_is_takes_no_other_with_it() -> None:
    logger, stream = logging.Logger("narrow", logging.DEBUG), Narrow()
    logger.addHandler(handler := logs.Together(stream))

    async def turn() -> None:
        for line in ("one", "\u00e9", "three"):
            logger.info(line)
        await asyncio.sleep(0)

    asyncio.run(turn())
    assert stream.writes == ["one\n", "\\xe9\n", "three\n"]
    handler.close()


def test_a_log_that_has_gone_stops_no_loop() -> None:
    logger, stream = logging.Logger("gone", logging.DEBUG), Counted()
    logger.addHandler(handler := logs.Together(stream))
    stream.close()
    stream.write = io.StringIO.write.__get__(stream)  # type: ignore[method-assign]
    failed: list[Any] = []

    async def turn() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: failed.append(context))
        logger.info("one")
        await asyncio.sleep(0)

    asyncio.run(turn())
    assert failed == []
    handler.close()
