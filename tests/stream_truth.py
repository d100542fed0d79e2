"""Stream truth: what a client has heard in all its answers is what a fresh GET says, and what the log tells again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from sessions_app.models import Run, Session, ToolCall
from tests import talk
from tests.model_server import ModelServer, strict
from tests.talk import Heard

JSON = dict[str, Any]
SETTLED_HERE = {"switch_mode", "attempt_completion", "ask_followup_question"}
UNFINISHED = ("queued", "running", "waiting")


class Listener:
    """One client of one session: says things, keeps all it hears, and checks each body by the rules of frames."""

    def __init__(self, client: httpx.Client, session_id: str = "s1") -> None:
        self.client = client
        self.session_id = session_id
        self.frames: list[JSON] = []  # those of the log

    def say(self, content: str = "go on", **fields: Any) -> Heard:
        return self.send({"type": "user_message", "content": content, **fields})

    def result(self, call_id: str, value: Any = "done", **fields: Any) -> Heard:
        return self.send({"type": "tool_result", "call_id": call_id, "result": value, **fields})

    def fail(self, call_id: str, error: str) -> Heard:
        return self.send({"type": "tool_result", "call_id": call_id, "error": error})

    def decide(self, call_id: str, decision: str, **fields: Any) -> Heard:
        return self.send({"type": "hitl_decision", "call_id": call_id, "decision": decision, **fields})

    def switch(self, agent: str, **fields: Any) -> Heard:
        return self.send({"type": "switch_agent", "agent_type": agent, **fields})

    def send(self, message: JSON) -> Heard:
        return self.hear(talk.send(self.client, self.session_id, message))

    def hear(self, heard: Heard) -> Heard:
        well_formed(heard)
        if heard.cursors:
            self.frames += [frame for frame in heard.frames if not is_no_switch(frame)]
        return heard

    # --- what is true now ---

    def history(self) -> JSON:
        return talk.history(self.client, self.session_id)

    def messages(self) -> list[JSON]:
        return list(self.history()["messages"])

    def pending(self) -> list[JSON]:
        answer = self.client.get(f"/sessions/{self.session_id}/pending-approvals")
        assert answer.status_code == 200
        assert answer.json()["count"] == len(answer.json()["pending_approvals"])
        return list(answer.json()["pending_approvals"])

    def waiting(self) -> JSON:
        """The one approval of the session that waits, with all that the newer listing tells of it."""
        asked = {"session_id": self.session_id, "state": "pending"}
        (one,) = self.client.get("/api/v1/approvals", params=asked).json()["results"]
        return dict(one)

    def told_again(self) -> list[JSON]:
        """The log from its start, as a later reader hears it."""
        answer = self.client.get(f"/sessions/{self.session_id}/stream", params={"after": "0.0", "follow": "false"})
        assert answer.status_code == 200, answer.text
        return talk.parse(answer.content).frames

    def check(self) -> None:
        """The state built from the stream equals a fresh GET, and the log tells the same story again."""
        story = self.history()
        assert joined(self.told_again()) == joined(self.frames)
        texts = [frame["content"] for frame in self.frames if frame.get("content") and frame["type"] == TEXT]
        assert texts == [m["content"] for m in story["messages"] if m["role"] == "assistant" and m["content"]]
        self._check_calls(story["messages"])
        switches = [frame["metadata"] for frame in self.frames if frame["type"] == "agent_switched"]
        assert story["current_agent"] == (switches[-1]["to_agent"] if switches else "orchestrator")
        assert [(m["from_agent"], m["to_agent"]) for m in switches] == [
            (item["from"], item["to"]) for item in story["agent_history"]
        ]
        counts_agree(self.client, self.session_id)

    def _check_calls(self, messages: list[JSON]) -> None:
        heard = {f["call_id"]: (f["tool_name"], f["arguments"]) for f in self.frames if f["type"] == "tool_call"}
        kept = {call["id"]: call["function"] for m in messages for call in m.get("tool_calls", [])}
        stored = {name: (f["name"], json.loads(f["arguments"])) for name, f in kept.items() if name in heard}
        assert stored == heard
        waiting = {one["call_id"]: one["arguments"] for one in self.pending()}
        assert waiting.items() <= {name: arguments for name, (_, arguments) in heard.items()}.items()


TEXT = "assistant_message"


def well_formed(heard: Heard) -> None:
    """The rules of one body, whatever it says."""
    frames = heard.frames
    for i, frame in enumerate(frames):
        last = i == len(frames) - 1
        assert None not in frame.values()
        if frame["type"] == TEXT:
            assert not frame["is_final"] or last
        elif frame["type"] == "agent_switched":
            assert frame["is_final"] is last
        elif frame["type"] == "error":
            assert last
            assert frame["is_final"]
            assert frame["content"] == frame["error"]
        else:
            assert frame["type"] == "tool_call"
            assert frame["is_final"]
    assert heard.tokens == "".join(heard.contents)
    assert not frames or frames[-1]["is_final"]
    assert len(set(heard.cursors)) == len(heard.cursors)


def joined(frames: list[JSON]) -> list[JSON]:
    """The frames with neighbouring deltas as one: how many there are is nobody's business."""
    result: list[JSON] = []
    for frame in frames:
        if is_delta(frame) and result and is_delta(result[-1]):
            result[-1] = {**frame, "token": result[-1]["token"] + frame["token"]}
        else:
            result.append(frame)
    return result


def is_no_switch(frame: JSON) -> bool:
    """The frame for a switch to the agent that is current: told, but not recorded."""
    told = frame.get("metadata", {})
    return frame["type"] == "agent_switched" and told["from_agent"] == told["to_agent"]


def is_delta(frame: JSON) -> bool:
    return frame["type"] == TEXT and "content" not in frame


def counts_agree(client: httpx.Client, session_id: str) -> None:
    """The history, the session, the listing, and the column count the same messages."""
    story = talk.history(client, session_id)
    session = client.get(f"/sessions/{session_id}").json()["session"]
    row = Session.objects.get(session_id=session_id)
    counts = {story["message_count"], len(story["messages"]), session["message_count"], row.message_count}
    assert len(counts) == 1, counts
    assert list(row.events.order_by("seq").values_list("seq", flat=True)) == list(range(1, row.last_seq + 1))


@contextmanager
def unchanged(client: httpx.Client, session_id: str = "s1") -> Iterator[None]:
    """What happens inside stores nothing: no message, event, approval or run, and no activity."""
    before = everything(client, session_id)
    yield
    assert everything(client, session_id) == before


def everything(client: httpx.Client, session_id: str) -> list[Any]:
    paths = [f"/sessions/{session_id}", f"/sessions/{session_id}/history", f"/sessions/{session_id}/pending-approvals"]
    return [*(client.get(path).json() for path in paths), rows(session_id)]


def rows(session_id: str) -> list[Any]:
    """What is stored of the session; a late result noted at its call is for operators and left out."""
    session = Session.objects.filter(session_id=session_id)
    calls = ToolCall.objects.filter(session__in=session).order_by("pk")
    return [
        *session.values(),
        *Run.objects.filter(session__in=session).order_by("pk").values("pk", "state", "attempt", "stream_mode"),
        *calls.values("call_id", "state", "arguments", "result_hash", "approval__state", "approval__arguments"),
        *session.values("messages__number", "messages__content").order_by("messages__number"),
    ]


def usable(listener: Listener, model: ModelServer) -> None:
    """The session takes the next message, and what goes up satisfies a strict provider."""
    heard = listener.say("Still there?")
    assert heard.error is None
    assert heard.types[-1] == TEXT
    assert strict(model.requests[-1].body["messages"]) == []
    listener.check()
