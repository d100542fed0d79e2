"""A server that dies at any point of a turn: nothing acknowledged is lost, nothing happens twice, nothing is stuck.

Each story gets a server to its fail point, yields when it is dead, and says how its session must then be found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests import talk
from tests.faults.checker import Checker, Ledger
from tests.faults.servers import until
from tests.faults.sites import Node, Site
from tests.listening import Listening, following, posting, sending
from tests.model_server import Gate, text, tool_calls, verdict

pytestmark = pytest.mark.timeout(300)
WRITE = '{"path": "a.txt", "content": "x"}'
READ = '{"path": "a.txt"}'


@dataclass
class Dying:
    """A session whose server is about to die; a second server, on the same database, lives."""

    stack: ExitStack
    site: Site
    ledger: Ledger
    victim: Node
    survivor: Node
    session: str

    def posts(self, content: str, **fields: str) -> Listening:
        """Posts a message and hears what comes until the server dies or the answer ends."""
        self.ledger.say(self.session, f"{content} {self.session}")
        fields = {"agent_type": "coder"} | fields
        return self.stack.enter_context(
            posting(self.victim.client, self.session, f"{content} {self.session}", **fields)
        )

    def posted(self, answer: Listening, content: str) -> None:
        """Waits for the server's death; a message whose answer had begun was acknowledged."""
        self.victim.died()
        until(lambda: answer.over, 30, "the answer breaks off")
        if answer.status == 200 and answer.heard.error is None:
            self.ledger.ack(self.session, f"{content} {self.session}")

    def asks_for_tools(self) -> None:
        """The model wants a file written, which needs approval, and one read."""
        calls = [(f"w-{self.session}", "write_file", WRITE), (f"r-{self.session}", "read_file", READ)]
        self.site.model.reply(tool_calls(calls, "Doing. "))

    def waits(self) -> None:
        self.asks_for_tools()
        content = f"Go {self.session}"
        heard = talk.say(self.victim.client, self.session, content, agent_type="coder")
        assert len(heard.calls) == 2
        self.ledger.ack(self.session, content)

    def sends(self, message: dict[str, object]) -> None:
        answer = self.stack.enter_context(sending(self.victim.client, self.session, message))
        self.victim.died()
        until(lambda: answer.over, 30, "the answer breaks off")

    def results(self, *names: str) -> None:
        """The client repeats its results elsewhere: those that were stored change nothing."""
        for name in names:
            call_id = f"{name}-{self.session}"
            heard = talk.result(self.survivor.client, self.session, call_id, f"result {call_id}")
            assert heard.error is None, heard.error
            self.ledger.accept(self.session, call_id, f"result {call_id}")

    def result_message(self, name: str) -> dict[str, object]:
        call_id = f"{name}-{self.session}"
        return {"type": "tool_result", "call_id": call_id, "result": f"result {call_id}"}

    def open_calls(self) -> set[str]:
        return {
            name.partition("-")[0]
            for name, session in self.site.rows(
                "SELECT call.call_id, session.session_id FROM sessions_app_toolcall call "
                "JOIN sessions_app_session session ON session.id = call.session_id "
                "WHERE call.state IN ('pending', 'out')"
            )
            if session == self.session
        }

    def ended(self) -> str:
        """How the session's runs stand."""
        self.site.settled()
        return " ".join(self.site.runs(self.session))


Story = Callable[[Dying], Iterator[None]]


def a_plain_turn(dying: Dying) -> Iterator[None]:
    dying.posted(dying.posts("Go"), "Go")
    yield
    assert dying.ended() == "interrupted"


def a_turn_that_was_stored(dying: Dying) -> Iterator[None]:
    dying.posted(dying.posts("Go"), "Go")
    yield
    assert dying.ended() == "completed"


def a_routed_turn(dying: Dying) -> Iterator[None]:
    dying.posted(dying.posts("Go", agent_type="orchestrator"), "Go")
    yield
    assert dying.ended() == "interrupted"


def a_turn_that_is_retried_after_its_routing(dying: Dying) -> Iterator[None]:
    """The person's question is answered after one call, by the agent that routing then chooses, and goes up once."""
    gate = Gate()
    dying.site.model.route(verdict("ask").held(gate))
    answer = dying.posts("Go", agent_type="orchestrator")
    assert gate.reached.wait(30)
    dying.victim.kill()
    dying.posted(answer, "Go")
    gate.open()
    yield
    assert dying.ended() == "interrupted"
    heard = talk.parse(dying.survivor.client.post(f"/sessions/{dying.session}/retry").content)
    assert heard.contents == ["Hello world"]
    assert [row["role"] for row in talk.history(dying.survivor.client, dying.session)["messages"]] == [
        "user",
        "assistant",
    ]
    assert dying.ended() == "interrupted completed"


def a_message_that_was_not_stored(dying: Dying) -> Iterator[None]:
    answer = dying.posts("Go")
    dying.posted(answer, "Go")
    assert answer.status == 0
    yield
    assert dying.ended() == ""


def text_of_a_moment_ago(dying: Dying) -> Iterator[None]:
    """What was on a screen for a second is in the history; what came just before the end may not be."""
    gate = Gate()
    dying.site.model.reply(text("one two three ", gate, "four", Gate()))
    answer = dying.posts("Go")
    answer.until(lambda heard: heard.tokens == "one two three ")
    # A checkpoint is made about once a second, and read by the other server.
    messages = lambda: talk.history(dying.survivor.client, dying.session)["messages"]  # noqa: E731
    until(lambda: messages()[-1]["content"] == "one two three ", 30, "a checkpoint")
    dying.ledger.saw(dying.session, "one two three ")
    gate.open()
    answer.until(lambda heard: heard.tokens == "one two three four")
    dying.victim.kill()
    dying.posted(answer, "Go")
    yield
    assert dying.ended() == "interrupted"
    assert messages()[-1]["interrupted"] is True


def a_queued_message(dying: Dying) -> Iterator[None]:
    """It is stored, not acknowledged yet, when the server dies; whoever lives answers it."""
    dying.site.model.reply(text("one ", Gate()))
    first = dying.posts("First")
    first.until(lambda heard: heard.tokens == "one ")
    dying.ledger.ack(dying.session, f"First {dying.session}")
    dying.posted(dying.posts("Second"), "Second")
    yield
    assert dying.ended() == "interrupted completed"


def the_next_in_the_queue(dying: Dying) -> Iterator[None]:
    gate = Gate()
    dying.site.model.reply(text("one ", gate, "two"))
    first = dying.posts("First")
    first.until(lambda heard: heard.tokens == "one ")
    second = dying.posts("Second")
    second.begun()
    gate.open()
    dying.posted(second, "Second")
    yield
    assert dying.ended() == "completed interrupted"


def calls_before_they_are_told(dying: Dying) -> Iterator[None]:
    dying.asks_for_tools()
    answer = dying.posts("Go")
    dying.posted(answer, "Go")
    assert answer.heard.calls == []
    yield
    assert dying.ended() == "waiting"
    pending = dying.survivor.client.get(f"/sessions/{dying.session}/pending-approvals").json()
    assert [one["call_id"] for one in pending["pending_approvals"]] == [f"w-{dying.session}"]
    dying.results("r", "w")
    assert dying.ended() == "completed"


def calls_before_they_are_stored(dying: Dying) -> Iterator[None]:
    dying.asks_for_tools()
    dying.posted(dying.posts("Go"), "Go")
    yield
    assert (dying.ended(), dying.open_calls()) == ("interrupted", set())


def a_result_before_the_turn_goes_on(dying: Dying) -> Iterator[None]:
    dying.waits()
    talk.result(dying.victim.client, dying.session, f"r-{dying.session}", f"result r-{dying.session}")
    dying.sends(dying.result_message("w"))
    yield
    assert dying.ended() == "interrupted"
    dying.results("r", "w")  # told again, to no effect
    assert dying.ended() == "interrupted"
    heard = talk.parse(dying.survivor.client.post(f"/sessions/{dying.session}/retry").content)
    assert heard.contents == ["Hello world"]


def a_result_before_it_is_stored(dying: Dying) -> Iterator[None]:
    dying.waits()
    dying.sends(dying.result_message("r"))
    yield
    assert (dying.ended(), dying.open_calls()) == ("waiting", {"w", "r"})
    dying.results("r", "w")
    assert dying.ended() == "completed"


def a_decision_before_its_call_is_sent(dying: Dying) -> Iterator[None]:
    """The call is approved; its client, which never heard of it, finds it in the log."""
    dying.waits()
    dying.sends({"type": "hitl_decision", "call_id": f"w-{dying.session}", "decision": "approve"})
    yield
    assert (dying.ended(), dying.open_calls()) == ("waiting", {"w", "r"})
    with following(dying.survivor.client, dying.session, "0.0") as log:
        told = log.until(lambda heard: len(heard.calls) == 3).calls
    assert (told[-1]["call_id"], told[-1]["requires_approval"]) == (f"w-{dying.session}", False)
    dying.results("w", "r")
    assert dying.ended() == "completed"


POINTS: tuple[tuple[str, Story], ...] = (
    ("before LLMRequestStarted", a_message_that_was_not_stored),
    ("after LLMRequestStarted", a_plain_turn),
    ("user_message-stored", a_plain_turn),
    ("before-request", a_plain_turn),
    ("token", a_plain_turn),
    ("nowhere", text_of_a_moment_ago),
    ("answered", a_plain_turn),
    ("before TaskCompleted", a_plain_turn),
    ("after TaskCompleted", a_turn_that_was_stored),
    ("before LLMRequestStarted", a_routed_turn),
    ("after LLMRequestStarted", a_routed_turn),
    ("nowhere", a_turn_that_is_retried_after_its_routing),
    ("before TaskPaused", calls_before_they_are_stored),
    ("after TaskPaused", calls_before_they_are_told),
    ("before ToolCallCompleted", a_result_before_it_is_stored),
    ("tool_result-stored:2", a_result_before_the_turn_goes_on),
    ("hitl_decision-stored", a_decision_before_its_call_is_sent),
    ("dequeued", the_next_in_the_queue),
    ("user_message-stored:2", a_queued_message),
)


def test_a_server_killed_at_any_point_loses_nothing(site: Site, ledger: Ledger, stack: ExitStack) -> None:
    survivor = site.serve()
    stories = []
    with ThreadPoolExecutor(1) as starting:  # the next victim, while this one dies
        victims = [starting.submit(site.serve, point) for point, _ in POINTS[:1]]
        for number, (point, story) in enumerate(POINTS):
            print(f"{point}: {story.__name__}")
            victim = victims[-1].result()
            victims += [starting.submit(site.serve, after) for after, _ in POINTS[number + 1 : number + 2]]
            session = f"{number}-{story.__name__}"
            telling = story(Dying(stack, site, ledger, victim, survivor, session))
            next(telling)
            stories.append(telling)
    site.settled()
    for (point, story), telling in zip(POINTS, stories, strict=True):
        print(f"after {point}: {story.__name__}")
        assert next(telling, "told") == "told"
    Checker(site, ledger).check(survivor)
    survivor.clean()


def test_all_servers_killed_at_once_lose_nothing(site: Site, ledger: Ledger, stack: ExitStack) -> None:
    """Power off: whoever starts first finds all sessions as they were left."""
    one, two = site.serve(), site.serve()
    Dying(stack, site, ledger, one, one, "waiting").waits()
    site.model.reply(text("one ", Gate()))
    Dying(stack, site, ledger, two, two, "busy").posts("Go").until(lambda heard: heard.tokens == "one ")
    Dying(stack, site, ledger, one, one, "busy").posts("Then").begun()
    for content in ("Go busy", "Then busy"):
        ledger.ack("busy", content)
    for node in (one, two):
        node.kill()
    three = site.serve()
    Dying(stack, site, ledger, three, three, "waiting").results("r", "w")
    site.settled()
    assert site.runs() == ["completed", "interrupted", "completed"]
    Checker(site, ledger).check(three)
    three.clean()
