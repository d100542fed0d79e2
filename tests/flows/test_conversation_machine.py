"""One session, anything in any order: what a client says, what the model says, and what must hold all the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx
from hypothesis import HealthCheck, Phase
from hypothesis import settings as bounded
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from pytest_django import Settings

from sessions_app.models import Event, Run, Session
from tests import talk
from tests.model_server import (
    ModelServer,
    Reply,
    cut_after,
    end_after,
    function_call,
    garbage,
    html,
    status,
    strict,
    text,
    tool_calls,
    verdict,
)
from tests.stream_truth import Listener, rows
from tests.talk import Heard

AGENTS = ["coder", "architect", "debug", "ask"]
SENT = [
    ("read_file", '{"path": "a.py"}'),
    ("list_files", ""),
    ("write_file", '{"path": "a.md", "content": "x"}'),
    ("write_file", '{"path": "a.py", "content": "x"}'),
    ("execute_command", '{"command": "ls"}'),
]
SETTLED_HERE = [
    ("fly", "{}"),
    ("read_file", '{"path": '),
    ("read_file", "[]"),
    *(("switch_mode", f'{{"mode": "{agent}"}}') for agent in [*AGENTS, "orchestrator", "nobody"]),
    ("attempt_completion", '{"result": "All done"}'),
    ("ask_followup_question", '{"question": "Which one?"}'),
]
CALLS = [*SENT * 4, *SETTLED_HERE]
WORDS = ["", "Some words", "Слова по-русски\u2028и ещё ☃"]
FAILURES = {
    "refuses": status(400),
    "is cut before a word": cut_after(0),
    "is cut": cut_after(3),
    "says nothing": end_after(0),
    "ends early": end_after(2),
    "talks garbage": garbage(),
    "is a web page": html(),
}
ROUTES = {
    **{agent: verdict(agent) for agent in [*AGENTS, "orchestrator"]},
    "prose": text("no idea"),
    "down": status(503),
    "garbage": garbage(),
}


@dataclass(frozen=True)
class Says:
    """What the model says to one request, short to print."""

    how: str
    text: str = ""
    calls: Sequence[tuple[str, str, str]] = ()

    def reply(self) -> Reply:
        if self.how == "calls":
            return tool_calls(self.calls, self.text)
        if self.how == "legacy call":
            return function_call(*self.calls[0][1:])
        return text(self.text) if self.how == "text" else FAILURES[self.how]


def answers() -> st.SearchStrategy[Says]:
    """Mostly calls: they are what makes a conversation long."""
    call = st.tuples(st.sampled_from(["", "", "a", "b", "c"]), st.sampled_from(CALLS)).map(lambda c: (c[0], *c[1]))
    words = st.sampled_from(WORDS)
    calls = st.builds(Says, st.just("calls"), words, st.lists(call, min_size=1, max_size=4))
    parallel = st.builds(Says, st.just("calls"), words, st.lists(call, min_size=3, max_size=4))
    legacy = st.builds(Says, st.just("legacy call"), st.just(""), st.lists(call, min_size=1, max_size=1))
    others = st.one_of(
        st.builds(Says, st.just("text"), words), legacy, st.builds(Says, st.sampled_from(list(FAILURES)))
    )
    return st.sampled_from([parallel] * 4 + [calls] * 2 + [others] * 2).flatmap(lambda kind: kind)


said_by_model = st.lists(answers(), min_size=1, max_size=4)
chosen = st.sampled_from([None, *AGENTS, "orchestrator"])
WAYS = ["result", "result", "error", "approve", "edit", "reject"]
results = st.sampled_from(["text", "", None, 0, [], {"a": "ж"}])


class Conversation(RuleBasedStateMachine):
    client: httpx.Client
    model: ModelServer

    def __init__(self) -> None:
        super().__init__()
        self.me = Listener(self.client, f"machine-{uuid4()}")
        self.waiting: dict[str, bool] = {}  # open calls, and whether a decision is awaited
        self.answered: dict[str, dict[str, Any]] = {}
        self.decided: dict[str, None] = {}  # in order, so that the same draw means the same call
        self.closed: dict[str, None] = {}
        self.calm = True  # nobody has disturbed since the turn went on: most steps shall take it on
        self.model._replies.clear()
        self.model._routes.clear()
        self.first_request = self.seen = len(self.model.requests)

    @property
    def asked(self) -> int:
        return sum("tools" in request.body for request in self.model.requests[self.first_request :])

    def script(self, replies: list[Says]) -> None:
        self.calm = True
        self.model._replies.clear()
        self.model.reply(*(one.reply() for one in replies))

    def turn(self, heard: Heard) -> None:
        """What the client holds after a body that went on with the turn."""
        self.waiting = {call["call_id"]: call["requires_approval"] for call in heard.calls}
        assert not self.waiting or heard.error is None

    def close_all(self) -> None:
        self.closed |= dict.fromkeys(self.waiting)
        self.waiting = {}

    def refused(self, message: dict[str, Any]) -> None:
        before = rows(self.me.session_id)
        heard = self.me.send(message)
        assert heard.types == ["error"]
        assert heard.cursors == []
        assert rows(self.me.session_id) == before

    def exists(self) -> bool:
        return bool(self.me.frames)

    # --- people speak ---

    @precondition(lambda self: not self.waiting)
    @rule(replies=said_by_model, agent=chosen, route=st.sampled_from(list(ROUTES)))
    def says(self, replies: list[Says], agent: str | None, route: str) -> None:
        self.script(replies)
        self.model._routes.clear()
        self.model.route(ROUTES[route])
        asked = self.asked
        heard = self.me.say("Привет and hello", **({"agent_type": agent} if agent else {}))
        self.close_all()
        self.turn(heard)
        assert heard.frames
        assert self.asked > asked

    @precondition(lambda self: self.calm and self.exists())
    @rule(
        how=st.sampled_from(["switch", "switch", "rest", "cancel", "retry", "say"]), agent=chosen, replies=said_by_model
    )
    def interrupts(self, how: str, agent: str | None, replies: list[Says]) -> None:
        self.calm = False
        if how == "switch":
            assert self.me.switch(agent or "code").types == ["agent_switched"]
        elif how == "rest":
            self.switch_by_rest(agent or "code")
        elif how == "cancel":
            self.cancel()
        elif how == "retry":
            self.retry(replies)
        else:
            self.says(replies=replies, agent=agent, route="prose")

    def switch_by_rest(self, agent: str) -> None:
        body = {"target_agent": agent, "reason": "by hand"}
        answer = self.client.post(f"/agents/{self.me.session_id}/switch", json=body)
        assert answer.status_code in (200, 400)
        if answer.status_code == 200:
            self.me.frames.append(self.me.told_again()[-1])

    def cancel(self) -> None:
        assert self.client.post(f"/sessions/{self.me.session_id}/cancel").status_code == 200
        if self.waiting:
            self.close_all()
            self.me.frames.append(self.me.told_again()[-1])
            assert self.me.frames[-1]["code"] == "CANCELLED"

    def retry(self, replies: list[Says]) -> None:
        self.script(replies)
        answer = self.client.post(f"/sessions/{self.me.session_id}/retry")
        assert answer.status_code in (200, 409)
        if answer.status_code == 200:
            self.turn(self.me.hear(talk.parse(answer.content)))

    # --- the client answers ---

    def settle(self, call_id: str, message: dict[str, Any], replies: list[Says]) -> None:
        """The call's one answer: silence until the last, then the turn goes on."""
        self.script(replies)
        asked = self.asked
        del self.waiting[call_id]
        heard = self.me.send(message)
        self.answered[call_id] = message
        if self.waiting:
            assert heard.frames == []
            assert self.asked == asked
        else:
            assert heard.frames
            assert self.asked > asked
            self.turn(heard)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), how=st.sampled_from(WAYS), value=results, replies=said_by_model)
    def answers_a_call(self, data: st.DataObject, how: str, value: Any, replies: list[Says]) -> None:
        call_id = data.draw(st.sampled_from(list(self.waiting)))
        pending = self.waiting[call_id]
        if pending:
            self.decided[call_id] = None
        if pending and how in ("approve", "edit", "reject"):
            self.decide(call_id, how, replies)
            return
        told = {"error": "it failed", "result": None} if how == "error" else {"result": value}
        self.settle(call_id, {"type": "tool_result", "call_id": call_id, **told}, replies)

    def decide(self, call_id: str, decision: str, replies: list[Says]) -> None:
        message = {"type": "hitl_decision", "call_id": call_id, "decision": decision}
        self.refused({**message, "decision": "edit", "modified_arguments": {"nonsense": 1}})
        if decision == "reject":
            self.settle(call_id, message, replies)
            return
        tool = next(f["tool_name"] for f in reversed(self.me.frames) if f.get("call_id") == call_id)
        new = {"command": "pwd"} if tool == "execute_command" else {"path": "b.md", "content": "y"}
        heard = self.me.send(message | ({"modified_arguments": new} if decision == "edit" else {}))
        assert [(c["call_id"], c["requires_approval"]) for c in heard.calls] == [(call_id, False)]
        assert heard.types == ["tool_call"]
        self.waiting[call_id] = False

    @precondition(lambda self: self.calm and self.exists())
    @rule(data=st.data(), how=st.sampled_from(["again", "otherwise", "late", "unknown", "decided"]))
    def repeats_or_invents(self, data: st.DataObject, how: str) -> None:
        """What the client has said already, says too late, or has no business to say."""
        self.calm = False
        known: dict[str, Any] = {"late": self.closed, "decided": self.decided}.get(how, self.answered)
        call_id = data.draw(st.sampled_from([*known, "nobody's"])) if how != "unknown" else "nobody's"
        if how == "decided":
            self.refused({"type": "hitl_decision", "call_id": call_id, "decision": "approve"})
        elif how != "again" or call_id not in self.answered:
            self.refused({"type": "tool_result", "call_id": call_id, "result": "something else"})
        else:
            self.answer_again(self.answered[call_id])

    def answer_again(self, message: dict[str, Any]) -> None:
        if message["type"] == "hitl_decision":
            self.refused(message)
            return
        before, asked = rows(self.me.session_id), self.asked
        assert self.me.send(message).error is None
        assert (rows(self.me.session_id), self.asked) == (before, asked)

    # --- what holds ---

    @invariant()
    def the_model_reads_a_valid_history(self) -> None:
        for request in self.model.requests[self.seen :]:
            assert strict(request.body["messages"]) == []
            routing = "tools" not in request.body
            assert routing == (not request.body["stream"])
        self.seen = len(self.model.requests)

    @invariant()
    def the_run_waits_exactly_for_the_open_calls(self) -> None:
        if not self.exists():
            return
        states = list(Run.objects.filter(session__session_id=self.me.session_id).values_list("state", flat=True))
        assert states.count("running") == states.count("queued") == 0
        assert states.count("waiting") == bool(self.waiting)
        assert {one["call_id"] for one in self.me.pending()} == {c for c, pending in self.waiting.items() if pending}

    def teardown(self) -> None:
        if not self.exists():
            return
        self.me.check()
        session = Session.objects.get(session_id=self.me.session_id)
        started = Event.objects.filter(session=session, type="LLMRequestStarted", data__purpose="answer").count()
        assert started == self.asked == session.llm_requests.filter(purpose="answer").count()
        self.script([])
        heard = self.me.say("The end", agent_type="ask")
        assert heard.error is None
        self.the_model_reads_a_valid_history()


def test_whatever_is_said_the_conversation_holds(client: httpx.Client, model: ModelServer, settings: Settings) -> None:
    settings.RATE_LIMIT_PER_MINUTE = settings.SESSION_RATE_LIMIT_PER_MINUTE = 0

    class Here(Conversation):
        pass

    Here.client, Here.model = client, model
    bounds = bounded(
        max_examples=10,
        stateful_step_count=25,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],  # to make a failure smaller would take minutes
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Here, settings=bounds)
