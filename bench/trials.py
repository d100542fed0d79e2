"""The workloads: each is one trial of one target, and tells what it cost."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import quantiles
from urllib.request import Request, urlopen

from bench.clients import Client, Heard, connect, open_websocket
from bench.processes import Process
from bench.targets import KEY, Target

TURNS_A_SESSION = 10
PACED_TOKENS, PACED_PER_SECOND = 200, 50
MOST_DELAY_MS = 100.0
LEAST_DELIVERED = 0.97
PATIENCE_SECONDS = 60  # for the first turn, on a machine that has much else to do
HISTORY = (10, 100, 400, 1000)
HISTORY_WINDOW = 10


@dataclass(frozen=True)
class Result:
    """What one trial measured, by name; `errors` are what clients saw go wrong."""

    workload: str
    target: str
    values: dict[str, float]
    errors: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Running:
    """A target at work."""

    target: Target
    server: Process


def percentile(values: list[float], percent: int) -> float:
    return quantiles(values, n=100)[percent - 1] if len(values) > 1 else sum(values)


def turns(target: Target, text: str, turns_a_session: int = TURNS_A_SESSION) -> Callable[[], bytes]:
    """Requests of one client: a new session every so many turns."""

    def endless() -> Iterator[bytes]:
        while True:
            session_id = str(uuid.uuid4())
            for _ in range(turns_a_session):
                yield target.request(session_id, text)

    requests = endless()
    return lambda: next(requests)


async def streams(
    running: Running, workload: str, *, count: int, text: str, seconds: float, warm_seconds: float
) -> Result:
    """So many clients at once, each one turn after the other."""
    heard, server = Heard(), running.server
    before_bytes = server.resident_bytes()
    clients: list[Client] = []
    for _ in range(count):
        clients.append(await connect(server.port, heard, turns(running.target, text)))
        await asyncio.sleep(warm_seconds / 2 / count)  # not all in the same moment
    await asyncio.sleep(warm_seconds / 2)
    heard.clear()
    began, cpu = time.monotonic(), server.cpu_seconds()
    await asyncio.sleep(seconds)
    while not heard.turns and time.monotonic() < began + PATIENCE_SECONDS and not heard.errors:
        await asyncio.sleep(0.05)
    took, cpu = time.monotonic() - began, server.cpu_seconds() - cpu
    values = measured(heard, took, cpu, count)
    values["KiB a stream"] = (server.resident_bytes() - before_bytes) / 1024 / count
    await close(clients)
    if not heard.turns:
        heard.errors.append("no turn came to its end")
    return Result(workload, running.target.name, values, heard.errors)


def measured(heard: Heard, seconds: float, cpu_seconds: float, count: int) -> dict[str, float]:
    return {
        "streams": count,
        "tokens/s": heard.tokens / seconds,
        "turns/s": heard.turns / seconds,
        "tokens a CPU second": heard.tokens / max(cpu_seconds, 1e-6),
        "CPU us a token": cpu_seconds / max(heard.tokens, 1) * 1e6,
        "CPU ms a turn": cpu_seconds / max(heard.turns, 1) * 1e3,
        "first token p50 ms": percentile(heard.first_token_ms, 50),
        "first token p99 ms": percentile(heard.first_token_ms, 99),
        "delay p50 ms": percentile(heard.delay_ms, 50),
        "delay p99 ms": percentile(heard.delay_ms, 99),
    }


async def close(clients: list[Client]) -> None:
    for client in clients:
        client.close()
    await asyncio.gather(*(client.over for client in clients))


async def paced(running: Running, count: int, seconds: float, workload: str = "paced") -> Result:
    """200 tokens at 50 a second in each stream, as a person reads."""
    text = f"bench-{PACED_TOKENS}-{PACED_PER_SECOND}"
    return await streams(running, workload, count=count, text=text, seconds=seconds, warm_seconds=min(4.0, seconds * 2))


async def most_paced(running: Running, seconds: float, first: int = 40) -> Result:
    """The most paced streams whose tokens all but 1 % arrive within 100 ms: doubled, then halved in between."""
    good, bad, count = 0, 0, first
    while not bad or bad - good > max(good // 10, 2):
        result = await paced(running, count, seconds)
        due = PACED_PER_SECOND * count * LEAST_DELIVERED
        fine = result.values["delay p99 ms"] < MOST_DELAY_MS and result.values["tokens/s"] > due and not result.errors
        good, bad = (count, bad) if fine else (good, count)
        count = (good + bad) // 2 if bad else good * 2
        await asyncio.sleep(1)
    return Result("most paced", running.target.name, {"streams": good})


async def flood(running: Running, seconds: float) -> Result:
    """16 streams of 500 tokens, as fast as they go."""
    return await streams(running, "flood", count=16, text="bench-500-0", seconds=seconds, warm_seconds=1)


async def one_token(running: Running, seconds: float, count: int = 16, workload: str = "one token") -> Result:
    """Turns with an answer of one token: what a turn costs."""
    return await streams(running, workload, count=count, text="bench-1-0", seconds=seconds, warm_seconds=1)


async def history(running: Running, longest: int) -> Result:
    """One session that grows: CPU time of a turn while it has so many messages."""
    heard, server, values = Heard(), running.server, {}
    session_id, text = str(uuid.uuid4()), "lorem ipsum " * 25 + "bench-1-0"
    done = 0
    for length in (one for one in HISTORY if one <= longest):
        for first, last in ((done, length // 2), (length // 2, length // 2 + HISTORY_WINDOW)):
            cpu = server.cpu_seconds()
            requests = iter([running.target.request(session_id, text)] * (last - max(first, done)))
            client = await connect(server.port, heard, lambda requests=requests: next(requests, None))
            await client.over
            done = last
        values[str(length)] = (server.cpu_seconds() - cpu) / HISTORY_WINDOW * 1e3
    return Result("history", running.target.name, values, heard.errors)


async def idle_websockets(running: Running, count: int) -> Result:
    """What a WebSocket costs on which nothing is said."""
    before = running.server.resident_bytes()
    writers = [await open_websocket(running.server.port, f"/ws/{uuid.uuid4()}", KEY) for _ in range(count)]
    await asyncio.sleep(2)
    used = (running.server.resident_bytes() - before) / 1024 / count
    for writer in writers:
        writer.transport.abort()
    return Result("idle WebSockets", running.target.name, {"count": count, "KiB each": used})


async def stored(running: Running, paths: dict[str, list[str]], repeats: int) -> Result:
    """Reads of what is stored, by name: the median of some requests to each of its paths, after one that warms up."""
    values = {}
    for name, some in paths.items():
        port = running.server.port
        times = [await asyncio.to_thread(_get_ms, port, path) for _ in range(repeats) for path in some]
        values[name] = percentile(times[1:], 50)
    return Result("stored", running.target.name, values)


def _get_ms(port: int, path: str) -> float:
    request = Request(f"http://127.0.0.1:{port}{path}", headers={"X-Internal-Auth": KEY})
    began = time.monotonic()
    with urlopen(request, timeout=60) as answer:
        answer.read()
    return (time.monotonic() - began) * 1000


def as_line(result: Result) -> str:
    return json.dumps(
        {"workload": result.workload, "target": result.target, **result.values, "errors": result.errors[:3]}
    )
