"""Streams that are heard while the test goes on, the WebSocket as its clients use it, and the truth about both."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from typing import Any, Self
from urllib.parse import quote

import httpx
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests import talk
from tests.conftest import KEY
from tests.talk import Heard

Frame = dict[str, Any]
SECONDS = 30.0
BOOKKEEPING = ("end", "ack")


class Listening:
    """An SSE answer that is read in a thread of its own, frame by frame."""

    def __init__(self, client: httpx.Client, method: str, path: str, **request: Any) -> None:
        self.heard = Heard()
        self.status = 0
        self.over = False
        self._broken = False
        self._changed = threading.Condition()
        self._client = httpx.Client(base_url=client.base_url, headers=client.headers, timeout=30)
        self._request = self._client.build_request(method, path, **request)
        self._response: httpx.Response | None = None
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self.over:
            self.hang_up()
        self._client.close()

    def _listen(self) -> None:
        try:
            response = self._client.send(self._request, stream=True)
            with self._changed:
                self.status, self._response = response.status_code, response
                self._changed.notify_all()
            self._read(response)
        except httpx.HTTPError:
            self._broken = True
        with self._changed:
            self.over = True
            self._changed.notify_all()

    def _read(self, response: httpx.Response) -> None:
        rest = ""
        for piece in response.iter_text():
            *events, rest = (rest + piece).split("\n\n")
            with self._changed:
                for event in events:
                    self.heard.add(event)
                self._changed.notify_all()
        response.close()
        assert rest == ""

    def until(self, holds: Callable[[Heard], bool], seconds: float = SECONDS) -> Heard:
        with self._changed:
            assert self._changed.wait_for(lambda: holds(self.heard) or self.over, seconds), self.heard
        assert holds(self.heard), self.heard
        return self.heard

    def begun(self) -> None:
        """Returns once the head of the answer is there."""
        with self._changed:
            assert self._changed.wait_for(lambda: bool(self.status) or self.over, SECONDS)

    def ended(self, seconds: float = SECONDS) -> Heard:
        """All that was said, once the body has ended as a body should."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.over, seconds), self.heard
        assert not self._broken, self.heard
        return self.heard

    def hang_up(self) -> None:
        """What a closed laptop looks like to the server."""
        self.begun()
        if self._response is not None and not self.over:
            stream = self._response.extensions["network_stream"]
            stream.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        self._thread.join(SECONDS)


def posting(client: httpx.Client, session_id: str, content: str, **fields: Any) -> Listening:
    """A person's message, whose answer is heard while the test goes on."""
    return sending(client, session_id, {"type": "user_message", "content": content, **fields})


def sending(client: httpx.Client, session_id: str, message: Frame) -> Listening:
    return Listening(client, "POST", talk.PATH, json={"session_id": session_id, "message": message})


def following(client: httpx.Client, session_id: str, after: str | None = None) -> Listening:
    """The session's log from a cursor on, open until the test hangs up."""
    params = {} if after is None else {"after": after}
    return Listening(client, "GET", f"/sessions/{quote(session_id, safe='')}/stream", params=params)


def stored(client: httpx.Client, session_id: str, after: str = "0.0") -> Heard:
    """The story of the log from a cursor to its end."""
    answer = client.get(f"/sessions/{session_id}/stream", params={"after": after, "follow": "false"})
    assert answer.status_code == 200, answer.text
    return talk.parse(answer.content)


def truth(client: httpx.Client, session_id: str) -> list[Frame]:
    """Checks that the log tells what the history holds; returns the history's messages."""
    story, messages = stored(client, session_id), talk.history(client, session_id)["messages"]
    spoken = [row["content"] for row in messages if row["role"] == "assistant" and row["content"]]
    assert [text for text in story.contents if text] == spoken
    assert story.tokens == "".join(spoken)
    told = {call["call_id"] for call in story.calls}
    assert told <= {call["id"] for row in messages for call in row.get("tool_calls", ())}
    answered = {row["tool_call_id"] for row in messages if row["role"] == "tool"}
    waiting = client.get(f"/sessions/{session_id}/pending-approvals").json()["pending_approvals"]
    assert not answered & {call["call_id"] for call in waiting}
    assert len(set(story.cursors)) == len(story.cursors) == len(story.frames)
    return messages


def same_story(live: Heard, later: Heard) -> None:
    """A later reader hears what the live one heard; only the text comes in other pieces."""
    assert later.tokens == live.tokens
    assert without_deltas(later.frames) == without_deltas(live.frames)


def without_deltas(frames: list[Frame]) -> list[Frame]:
    kept = [frame for frame in frames if not (frame["type"] == "assistant_message" and "content" not in frame)]
    return [{key: value for key, value in frame.items() if key != "cursor"} for frame in kept]


class Socket:
    """A WebSocket of a session."""

    def __init__(self, url: str, session_id: str, **options: Any) -> None:
        address = f"{url}/ws/{quote(session_id, safe='')}"
        headers = {"X-Internal-Auth": KEY}
        self._connecting = connect(address, additional_headers=headers, max_size=None, **options)
        self.frames: list[Frame] = []

    def __enter__(self) -> Self:
        self.link = self._connecting.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._connecting.__exit__(*error)

    def send(self, message: Any) -> None:
        self.link.send(message if isinstance(message, str | bytes) else json.dumps(message))

    def say(self, content: str, **fields: Any) -> None:
        self.send({"type": "user_message", "content": content, **fields})

    def next(self, seconds: float = SECONDS) -> Frame:
        frame: Frame = json.loads(self.link.recv(seconds))
        self.frames.append(frame)
        return frame

    def until(self, holds: Callable[[Frame], bool], seconds: float = SECONDS) -> list[Frame]:
        """The frames up to the first one of which this holds, and that one."""
        came = [self.next(seconds)]
        while not holds(came[-1]):
            came.append(self.next(seconds))
        return came

    def turn(self) -> Heard:
        """What a message brings, up to its end."""
        return heard_of(self.until(lambda frame: frame["type"] == "end"))

    def closed(self, seconds: float = SECONDS) -> int:
        """The code that the server closes with."""
        try:
            while True:
                self.next(seconds)
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else 1006


def heard_of(frames: list[Frame]) -> Heard:
    """The chunks among the frames of a WebSocket, with their cursors."""
    chunks = [frame for frame in frames if frame["type"] not in BOOKKEEPING]
    heard = Heard()
    for chunk in chunks:
        cursor = chunk.get("cursor")
        heard.frames.append({key: value for key, value in chunk.items() if key != "cursor"})
        heard.cursors += [cursor] if cursor else []
    return heard
