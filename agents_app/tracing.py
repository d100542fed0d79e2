"""Spans, where OpenTelemetry is configured. Elsewhere nothing of it is imported, and a span is one shared nothing.

No span stays open while a turn waits for its client: each part of the turn is a span of its own, in the trace that is
kept with the run, and the wait is written down when it is over.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Self

from agents_app.genai import ERROR_TYPE
from sessions_app.conf import settings

logger = logging.getLogger(__name__)
ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
TRACEPARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
EXPORT_SECONDS = 2
FLUSH_SECONDS = 1.0

_tracer: Any = None
_provider: Any = None


def on() -> bool:
    return _tracer is not None


# --- starting and stopping ---------------------------------------------------------------------------------------


def start(process: str) -> None:
    """Begins to export, once a process, where an endpoint is configured."""
    global _provider, _tracer
    if on() or not (settings.TRACES_ENDPOINT or any(os.environ.get(name) for name in ENDPOINTS)):
        return
    try:
        _provider = _exporting(process)
    except ImportError as missing:
        logger.warning("no traces: %s is not installed", missing.name)
        return
    _tracer = _provider.get_tracer("agent_runtime", settings.VERSION)


def _exporting(process: str) -> Any:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = {"service.name": os.environ.get("OTEL_SERVICE_NAME", "agent-runtime")}
    told = {"service.version": settings.VERSION, "service.instance.id": process}
    provider = TracerProvider(resource=Resource.create(named | told), shutdown_on_exit=False)
    base = settings.TRACES_ENDPOINT.rstrip("/")
    endpoint = f"{base}/v1/traces" if base else None  # without ours the variables of OpenTelemetry itself count
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_SECONDS)))
    return provider


async def stop() -> None:
    """Sends what is left, for a moment: a collector that hangs must not hold up the process's end."""
    global _provider, _tracer
    ending, _provider = _provider, None
    if ending is not None:
        _tracer = None
        thread = threading.Thread(target=ending.shutdown, name="traces", daemon=True)
        thread.start()
        await asyncio.to_thread(thread.join, FLUSH_SECONDS)


@contextmanager
def exporting_to(provider: Any) -> Iterator[None]:
    """For tests: spans go to this provider meanwhile."""
    global _tracer
    before, _tracer = _tracer, provider.get_tracer("agent_runtime")
    try:
        yield
    finally:
        _tracer = before


# --- spans -------------------------------------------------------------------------------------------------------


class Span:
    """A piece of work under way. Without OpenTelemetry it is this: nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def tell(self, attributes: Mapping[str, Any]) -> None:
        """Adds attributes."""

    def failed(self, code: str) -> None:
        """Says that it failed, and why; what an exception said is told to nobody."""

    @property
    def traceparent(self) -> str:
        """The span as others name it who go on with its trace."""
        return ""


NOTHING = Span()


class _Recorded(Span):
    def __init__(self, name: str, attributes: Mapping[str, Any] | None, parent: str | None, *, client: bool) -> None:
        from opentelemetry import trace

        kind = trace.SpanKind.CLIENT if client else trace.SpanKind.INTERNAL
        context = None if parent is None else _context(parent)
        self._span = _tracer.start_span(name, context=context, kind=kind, attributes=dict(attributes or {}))
        self._current = trace.use_span(
            self._span, end_on_exit=True, record_exception=False, set_status_on_exception=False
        )

    def __enter__(self) -> Self:
        self._current.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        if isinstance(error := raised[1], BaseException):
            self.failed(getattr(error, "code", type(error).__name__))
        self._current.__exit__(*raised)

    def failed(self, code: str) -> None:
        from opentelemetry.trace import Status, StatusCode

        self._span.set_attribute(ERROR_TYPE, code)
        self._span.set_status(Status(StatusCode.ERROR))

    def tell(self, attributes: Mapping[str, Any]) -> None:
        self._span.set_attributes(attributes)

    @property
    def traceparent(self) -> str:
        return _traceparent(self._span)


def span(
    name: str, attributes: Mapping[str, Any] | None = None, *, parent: str | None = None, client: bool = False
) -> Span:
    """`with span(...)`: a child of the one around it, or, with a `parent`, of that; an empty one begins a trace."""
    return _Recorded(name, attributes, parent, client=client) if _tracer is not None else NOTHING


def past(name: str, began: datetime, ended: datetime, attributes: Mapping[str, Any], *, parent: str) -> str:
    """Writes down what is over already, as a child of `parent`. Returns its traceparent."""
    begun = _tracer.start_span(
        name, context=_context(parent), start_time=_nanoseconds(began), attributes=dict(attributes)
    )
    begun.end(_nanoseconds(ended))
    return _traceparent(begun)


def _nanoseconds(at: datetime) -> int:
    return round(at.timestamp() * 1_000_000) * 1000


# --- whose trace -------------------------------------------------------------------------------------------------


def parent_of(scope: Mapping[str, Any]) -> str:
    """The span that a request belongs to by its own account. A WebSocket's many turns are no single trace."""
    if _tracer is None or scope.get("type") != "http":
        return ""
    found = [value for key, value in scope["headers"] if key == b"traceparent"]
    return found[0].decode() if len(found) == 1 and TRACEPARENT.fullmatch(found[0]) else ""


def headers() -> dict[str, str]:
    """What the peer that is asked now is told of the current span."""
    if _tracer is None:
        return {}
    from opentelemetry import trace

    told = _traceparent(trace.get_current_span())
    return {"traceparent": told} if told else {}


def _context(parent: str) -> Any:
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({"traceparent": parent}, context=Context())


def _traceparent(span: Any) -> str:
    context = span.get_span_context()
    if not context.is_valid:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"
