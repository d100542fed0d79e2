"""The circuit breaker is every process's, outlives each of them, and waits for no dead one."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import pytest

from tests import talk
from tests.faults.servers import database, missing_redis, own_redis, until
from tests.faults.sites import Node, Site
from tests.listening import posting
from tests.model_server import Gate, status, text

pytestmark = pytest.mark.timeout(300)
DOWN = status(503, {"Retry-After": "0"})
STATE = "SELECT state, failures FROM sessions_app_breaker"


def site(stack: ExitStack, directory: Path, **variables: str) -> Site:
    known = {"AGENT_RUNTIME__BREAKER_FAILURES": "3", "AGENT_RUNTIME__BREAKER_RESET_SECONDS": "600"}
    return Site(stack, directory, stack.enter_context(database(directory)), **(known | variables))


def say(node: Node, session_id: str) -> talk.Heard:
    return talk.say(node.client, session_id, "Go", agent_type="coder")


def refused(node: Node, session_id: str) -> None:
    error = say(node, session_id).error
    assert error is not None
    assert error["content"].startswith("The language model cannot be reached right now. Please try again in")


def test_all_processes_share_it_and_a_restart_finds_it_again(stack: ExitStack, tmp_path: Path) -> None:
    here = site(stack, tmp_path)
    one, two = here.serve(), here.serve()
    here.model.always(DOWN)
    for node in (one, two, one):
        assert say(node, "s").error is not None
    until(lambda: here.rows(STATE) == [("open", 3)], 30, "the third failure opens it")
    asked = len(here.model.requests)
    refused(one, "s")
    one.kill()
    again = here.serve()
    refused(again, "s")
    assert len(here.model.requests) == asked
    here.model.always(text("Fine"))
    process, out, errors = here._run("breaker", "--reset")
    assert process.wait(60) == 0, errors.read_text()
    assert out.read_text() == "llm  closed  failed turns in a row: 0\n"
    for node in (two, again):
        assert say(node, "s").contents == ["Fine"]
    two.clean()
    again.clean()


def test_a_probe_whose_process_dies_is_followed_by_another(stack: ExitStack, tmp_path: Path) -> None:
    here = site(stack, tmp_path, AGENT_RUNTIME__BREAKER_RESET_SECONDS="1")
    one, two = here.serve(), here.serve()
    here.model.always(DOWN)
    for _ in range(3):
        say(one, "s")
    gate = Gate()
    here.model.always(text("Fine").held(gate))

    def tried() -> bool:
        probe = stack.enter_context(posting(one.client, "probe", "Go", agent_type="coder"))
        until(lambda: gate.reached.is_set() or probe.over, 30, "it is asked, or refused since its time has not come")
        return gate.reached.is_set()

    until(tried, 30, "somebody tries")
    refused(two, "other")
    one.kill()
    here.model.always(text("Fine"))
    until(lambda: say(two, "other").contents == ["Fine"], 30, "the next one tries")
    assert here.rows("SELECT state FROM sessions_app_breaker") == [("closed",)]
    two.clean()


@pytest.mark.parametrize("shared", ["over the database", "over redis"])
def test_of_many_at_once_in_two_processes_exactly_one_tries(stack: ExitStack, tmp_path: Path, shared: str) -> None:
    if over_redis := shared == "over redis":
        if missing_redis():
            pytest.skip(missing_redis())
        redis = stack.enter_context(own_redis(tmp_path))
    here = site(stack, tmp_path, AGENT_RUNTIME__BREAKER_RESET_SECONDS="1")
    nodes = [here.serve(**({"AGENT_RUNTIME__REDIS_URL": redis.url} if over_redis else {})) for _ in range(2)]
    here.model.always(DOWN)
    for number in range(3):
        assert say(nodes[number % 2], "s").error is not None
    for node in nodes:
        until(lambda node=node: knows(here, node), 30, "it has heard that it is open")  # type: ignore[misc]
    gate, asked = Gate(), len(here.model.requests)
    here.model.always(text("Fine").held(gate))
    pool = stack.enter_context(ThreadPoolExecutor(16))
    stack.callback(gate.open)  # before the pool waits for its threads

    def tried() -> bool:
        sessions = [f"probe {time.monotonic_ns()}" for _ in range(16)]
        answers = [pool.submit(say, nodes[number % 2], session) for number, session in enumerate(sessions)]
        until(lambda: sum(answer.done() for answer in answers) >= 15, 60, "all but one are told at once")
        until(lambda: gate.reached.is_set() or all(answer.done() for answer in answers), 60, "it is asked, or not due")
        told = [answer.result().error for answer in answers if answer.done()]
        assert all(error and error["code"] == "LLM_UNAVAILABLE" for error in told)
        return gate.reached.is_set()

    until(tried, 60, "somebody tries")
    assert len(here.model.requests) == asked + 1
    for node in nodes:
        refused(node, "meanwhile")
    gate.open()
    here.model.always(text("Fine"))
    for node in nodes:
        until(lambda node=node: say(node, "after").contents == ["Fine"], 30, "everything passes again")  # type: ignore[misc]
        node.clean()


def knows(here: Site, node: Node) -> bool:
    """Whether the node asks nobody: it has seen the breaker open."""
    asked = len(here.model.requests)
    say(node, "known")
    return len(here.model.requests) == asked


def test_nobody_there_is_told_in_under_a_second_and_nothing_else_notices(stack: ExitStack, tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        nobody = f"http://127.0.0.1:{listener.getsockname()[1]}"
    here = site(stack, tmp_path, AGENT_RUNTIME__LLM_PROXY_URL=nobody, AGENT_RUNTIME__BREAKER_FAILURES="1")
    node = here.serve()
    assert say(node, "s").error is not None
    began = time.monotonic()
    assert talk.say(node.client, "new", "Fix the crash").types == ["agent_switched", "error"]
    assert time.monotonic() - began < 3  # a third of it is the promise
    answers: list[httpx.Response] = [node.client.get(path) for path in ("/sessions", "/sessions/s/history", "/agents")]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    node.clean()
