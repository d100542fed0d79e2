"""Two servers and one session, at the same moment: one of them wins, the other is told, and nobody sees both.

`AGENT_RUNTIME_FAULT_ROUNDS=500` runs the races as long as somebody who doubts them wants.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests import talk
from tests.faults.checker import Checker, Ledger
from tests.faults.sites import Node, Site
from tests.model_server import text, tool_calls

ROUNDS = int(os.environ.get("AGENT_RUNTIME_FAULT_ROUNDS", "0"))
pytestmark = pytest.mark.timeout(max(300, ROUNDS * 10))
MESSAGES, DECISIONS, RESULTS, EXPIRIES = ROUNDS or 60, ROUNDS or 40, ROUNDS or 20, ROUNDS or 6
LANES = 6
WRITE = '{"path": "a.txt", "content": "x"}'
READ = '{"path": "a.txt"}'
Call = Callable[[], Any]


def at_once(pool: ThreadPoolExecutor, *calls: Call) -> list[Any]:
    """Their results, all begun at the same moment."""
    barrier = threading.Barrier(len(calls))

    def run(call: Call) -> Any:
        barrier.wait()
        return call()

    return [future.result() for future in [pool.submit(run, call) for call in calls]]


def serve_two(site: Site) -> tuple[Node, Node]:
    return site.serve(), site.serve()


def test_two_messages_at_once_are_two_turns_one_after_the_other(site: Site, ledger: Ledger) -> None:
    nodes = serve_two(site)
    site.model.always(lambda body: text("Answer to ", body["messages"][-1]["content"]))

    def race(session_id: str, rounds: range) -> None:
        with ThreadPoolExecutor(2) as pool:
            for number in rounds:
                contents = [f"{number}a", f"{number}b"]
                calls = [
                    lambda n=node, c=content: talk.say(n.client, session_id, c, agent_type="coder")
                    for node, content in zip(nodes, contents, strict=True)
                ]
                for content, heard in zip(contents, at_once(pool, *calls), strict=True):
                    assert heard.contents == [f"Answer to {content}"], (content, heard.frames)
                    ledger.ack(session_id, content)

    # Without Redis a reader elsewhere hears of its turn within a second: the sessions wait side by side.
    with ThreadPoolExecutor(LANES) as lanes:
        racing = [lanes.submit(race, f"s{lane}", range(lane, MESSAGES, LANES)) for lane in range(LANES)]
        for one in racing:
            one.result()
    assert len(site.runs()) == 2 * MESSAGES
    assert set(site.runs()) == {"completed"}
    Checker(site, ledger).check(nodes[0])
    for node in nodes:
        node.clean()


def test_two_messages_at_once_that_will_not_wait(site: Site, ledger: Ledger) -> None:
    """`reject`: each is answered, or refused as busy; never neither, never something else."""
    nodes = serve_two(site)
    ends: Counter[str] = Counter()
    with ThreadPoolExecutor(2) as pool:
        for number in range(MESSAGES // 3):
            contents = [f"{number}a", f"{number}b"]
            for content in contents:
                ledger.say("s", content)
            calls = [
                lambda n=node, c=content: talk.say(n.client, "s", c, agent_type="coder", on_busy="reject")
                for node, content in zip(nodes, contents, strict=True)
            ]
            answers = at_once(pool, *calls)
            for content, heard in zip(contents, answers, strict=True):
                ends[heard.error["code"] if heard.error else "answered"] += 1
                if heard.error is None:
                    ledger.ack("s", content)
            assert any(heard.error is None for heard in answers)
    assert set(ends) <= {"answered", "SESSION_BUSY"}, ends
    Checker(site, ledger).check(nodes[1])


def test_the_same_message_twice_at_once_is_one_run(site: Site, ledger: Ledger) -> None:
    nodes = serve_two(site)

    def race(number: int) -> None:
        with ThreadPoolExecutor(2) as pool:
            calls = [
                lambda n=node: talk.say(n.client, f"s{number}", "Go", agent_type="coder", message_id="the-key")
                for node in nodes
            ]
            for heard in at_once(pool, *calls):
                assert heard.contents == ["Hello world"]
        ledger.ack(f"s{number}", "Go")

    with ThreadPoolExecutor(LANES) as lanes:
        list(lanes.map(race, range(MESSAGES // 3)))
    assert len(site.runs()) == MESSAGES // 3
    Checker(site, ledger).check(nodes[1], says=False)


def test_approve_and_reject_at_once_have_one_winner(site: Site, ledger: Ledger) -> None:
    nodes = serve_two(site)
    won: Counter[str] = Counter()
    with ThreadPoolExecutor(2) as pool:
        for number in range(DECISIONS):
            session_id, call_id = f"s{number % 10}", f"call_{number}"
            site.model.reply(tool_calls([(call_id, "write_file", WRITE)]))
            content = f"Write {number}"
            assert talk.say(nodes[0].client, session_id, content, agent_type="coder").error is None
            ledger.ack(session_id, content)
            sides = list(zip(nodes if number % 2 else nodes[::-1], ("approve", "reject"), strict=True))
            calls = [lambda n=n, d=d, c=call_id, s=session_id: talk.decide(n.client, s, c, d) for n, d in sides]
            approved, rejected = at_once(pool, *calls)
            winner = "reject" if approved.error else "approve"
            loser = approved if winner == "reject" else rejected
            won[winner] += 1
            assert loser.error is not None
            assert loser.error["code"] == "APPROVAL_ALREADY_DECIDED"
            if winner == "approve":
                assert [call["requires_approval"] for call in approved.calls] == [False]
                talk.result(nodes[0].client, session_id, call_id, f"ok {number}")
                ledger.accept(session_id, call_id, f"ok {number}")
            else:
                assert rejected.contents == ["Hello world"]
                ledger.accept(session_id, call_id, "The user rejected this call.")
    print(won)
    decided = "SELECT call.call_id, approval.state FROM sessions_app_approval approval "
    states = dict(site.rows(decided + "JOIN sessions_app_toolcall call ON call.id = approval.call_id"))
    assert Counter(states.values()) == {
        state: won[word] for state, word in (("approved", "approve"), ("rejected", "reject")) if won[word]
    }
    told = site.rows("SELECT count(*) FROM sessions_app_event WHERE type = 'ToolApprovalDecided'")
    assert told == [(DECISIONS,)]
    Checker(site, ledger).check(nodes[1])


def test_expiry_and_decisions_of_every_kind_at_once_have_one_winner(site: Site, ledger: Ledger) -> None:
    """The time is over within the very moment in which two servers approve, reject, decide in bulk and answer."""
    site.variables["AGENT_RUNTIME__APPROVAL_EXPIRY_SECONDS"] = "1.5"
    nodes = serve_two(site)
    outcomes: Counter[str] = Counter()
    codes: Counter[str] = Counter()

    def race(number: int) -> None:
        session_id, call_id, node = f"s{number}", f"call_{number}", nodes[number % 2]
        site.model.reply(tool_calls([(call_id, "write_file", WRITE)]))
        talk.say(node.client, session_id, "Write", agent_type="coder")
        ledger.ack(session_id, "Write")
        with ThreadPoolExecutor(4) as pool:
            threading.Event().wait(1.5 if number % 2 else 1.3)
            answers = at_once(
                pool,
                lambda: talk.decide(nodes[0].client, session_id, call_id, "approve").error,
                lambda: talk.decide(nodes[1].client, session_id, call_id, "reject").error,
                lambda: talk.result(nodes[0].client, session_id, call_id, "did it").error,
                lambda: in_bulk(nodes[1], session_id, call_id),
            )
        codes.update(error["code"] for error in answers if error)

    for number in range(EXPIRIES):
        race(number)
    states = site.rows("SELECT state, count(*) FROM sessions_app_approval GROUP BY state")
    outcomes.update(dict(states))
    print(outcomes, codes)
    assert set(outcomes) <= {"approved", "rejected", "expired"}
    assert sum(outcomes.values()) == EXPIRIES
    assert set(codes) <= {"APPROVAL_ALREADY_DECIDED", "APPROVAL_EXPIRED", "CALL_ALREADY_ANSWERED"}
    settled = "SELECT count(*) FROM sessions_app_event WHERE type IN ('ToolApprovalDecided', 'ToolApprovalExpired')"
    assert site.rows(settled) == [(EXPIRIES,)]
    site.settled()
    for node in nodes:
        node.clean()
    assert site.doctor()[0] == 0


def in_bulk(node: Node, session_id: str, call_id: str) -> Any:
    calls = [{"session_id": session_id, "call_id": call_id}]
    answer = node.client.post("/api/v1/approvals/bulk", json={"decision": "approve", "call_ids": calls})
    (told,) = answer.json()["results"]
    return None if told["ok"] else told


def test_two_results_at_once_are_one_answer(site: Site, ledger: Ledger) -> None:
    """The same result twice, two different ones for a call, and the last two of parallel calls: the model is asked
    once more, and no more."""
    nodes = serve_two(site)
    with ThreadPoolExecutor(2) as pool:
        for number in range(RESULTS):
            kind, session_id = ("same", "different", "parallel")[number % 3], f"s{number}"
            ids = [f"{number}-1", f"{number}-2"] if kind == "parallel" else [f"{number}-1"]
            site.model.reply(tool_calls([(call_id, "read_file", READ) for call_id in ids]))
            talk.say(nodes[0].client, session_id, "Go", agent_type="coder")
            ledger.ack(session_id, "Go")
            before = len(site.model.requests)
            values = ["one", "two"] if kind == "different" else ["same", "same"]
            told = zip(nodes, [ids[0], ids[-1]], values, strict=True)
            calls = [lambda n=n, s=session_id, c=c, v=v: talk.result(n.client, s, c, v) for n, c, v in told]
            answers = at_once(pool, *calls)
            errors = [heard.error["code"] for heard in answers if heard.error]
            assert errors == (["CALL_ALREADY_ANSWERED"] if kind == "different" else [])
            assert sorted(heard.contents for heard in answers) == [[], ["Hello world"]], (kind, answers)
            assert len(site.model.requests) == before + 1
            if kind == "different":
                values = [value for value, heard in zip(values, answers, strict=True) if not heard.error]
            for call_id in ids:
                ledger.accept(session_id, call_id, values[0])
    Checker(site, ledger).check(nodes[1], says=False)
