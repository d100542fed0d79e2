"""The database or Redis stops, hangs or forgets: readers get everything a little later, and nothing is restarted."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import talk
from tests.faults.checker import Checker, Ledger
from tests.faults.servers import OwnRedis, Postgres, missing_postgres, missing_redis, own_redis, postgres, until
from tests.faults.sites import Node, Site
from tests.listening import Listening, following, posting, truth
from tests.model_server import Gate, text, tool_calls

WRITE = '{"path": "a.txt", "content": "x"}'
pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(missing_postgres()), reason=missing_postgres() or "never"),
]
needs_redis = pytest.mark.skipif(bool(missing_redis()), reason=missing_redis() or "never")
HEALED_SECONDS = 60.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Postgres]:
    with postgres() as one:
        yield one


@pytest.fixture
def on_postgres(cluster: Postgres, tmp_path: Path, stack: ExitStack) -> Site:
    if not (cluster.directory / "postmaster.pid").exists():
        cluster.start()
    return Site(stack, tmp_path, cluster.fresh(), AGENT_RUNTIME__LEASE_SECONDS="15")


def refused(answer: httpx.Response) -> None:
    """What a program hears while the database is away."""
    assert answer.status_code == 503, (answer.status_code, answer.text)
    assert int(answer.headers["retry-after"]) > 0
    assert answer.json()["code"] == "STORAGE_UNAVAILABLE"


def refuses_everything(node: Node) -> None:
    """Every kind of request is refused in time, none with a 500; what needs no database answers."""
    message = {"session_id": "s", "message": {"type": "user_message", "content": "Refused"}}
    requests: list[tuple[str, str, Any]] = [
        ("GET", "/sessions", None),
        ("POST", "/sessions", {}),
        ("GET", "/sessions/s/history", None),
        ("GET", "/sessions/s/stream?after=0.0", None),
        ("POST", "/sessions/s/cancel", None),
        ("POST", "/sessions/s/retry", None),
        ("GET", "/events/metrics", None),
        ("GET", "/api/v1/runs", None),
        ("POST", f"/api/v1{talk.PATH}", message),
    ]
    with ThreadPoolExecutor(len(requests) + 1) as pool:
        answers = [pool.submit(node.client.request, method, path, json=body) for method, path, body in requests]
        for_people = pool.submit(talk.say, node.client, "s", "Refused")
        assert node.client.get("/health").status_code == 200
        ready = node.client.get("/health/ready")
        assert (ready.status_code, ready.json()["status"]) == (503, "unavailable")
        assert node.client.get("/metrics").status_code == 503
        for answer in answers:
            refused(answer.result())
        error = for_people.result().error
    assert error is not None
    assert error["code"] == "STORAGE_UNAVAILABLE"


def test_postgres_stops_in_the_middle_of_turns(
    on_postgres: Site, cluster: Postgres, ledger: Ledger, stack: ExitStack
) -> None:
    site = on_postgres
    node, other = site.serve(), site.serve()
    gates = [Gate(), Gate()]
    site.model.reply(tool_calls([("call_1", "write_file", WRITE)], "Writing. "))
    assert len(talk.say(node.client, "tools", "Write", agent_type="coder").calls) == 1
    site.model.reply(text("one ", gates[0], "two ", gates[1], "three"))
    answer = stack.enter_context(posting(node.client, "s", "Go", agent_type="coder"))
    answer.until(lambda heard: heard.tokens == "one ")
    log = stack.enter_context(following(other.client, "s", "0.0"))
    log.until(lambda heard: heard.tokens == "one ")
    for session_id, content in (("s", "Go"), ("tools", "Write")):
        ledger.ack(session_id, content)
    cluster.stop()
    gates[0].open()
    answer.until(lambda heard: heard.tokens == "one two ")  # the model is heard all the same
    refuses_everything(node)
    gates[1].open()
    answer.until(lambda heard: heard.tokens == "one two three")
    assert not answer.over
    cluster.start()
    assert answer.ended(HEALED_SECONDS).contents == ["one two three"]
    log.until(lambda heard: heard.contents == ["one two three"], HEALED_SECONDS)
    assert (answer.heard.error, log.heard.error) == (None, None)
    until(lambda: other.client.get("/sessions").status_code == 200, HEALED_SECONDS, "the other has its database again")
    ledger.accept("tools", "call_1", "ok")
    assert talk.result(other.client, "tools", "call_1", "ok").contents == ["Hello world"]
    Checker(site, ledger).check(node)
    node.clean()
    other.clean()


def test_postgres_hangs_and_readiness_says_so_in_time(on_postgres: Site, cluster: Postgres) -> None:
    node = on_postgres.serve()
    assert node.client.get("/health/ready").json()["status"] == "ready"
    with cluster.frozen():
        for _ in range(3):
            began = time.monotonic()
            ready = node.client.get("/health/ready")
            assert time.monotonic() - began < 3 * 1.0  # a second is promised
            assert (ready.status_code, ready.json()["status"]) == (503, "unavailable")
        assert node.client.get("/metrics").status_code == 503
        assert node.client.get("/health/live").status_code == 200
    until(lambda: node.client.get("/health/ready").status_code == 200, 30, "it is ready again")
    assert node.client.get("/metrics").status_code == 200
    node.clean()


def test_postgres_dies_under_load_and_no_message_is_there_twice(
    on_postgres: Site, cluster: Postgres, ledger: Ledger
) -> None:
    """A commit that was cut off may have come through: it is not repeated."""
    site = on_postgres
    nodes = [site.serve(), site.serve()]
    over = threading.Event()

    def talks(number: int) -> None:
        client, count = nodes[number % 2].client, 0
        while not over.is_set():
            session_id, content, count = f"s{number}", f"{number}.{count}", count + 1
            ledger.say(session_id, content)
            try:
                heard = talk.say(client, session_id, content, agent_type="coder")
            except httpx.TransportError:
                continue
            if heard.error is None:
                ledger.ack(session_id, content)

    with ThreadPoolExecutor(6) as pool:
        talking = [pool.submit(talks, number) for number in range(6)]
        for _ in range(3):
            done = sum(map(len, list(ledger.acknowledged.values())))
            until(lambda done=done: sum(map(len, list(ledger.acknowledged.values()))) > done + 12, 60, "turns")
            cluster.stop()
            cluster.start()
        over.set()
        for one in talking:
            one.result()
    site.settled(40)
    Checker(site, ledger).check(nodes[0])
    for node in nodes:
        node.clean()


def test_two_hundred_streams_need_no_connections(on_postgres: Site, cluster: Postgres, stack: ExitStack) -> None:
    site = on_postgres
    node = site.serve(AGENT_RUNTIME__DB_POOL_SIZE="10")
    talk.say(node.client, "s", "Go", agent_type="coder")
    limits = httpx.Limits(max_connections=None)
    headers = node.client.headers
    many = stack.enter_context(httpx.Client(base_url=node.url, headers=headers, limits=limits, timeout=60))
    gate = Gate()
    site.model.always(lambda body: text("one ", gate, "two"))
    answers: list[Listening] = [stack.enter_context(following(many, "s")) for _ in range(150)]
    answers += [stack.enter_context(posting(many, f"t{number}", "Go", agent_type="coder")) for number in range(50)]
    for answer in answers:
        answer.begun()
        assert answer.status == 200
    for answer in answers[150:]:
        answer.until(lambda heard: heard.tokens == "one ", 60)
    assert cluster.connections() <= 10
    for _ in range(30):
        assert node.client.get("/sessions").status_code == 200
    gate.open()
    for answer in answers[150:]:
        assert answer.ended(40).contents == ["one two"]
    assert talk.say(node.client, "s", "Again").contents == ["one two"]
    for answer in answers[:150]:
        answer.until(lambda heard: heard.contents == ["one two"], 60)
    assert "PoolTimeout" not in node.log
    assert "STORAGE_UNAVAILABLE" not in node.log
    node.clean()


# --- Redis -------------------------------------------------------------------------------------------------------


class Shared:
    """Two servers that share a database and a Redis, and the faults that Redis may have."""

    def __init__(self, site: Site, redis: OwnRedis) -> None:
        self.redis = redis
        self.one, self.two = (site.serve(AGENT_RUNTIME__REDIS_URL=redis.url) for _ in range(2))

    def stop(self) -> None:
        self.redis.stop()

    def restart(self) -> None:
        self.redis.stop()
        self.redis.start()

    def hang(self) -> None:
        self.redis.signal(signal.SIGSTOP)

    def flush(self) -> None:
        self.redis.flush()

    def heal(self) -> None:
        if self.redis.process is None:
            self.redis.start()
        self.redis.signal(signal.SIGCONT)


@needs_redis
def test_redis_stops_hangs_and_forgets_and_readers_elsewhere_hear_everything(
    on_postgres: Site, tmp_path: Path, stack: ExitStack, ledger: Ledger
) -> None:
    site = on_postgres
    redis = stack.enter_context(own_redis(tmp_path))
    shared = Shared(site, redis)
    for fault in ("flush", "restart", "hang", "stop"):
        print(fault)
        gates = [Gate(), Gate()]
        site.model.reply(text("one ", gates[0], "two ", gates[1], "three"))
        with posting(shared.one.client, fault, "Go", agent_type="coder") as answer, ExitStack() as readers:
            answer.until(lambda heard: heard.tokens == "one ")
            ledger.ack(fault, "Go")
            log = readers.enter_context(following(shared.two.client, fault, "0.0"))
            log.until(lambda heard: heard.tokens == "one ")
            getattr(shared, fault)()
            gates[0].open()
            log.until(lambda heard: heard.tokens == "one two ")
            late = readers.enter_context(following(shared.two.client, fault, "0.0"))
            late.until(lambda heard: heard.tokens == "one two ")
            for node in (shared.one, shared.two):
                assert node.client.get("/sessions").status_code == 200
            gates[1].open()
            assert answer.ended().contents == ["one two three"]
            for reader in (log, late):
                assert reader.until(lambda heard: heard.contents != []).contents == ["one two three"]
            shared.heal()
            assert talk.say(shared.two.client, fault, "Then").contents == ["Hello world"]
            ledger.ack(fault, "Then")
            log.until(lambda heard: "Hello world" in heard.contents)
        truth(shared.two.client, fault)
    shared_again(site, shared, stack)
    Checker(site, ledger).check(shared.two)
    shared.one.clean()
    shared.two.clean()


def shared_again(site: Site, shared: Shared, stack: ExitStack) -> None:
    """Both hear each other over Redis once more: also of a session that nobody has read before."""
    gate = Gate()
    site.model.reply(text("one ", gate, "two"))
    answer = stack.enter_context(posting(shared.one.client, "new", "Go", agent_type="coder"))
    answer.until(lambda heard: heard.tokens == "one ")
    log = stack.enter_context(following(shared.two.client, "new", "0.0"))
    log.until(lambda heard: heard.tokens == "one ")
    pk = site.rows("SELECT id FROM sessions_app_session WHERE session_id = 'new'")[0][0]
    until(
        lambda: any(name.endswith(f"session.{pk}") for name in shared.redis.channels()),
        HEALED_SECONDS,
        "the reader joins over Redis",
    )
    gate.open()
    assert answer.ended().contents == ["one two"]
