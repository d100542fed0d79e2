"""Limits over several processes: what is shared is exact, what is each process's own is that, and a Redis that is away
holds nobody up."""

from __future__ import annotations

import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import talk
from tests.faults.servers import OwnRedis, missing_redis, own_redis, until
from tests.faults.sites import Node, Site
from tests.listening import Socket, following, posting
from tests.model_server import Gate, text

pytestmark = pytest.mark.timeout(300)
needs_redis = pytest.mark.skipif(bool(missing_redis()), reason=missing_redis() or "never")
LIMIT, HITS = 20, 50
SWITCH = {"type": "switch_agent", "agent_type": "orchestrator"}


@pytest.fixture
def redis(tmp_path: Path, stack: ExitStack) -> OwnRedis:
    return stack.enter_context(own_redis(tmp_path))


def two(site: Site, redis: OwnRedis | None = None, **variables: str) -> list[Node]:
    shared = {"AGENT_RUNTIME__REDIS_URL": redis.url} if redis else {}
    return [site.serve(**shared, **variables) for _ in range(2)]


def at_once(nodes: list[Node], ask: Any) -> list[httpx.Response]:
    """So many requests, spread over the processes."""
    with ThreadPoolExecutor(HITS) as pool:
        return list(pool.map(ask, [nodes[number % len(nodes)] for number in range(HITS)]))


# --- how often ---------------------------------------------------------------------------------------------------


@needs_redis
def test_an_address_has_one_account_in_all_processes(site: Site, redis: OwnRedis) -> None:
    nodes = two(site, redis, AGENT_RUNTIME__RATE_LIMIT_PER_MINUTE=str(LIMIT))
    answers = at_once(nodes, lambda node: node.client.get("/agents"))
    assert Counter(answer.status_code for answer in answers) == {200: LIMIT, 429: HITS - LIMIT}
    left = sorted(int(answer.headers["x-ratelimit-remaining"]) for answer in answers if answer.status_code == 200)
    assert left[0] == 0
    assert max(left) < LIMIT
    for node in nodes:
        assert node.client.get("/agents").status_code == 429
        node.clean()


@needs_redis
def test_a_session_has_one_account_in_all_processes_and_over_a_socket(site: Site, redis: OwnRedis) -> None:
    nodes = two(site, redis, AGENT_RUNTIME__SESSION_RATE_LIMIT_PER_MINUTE=str(LIMIT))
    nodes[0].client.post("/sessions", json={"session_id": "s"})
    answers = at_once(nodes, lambda node: talk.post(node.client, "s", SWITCH))
    assert Counter(answer.status_code for answer in answers) == {200: LIMIT, 429: HITS - LIMIT}
    assert talk.post(nodes[0].client, "another", SWITCH).status_code == 200
    for node in nodes:
        with Socket(node.url.replace("http", "ws", 1), "s") as socket:
            socket.send(SWITCH)
            assert socket.next()["code"] == "RATE_LIMITED"
        node.clean()


def test_without_redis_each_process_keeps_accounts_of_its_own(site: Site) -> None:
    nodes = two(site, AGENT_RUNTIME__RATE_LIMIT_PER_MINUTE=str(LIMIT))
    for node in nodes:
        answers = at_once([node], lambda node: node.client.get("/agents"))
        assert Counter(answer.status_code for answer in answers) == {200: LIMIT, 429: HITS - LIMIT}
        node.clean()


# --- a Redis that is away ----------------------------------------------------------------------------------------


@needs_redis
@pytest.mark.parametrize("fault", ["stopped", "hung"])
def test_while_redis_is_away_each_process_counts_for_itself_and_nobody_waits(
    site: Site, redis: OwnRedis, fault: str
) -> None:
    nodes = two(site, redis, AGENT_RUNTIME__RATE_LIMIT_PER_MINUTE=str(LIMIT))
    for node in nodes:
        assert node.client.get("/agents").headers["x-ratelimit-limit"] == str(LIMIT)
    redis.stop() if fault == "stopped" else redis.signal(signal.SIGSTOP)
    for node in nodes:
        began = time.monotonic()
        first = node.client.get("/agents")
        assert (first.status_code, time.monotonic() - began < 6) == (200, True)  # two seconds are the promise
        answers = at_once([node], lambda node: node.client.get("/agents"))
        assert Counter(answer.status_code for answer in answers) == {200: LIMIT - 1, 429: HITS - LIMIT + 1}
        assert talk.post(node.client, "s", SWITCH).status_code == 429
        assert node.client.get("/health").status_code == 200
    redis.start() if fault == "stopped" else redis.signal(signal.SIGCONT)
    for node in nodes:
        until(lambda node=node: shares(node), 30, "it counts with the other one again")  # type: ignore[misc]
        node.clean()


def shares(node: Node) -> bool:
    """Over the limit by its own account, but not by the shared one, which has the one hit of each from before."""
    return node.client.get("/agents").status_code == 200


@needs_redis
def test_what_redis_forgets_is_counted_anew_by_all_together(site: Site, redis: OwnRedis) -> None:
    nodes = two(site, redis, AGENT_RUNTIME__RATE_LIMIT_PER_MINUTE=str(LIMIT))
    at_once(nodes, lambda node: node.client.get("/agents"))
    assert nodes[0].client.get("/agents").status_code == 429
    redis.flush()
    answers = at_once(nodes, lambda node: node.client.get("/agents"))
    assert Counter(answer.status_code for answer in answers) == {200: LIMIT, 429: HITS - LIMIT}
    for node in nodes:
        node.clean()


# --- turns and sockets -------------------------------------------------------------------------------------------


def begun(node: Node, stack: ExitStack, session_id: str) -> Any:
    return stack.enter_context(posting(node.client, session_id, "Go", agent_type="coder"))


def states(site: Site) -> Counter[str]:
    return Counter(site.runs())


def test_the_turns_of_a_key_are_counted_in_all_processes_together(site: Site, stack: ExitStack) -> None:
    nodes = two(site, AGENT_RUNTIME__MAX_CONCURRENT_TURNS_PER_KEY="2")
    gates = [Gate() for _ in range(4)]
    for gate in gates:
        site.model.reply(text("one ", gate, "two"))
    turns = []
    for number in range(2):
        turns.append(begun(nodes[number], stack, f"s{number}"))
        turns[-1].until(lambda heard: heard.tokens == "one ")
    for number in (2, 3):
        turns.append(begun(nodes[number % 2], stack, f"s{number}"))
        until(lambda number=number: len(site.runs()) == number + 1, 30, "it is stored")  # type: ignore[misc]
    assert states(site) == {"running": 2, "queued": 2}
    for gate in gates:
        gate.open()
    for turn in turns:
        assert turn.ended().contents == ["one two"]
    for node in nodes:
        node.clean()


def test_the_turns_of_a_process_are_its_own(site: Site, stack: ExitStack) -> None:
    nodes = two(site, AGENT_RUNTIME__MAX_CONCURRENT_TURNS="1")
    gates = [Gate() for _ in range(4)]
    for gate in gates:
        site.model.reply(text("one ", gate, "two"))
    turns = []
    for number in range(2):
        turns.append(begun(nodes[number], stack, f"s{number}"))
        turns[-1].until(lambda heard: heard.tokens == "one ")
    for number in (2, 3):
        turns.append(begun(nodes[number % 2], stack, f"s{number}"))
        until(lambda number=number: len(site.runs()) == number + 1, 30, "it is stored")  # type: ignore[misc]
    assert states(site) == {"running": 2, "queued": 2}
    for gate in gates:
        gate.open()
    for turn in turns:
        assert turn.ended().contents == ["one two"]
    for node in nodes:
        node.clean()


@needs_redis
def test_sockets_of_an_address_are_counted_by_each_process(site: Site, redis: OwnRedis, stack: ExitStack) -> None:
    nodes = two(site, redis, AGENT_RUNTIME__MAX_SOCKETS_PER_ADDRESS="2")
    nodes[0].client.post("/sessions", json={"session_id": "s"})
    for node in nodes:
        stack.enter_context(Socket(node.url.replace("http", "ws", 1), "s"))
        stack.enter_context(following(node.client, "s", "0.0"))
    for node in nodes:
        with Socket(node.url.replace("http", "ws", 1), "s") as socket:
            assert socket.closed() == 1013
        assert node.client.get("/sessions/s/stream").status_code == 429
