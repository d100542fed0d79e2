"""One trace a turn, as a collector gets it: whose it is, what is in it, and that a wait holds nothing open."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from agents_app import tracing
from sessions_app.models import Run
from tests import talk
from tests.conftest import RunningServer
from tests.model_server import ModelServer, status, text, tool_calls, verdict
from tests.runtime_project.programs import ROOT, environment

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
WRITE = '{"path": "a.txt", "content": "planted-argument"}'


class Spans:
    """What was exported, when nothing runs any more."""

    def __init__(self, exporter: InMemorySpanExporter, server: RunningServer) -> None:
        self._exporter, self._server = exporter, server

    @property
    def all(self) -> list[ReadableSpan]:
        self._server.idle()
        return list(self._exporter.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.all if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        [span] = self.named(name)
        return span

    def clear(self) -> None:
        self._server.idle()
        self._exporter.clear()


@pytest.fixture
def spans(server: RunningServer) -> Iterator[Spans]:
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with tracing.exporting_to(provider):
        yield Spans(exporter, server)


def parent(span: ReadableSpan) -> int | None:
    return span.parent.span_id if span.parent else None


def trace_ids(spans: list[ReadableSpan]) -> set[int]:
    return {span.context.trace_id for span in spans if span.context}


def told(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_a_turn_is_one_trace(client: httpx.Client, model: ModelServer, spans: Spans) -> None:
    model.route(verdict("coder"))
    model.reply(text("Hello"))
    talk.say(client, "s", "planted-prompt")
    turn, route = spans.one("turn"), spans.one("route")
    routing, answer = spans.named("chat scripted")
    assert turn.parent is None
    assert len(trace_ids(spans.all)) == 1
    assert parent(route) == parent(answer) == turn.context.span_id
    assert parent(routing) == route.context.span_id
    stored = {told(span)["db.operation.name"]: span for span in spans.named("database")}
    assert set(stored) == {"store user_message", "routed", "complete"}
    assert {parent(span) for span in stored.values()} == {turn.context.span_id}
    message = stored["store user_message"]
    assert (message.start_time or 0) < (message.end_time or 0) <= (stored["complete"].end_time or 0)
    assert told(turn)["gen_ai.conversation.id"] == "s"
    assert told(turn)["agent_runtime.outcome"] == "completed"
    assert told(turn)["gen_ai.agent.name"] == told(answer)["gen_ai.agent.name"] == "coder"
    assert answer.kind is SpanKind.CLIENT
    assert told(answer)["gen_ai.operation.name"] == "chat"
    assert told(answer)["gen_ai.request.model"] == "scripted"
    assert told(answer)["gen_ai.usage.output_tokens"] > 0
    assert told(answer)["gen_ai.response.time_to_first_chunk"] >= 0
    assert "planted" not in str([told(span) for span in spans.all])


def test_a_callers_trace_goes_on_to_the_model(client: httpx.Client, model: ModelServer, spans: Spans) -> None:
    message = {"type": "user_message", "content": "Go", "agent_type": "coder"}
    talk.post(client, "s", message, traceparent=f"00-{TRACE}-{PARENT}-01")
    turn, answer = spans.one("turn"), spans.one("chat scripted")
    assert trace_ids(spans.all) == {int(TRACE, 16)}
    assert parent(turn) == int(PARENT, 16)
    [request] = model.requests
    assert request.headers["traceparent"].startswith(f"00-{TRACE}-{answer.context.span_id:016x}-")


@pytest.mark.parametrize("traceparent", ["nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", f"00-{TRACE}"])
def test_a_broken_parent_is_none(client: httpx.Client, model: ModelServer, spans: Spans, traceparent: str) -> None:
    message = {"type": "user_message", "content": "Go", "agent_type": "coder"}
    talk.post(client, "s", message, traceparent=traceparent)
    assert spans.one("turn").parent is None


def test_a_turn_that_waits_holds_nothing_open_and_goes_on_in_its_trace(
    client: httpx.Client, model: ModelServer, spans: Spans
) -> None:
    model.reply(tool_calls([("call_1", "write_file", WRITE), ("call_2", "read_file", '{"path": "a.txt"}')]))
    talk.say(client, "s", "Go", agent_type="coder")
    first = spans.one("turn")
    assert told(first)["agent_runtime.outcome"] == "waiting"
    kept = Run.objects.get().traceparent
    assert kept.startswith(f"00-{first.context.trace_id:032x}-{first.context.span_id:016x}-")
    spans.clear()
    talk.decide(client, "s", "call_1", "approve")
    talk.result(client, "s", "call_2", "planted-result")
    talk.result(client, "s", "call_1", "planted-result")
    second, wait, approval = spans.one("turn"), spans.one("wait for client"), spans.one("wait for approval")
    write, read = spans.one("execute_tool write_file"), spans.one("execute_tool read_file")
    assert trace_ids(spans.all) == {first.context.trace_id}
    assert parent(second) == parent(wait) == first.context.span_id
    assert parent(write) == parent(read) == wait.context.span_id
    assert parent(approval) == write.context.span_id
    assert told(approval)["agent_runtime.approval.decision"] == "approved"
    assert told(write) == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "write_file",
        "gen_ai.tool.call.id": "call_1",
        "agent_runtime.outcome": "completed",
    }
    assert (wait.start_time or 0) <= (read.start_time or 0) < (read.end_time or 0) <= (wait.end_time or 0)
    operations = {told(span)["db.operation.name"] for span in spans.named("database")}
    assert operations == {"store tool_result", "complete"}
    assert told(second)["agent_runtime.run.attempt"] == 2
    assert told(second)["agent_runtime.outcome"] == "completed"


def test_a_failure_is_told_by_its_code_alone(client: httpx.Client, model: ModelServer, spans: Spans) -> None:
    model.reply(status(400, body={"error": {"message": "planted-words"}}))
    error = talk.say(client, "s", "Go", agent_type="coder").error
    assert error is not None
    for name in ("turn", "chat scripted"):
        span = spans.one(name)
        assert span.status.status_code is StatusCode.ERROR
        assert told(span)["error.type"] == error["code"]
        assert not span.status.description
        assert not span.events


def test_without_a_collector_no_trace_is_kept_and_none_is_sent_on(client: httpx.Client, model: ModelServer) -> None:
    message = {"type": "user_message", "content": "Go", "agent_type": "coder"}
    talk.post(client, "s", message, traceparent=f"00-{TRACE}-{PARENT}-01")
    [request] = model.requests
    assert "traceparent" not in request.headers
    assert Run.objects.get().traceparent == ""


def test_without_a_collector_nothing_of_it_is_loaded(tmp_path: Any) -> None:
    """In a process of its own: here the tests have loaded it."""
    script = (
        "import sys; import runtime_project.asgi; from agents_app import tracing; tracing.start('x');"
        "assert tracing.span('a') is tracing.NOTHING and tracing.headers() == {};"
        "sys.exit('opentelemetry' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=environment(tmp_path),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
