"""The text of /metrics, from the running totals and the gauges: the same whichever process is asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from sessions_app import breakers, gauges, tallies, timings
from sessions_app.models import ApprovalState, BreakerState, RunState
from sessions_app.tallies import Series

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "agent_runtime_"
# Series that are known before anything is counted: a rate needs the zero that comes before the one.
OUTCOMES = (
    RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED, RunState.INTERRUPTED, RunState.SUPERSEDED,
)  # fmt: skip
DECISIONS = (*tallies.DECISION_NAMES.values(), ApprovalState.EXPIRED, ApprovalState.CLOSED)
BREAKER_STATES: dict[str, int] = {BreakerState.CLOSED: 0, BreakerState.HALF_OPEN: 1, BreakerState.OPEN: 2}
TOKENS = ("prompt", "completion")


def text() -> bytes:
    """The metrics in Prometheus's text format. A few statements, none of which reads the history."""
    return generate_latest(_Snapshot([*_counters(tallies.totals()), *_gauges()]))


class _Snapshot(Collector):
    """What was read once, as the library wants it."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


# --- counters ----------------------------------------------------------------------------------------------------


def _counters(totals: Mapping[Series, int]) -> Iterator[Metric]:
    yield _counter(totals, tallies.TURNS, "Turns that have ended, by how.", ["outcome"], OUTCOMES)
    yield _counter(totals, tallies.TOKENS, "Tokens that the model has counted.", ["kind"], TOKENS)
    calls = ["tool", "outcome"]
    yield _counter(totals, tallies.TOOL_CALLS, "Tool calls that have ended, by tool and by how.", calls)
    told = "Approvals that have ended: approve, edit, reject, or nobody decided."
    yield _counter(totals, tallies.DECISIONS, told, ["decision"], DECISIONS)
    first = HistogramMetricFamily(
        f"{PREFIX}time_to_first_token_seconds", "From an agent's request to the model to its first text."
    )
    heaped = _heaped(totals, tallies.FIRST_TOKEN, "", tallies.FIRST_TOKEN_BOUNDS)
    first.add_metric([], heaped, totals.get((tallies.FIRST_TOKEN_MS, ""), 0) / 1000)
    yield first
    spent = HistogramMetricFamily(
        f"{PREFIX}db_seconds", "Time in the database: transactions with their commit, and reads.", labels=["kind"]
    )
    for kind in (timings.READ, timings.WRITE):
        heaped = _heaped(totals, timings.SPENT, f"{kind} ", timings.BOUNDS)
        spent.add_metric([kind], heaped, totals.get((timings.SPENT_US, kind), 0) / 1_000_000)
    yield spent


def _counter(
    totals: Mapping[Series, int], name: str, told: str, labels: Sequence[str], known: Sequence[str] = ()
) -> Metric:
    family = CounterMetricFamily(f"{PREFIX}{name}", told, labels=labels)
    counted = {label: value for (of, label), value in totals.items() if of == name}
    for label, value in sorted({**dict.fromkeys(known, 0), **counted}.items()):
        family.add_metric(label.split(" "), value)
    return family


def _heaped(totals: Mapping[Series, int], name: str, prefix: str, bounds: Sequence[float]) -> list[tuple[str, float]]:
    """The histogram's buckets as they are told: each with all that the smaller ones hold."""
    heap, heaped = 0, []
    for label in (*(f"{bound:g}" for bound in bounds), timings.BEYOND):
        heap += totals.get((name, f"{prefix}{label}"), 0)
        heaped.append((label, float(heap)))
    return heaped


# --- gauges ------------------------------------------------------------------------------------------------------


def _gauges() -> Iterator[Metric]:
    yield _gauge("active_streams", "Streams being told now, by all processes.", gauges.active_streams())
    yield _gauge("approvals_waiting", "Approvals that wait for a person.", gauges.approvals_waiting())
    yield _gauge(
        "outbox_lag_seconds", "For how long the oldest due event delivery is due.", gauges.outbox_lag_seconds()
    )
    told = "The circuit breaker before the model: 0 closed, 1 half-open, 2 open."
    yield _gauge("breaker_state", told, BREAKER_STATES[breakers.state().state])
    yield _gauge("dead_letters", "Event deliveries that were given up.", gauges.dead_letters())


def _gauge(name: str, told: str, value: float) -> Metric:
    return GaugeMetricFamily(f"{PREFIX}{name}", told, value)
