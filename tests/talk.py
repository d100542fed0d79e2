"""Speaks to the runtime as its clients do: posts a message, reads the frames."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import httpx

PATH = "/agent/message/stream"


@dataclass
class Heard:
    """One answer, frame by frame."""

    frames: list[dict[str, Any]] = field(default_factory=list)
    cursors: list[str] = field(default_factory=list)
    comments: int = 0

    @property
    def types(self) -> list[str]:
        return [frame["type"] for frame in self.frames]

    @property
    def tokens(self) -> str:
        """The text as clients join it that read every `token`."""
        return "".join(frame["token"] for frame in self.frames if frame["type"] == "assistant_message")

    @property
    def contents(self) -> list[str]:
        """The texts as clients show them that read `content`."""
        return [frame["content"] for frame in self.frames if frame.get("content") is not None and self.is_text(frame)]

    @staticmethod
    def is_text(frame: dict[str, Any]) -> bool:
        return bool(frame["type"] == "assistant_message")

    def of(self, type_: str) -> list[dict[str, Any]]:
        return [frame for frame in self.frames if frame["type"] == type_]

    @property
    def calls(self) -> list[dict[str, Any]]:
        return self.of("tool_call")

    @property
    def error(self) -> dict[str, Any] | None:
        errors = self.of("error")
        return errors[0] if errors else None

    def add(self, event: str) -> None:
        for line in event.split("\n"):
            if line.startswith("data: "):
                self.frames.append(json.loads(line.removeprefix("data: ")))
            elif line.startswith("id: "):
                self.cursors.append(line.removeprefix("id: "))
            elif line.startswith(":"):
                self.comments += 1
            else:
                assert line == "", f"a line that no client understands: {line!r}"


def parse(body: bytes) -> Heard:
    """The frames of a whole SSE body, which must be ASCII and complete."""
    heard = Heard()
    text = body.decode("ascii")
    assert text == "" or text.endswith("\n\n")
    for event in text.split("\n\n")[:-1]:
        heard.add(event)
    return heard


def post(client: httpx.Client, session_id: str, message: dict[str, Any], **headers: str) -> httpx.Response:
    return client.post(PATH, json={"session_id": session_id, "message": message}, headers=headers)


def say(client: httpx.Client, session_id: str, content: str, **fields: Any) -> Heard:
    """A person's message and the whole answer to it."""
    return send(client, session_id, {"type": "user_message", "content": content, **fields})


def result(client: httpx.Client, session_id: str, call_id: str, value: Any, **fields: Any) -> Heard:
    return send(client, session_id, {"type": "tool_result", "call_id": call_id, "result": value, **fields})


def decide(client: httpx.Client, session_id: str, call_id: str, decision: str, **fields: Any) -> Heard:
    return send(client, session_id, {"type": "hitl_decision", "call_id": call_id, "decision": decision, **fields})


def send(client: httpx.Client, session_id: str, message: dict[str, Any]) -> Heard:
    answer = post(client, session_id, message)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    return parse(answer.content)


def history(client: httpx.Client, session_id: str) -> dict[str, Any]:
    answer = client.get(f"/sessions/{session_id}/history")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())
