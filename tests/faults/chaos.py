"""Clients that talk, servers that die under them, and the checker in between: `manage.py chaos --minutes N`."""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx

from tests import talk
from tests.faults.checker import Checker, Ledger
from tests.faults.servers import database
from tests.faults.sites import LEASE_SECONDS, Program, Site
from tests.listening import following, posting
from tests.model_server import JSON, Cut, Pause, Reply, chunks, status, text, tool_calls

CLIENTS = 6
SESSIONS = 9
ROUND_SECONDS = 20.0
SETTLED_SECONDS = 40.0
WRITE = '{"path": "a.txt", "content": "x"}'
READ = '{"path": "a.txt"}'
POINTS = (
    "after LLMRequestStarted:3", "after TaskCompleted:4", "after TaskPaused:2", "answered:5", "before TaskCompleted:3",
    "before TaskPaused:2", "before ToolCallCompleted:2", "before-request:6", "dequeued", "hitl_decision-stored",
    "token:20", "tool_result-stored:3", "user_message-stored:5",
)  # fmt: skip


class Talker:
    """One client: says, answers, decides, cancels, hangs up and reads again, at random."""

    def __init__(self, chaos: Chaos, number: int) -> None:
        self.chaos, self.number, self.said = chaos, number, 0
        self.random = random.Random(f"{chaos.seed} {number}")

    def run(self) -> None:
        acts: list[Callable[[httpx.Client, str], None]] = [self.says] * 6 + [self.leaves, self.cancels, self.retries]
        while not self.chaos.over.is_set():
            session_id = f"{self.chaos.round}-{self.random.randrange(SESSIONS)}"
            act = self.random.choice([*acts, self.answers, self.answers, self.reads])
            client = self.random.choice(self.chaos.nodes).client
            with suppress(httpx.TransportError):  # its server is gone: the next act goes elsewhere
                act(client, session_id)
                self.chaos.done[act.__name__] += 1

    def _message(self, session_id: str) -> str:
        self.said += 1
        content = f"{self.number}.{self.said} {'tools' if self.random.random() < 0.4 else 'talk'}"
        self.chaos.ledger.say(session_id, content)
        return content

    def says(self, client: httpx.Client, session_id: str) -> None:
        content = self._message(session_id)
        on_busy = self.random.choice(["wait", "wait", "wait", "reject", "interrupt", "rollback"])
        heard = talk.say(client, session_id, content, agent_type="coder", on_busy=on_busy)
        if heard.error is None:
            self.chaos.ledger.ack(session_id, content)
        for shown in heard.contents:
            self.chaos.ledger.saw(session_id, shown)

    def leaves(self, client: httpx.Client, session_id: str) -> None:
        with posting(client, session_id, self._message(session_id), agent_type="coder") as answer:
            answer.begun()
            enough = self.random.randrange(6)
            with suppress(AssertionError):  # it may end, or break off, with fewer
                answer.until(lambda heard: len(heard.frames) >= enough, 5)

    def answers(self, client: httpx.Client, session_id: str) -> None:
        waiting = client.get(f"/sessions/{session_id}/pending-approvals").json().get("pending_approvals", [])
        for call_id in [one["call_id"] for one in waiting] + [f"r{one['call_id'][1:]}" for one in waiting]:
            if call_id.startswith("w") and self.random.random() < 0.4:
                talk.decide(client, session_id, call_id, self.random.choice(["approve", "reject"]))
                continue
            value = f"{call_id} by {self.random.choice('ab')}"
            if talk.result(client, session_id, call_id, value).error is None:
                self.chaos.ledger.accept(session_id, call_id, value)

    def cancels(self, client: httpx.Client, session_id: str) -> None:
        client.post(f"/sessions/{session_id}/cancel")

    def retries(self, client: httpx.Client, session_id: str) -> None:
        client.post(f"/sessions/{session_id}/retry")

    def reads(self, client: httpx.Client, session_id: str) -> None:
        if client.get(f"/sessions/{session_id}").status_code == 200:
            with following(client, session_id, "0.0") as log:
                log.begun()


class Chaos:
    """Two servers on one database, and two workers where those run the turns, tormented round by round."""

    def __init__(self, site: Site, seed: int, say: Callable[[str], Any], *, workers: bool) -> None:
        self.seed, self.say, self.random = seed, say, random.Random(seed)
        self.site, self.ledger = site, Ledger()
        self.nodes = [self.site.serve(), self.site.serve()]
        self.workers = [self.site.work(), self.site.work()] if workers else []
        self.over, self.round, self.calls = threading.Event(), 0, 0
        self.done: Counter[str] = Counter()

    # --- the model ---

    def model(self, body: JSON) -> Reply:
        """What the model says: mostly an answer in pieces, or calls for whom they were asked; sometimes it fails."""
        asked = str(body["messages"][-1].get("content"))
        chance = self.random.random()
        if chance < 0.03:
            return status(503)
        if asked.endswith("tools") and chance < 0.8:
            self.calls += 1
            calls = [(f"w{self.calls}", "write_file", WRITE), (f"r{self.calls}", "read_file", READ)]
            return tool_calls(calls, "Doing. ")
        parts: list[Any] = []
        for word in f"An answer to {asked[:40]} ".split(" ") * 3:
            parts += [{"content": word + " "}, Pause(self.random.random() * 0.1)]
        if chance < 0.08:
            parts.insert(len(parts) // 2, Cut())
        return chunks(parts)

    # --- faults ---

    def kill(self) -> None:
        self._victim(lambda node: node.kill())

    def stop(self) -> None:
        self._victim(lambda node: node.stop())

    def _victim(self, end: Callable[[Program], object], *points: str) -> None:
        place = self.random.randrange(len(self.nodes) + len(self.workers))
        if place < len(self.nodes):
            end(self.nodes[place])
            self.nodes[place] = self.site.serve(*points)
        else:
            end(self.workers[place - len(self.nodes)])
            self.workers[place - len(self.nodes)] = self.site.work(*points)

    def fail_point(self) -> None:
        """The next server dies by itself, when it gets there, or in the next fault."""
        point = self.random.choice(POINTS)
        self.say(f"    at {point}")
        self._victim(lambda node: node.kill(), point)

    def freeze(self) -> None:
        node = self.random.choice([*self.nodes, *self.workers])
        node.freeze()
        time.sleep(LEASE_SECONDS + self.random.random() * 4)
        node.thaw()

    def lock(self) -> None:
        if not self.site.on_sqlite:
            self.say("    skipped: only SQLite is locked as a whole")
            return
        path = self.site.database.removeprefix("sqlite:///")
        with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as link:
            link.execute("BEGIN IMMEDIATE")
            time.sleep(self.random.random() * 12)
            link.execute("ROLLBACK")

    def drop_model(self) -> None:
        self.site.model.drop_connections()

    # --- rounds ---

    def torment(self, seconds: float) -> list[str]:
        """One round: talk and faults for so long, then peace, then the checker's complaints."""
        self.round += 1
        self.over.clear()
        self.site.model.always(self.model)
        until = time.monotonic() + seconds
        faults = [self.kill, self.kill, self.stop, self.fail_point, self.fail_point, self.freeze, self.lock]
        with ThreadPoolExecutor(CLIENTS) as pool:
            talking = [pool.submit(Talker(self, self.round * CLIENTS + number).run) for number in range(CLIENTS)]
            try:
                while time.monotonic() < until:
                    fault = self.random.choice([*faults, self.drop_model])
                    self.say(f"  {fault.__name__}")
                    fault()
                    time.sleep(self.random.random() * 3)
            finally:
                self.over.set()
            self._peace()
            for one in talking:
                one.result()
        return self._verdict()

    def _peace(self) -> None:
        for place, node in enumerate(self.nodes):
            node.thaw()
            if node.process.poll() is not None or node.armed:
                node.kill()
                self.nodes[place] = self.site.serve()
        for place, worker in enumerate(self.workers):
            worker.thaw()
            if worker.process.poll() is not None or worker.armed:
                worker.kill()
                self.workers[place] = self.site.work()

    def _verdict(self) -> list[str]:
        self.site.model.always(text("Hello world"))
        try:
            self.site.settled(SETTLED_SECONDS)
        except AssertionError as stuck:
            return [str(stuck)]
        found = Checker(self.site, self.ledger).complaints(self.nodes[0])
        return [
            *found,
            *(line for one in [*self.nodes, *self.workers] for line in one.log.splitlines() if "Traceback" in line),
        ]


def run(*, minutes: float, seed: int | None, say: Callable[[str], Any], redis: str = "") -> bool:
    """Torments until the time is over or a promise is broken; True when none was. With `redis`, which needs PostgreSQL,
    workers run the turns."""
    seed = random.SystemRandom().randrange(10**6) if seed is None else seed
    say(f"seed {seed}")
    until = time.monotonic() + minutes * 60
    with _place() as (stack, directory, url):
        variables = {"AGENT_RUNTIME__EXECUTOR": "worker", "AGENT_RUNTIME__REDIS_URL": redis} if redis else {}
        chaos = Chaos(Site(stack, directory, url, **variables), seed, say, workers=bool(redis))
        while (left := until - time.monotonic()) > 0:
            say(f"round {chaos.round + 1}: {left / 60:.1f} minutes left")
            complaints = chaos.torment(min(ROUND_SECONDS, left))
            counted = ", ".join(f"{name} {count}" for name, count in sorted(chaos.done.items()))
            promised = sum(map(len, chaos.ledger.acknowledged.values()))
            say(f"  so far: {counted}; {promised} acknowledged, {len(chaos.site.runs())} runs")
            if complaints:
                say("BROKEN:\n  " + "\n  ".join(complaints) + f"\n(seed {seed})")
                return False
            say("  nothing is broken")
    return True


@contextmanager
def _place() -> Iterator[tuple[ExitStack, Path, str]]:
    with TemporaryDirectory(prefix="chaos-") as name, ExitStack() as stack:
        yield stack, Path(name), stack.enter_context(database(Path(name)))
