"""A real WebSocket server that plays a script: each connection is answered by the next function of the script."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

KEY = "a-key-for-the-tests"
RUN = 7


class Peer:
    """The server's side of one connection, in the words of the contract."""

    def __init__(self, socket: ServerConnection, heard: list[dict[str, Any]], cursors: Iterator[str]) -> None:
        self.socket, self._heard, self._cursors = socket, heard, cursors

    def hear(self, type_: str) -> dict[str, Any]:
        """The next message of the client, which must be of this type."""
        message: dict[str, Any] = json.loads(self.socket.recv(timeout=30))
        self._heard.append(message)
        assert message["type"] == type_, message
        return message

    @property
    def heard_last(self) -> dict[str, Any]:
        return self._heard[-1]

    def send(self, **frame: Any) -> str:
        cursor = next(self._cursors)
        self.socket.send(json.dumps({**frame, "cursor": cursor}))
        return cursor

    def ack(self, message: dict[str, Any], run_id: int = RUN) -> None:
        self.send(type="ack", message_id=message["message_id"], run_id=run_id)

    def end(self, run_id: int = RUN) -> None:
        self.socket.send(json.dumps({"type": "end", "run_id": run_id}))

    def taken(self, type_: str) -> dict[str, Any]:
        message = self.hear(type_)
        self.ack(message)
        return message

    def tokens(self, *tokens: str) -> None:
        for token in tokens:
            self.send(type="assistant_message", token=token, is_final=False)

    def closing(self, text: str, *, is_final: bool = True) -> None:
        self.send(type="assistant_message", token="", content=text, is_final=is_final)

    def answer(self, text: str) -> None:
        """An answer in words, closed, and the end of the turn."""
        self.tokens(*(f"{word} " for word in text.split(" ")[:-1]), text.split(" ")[-1])
        self.closing(text)
        self.end()

    def call(self, call_id: str, tool_name: str, *, requires_approval: bool = False, **arguments: Any) -> None:
        self.send(
            type="tool_call",
            call_id=call_id,
            tool_name=tool_name,
            arguments=arguments,
            requires_approval=requires_approval,
            is_final=True,
        )

    def error(self, code: str, text: str = "It went wrong.") -> None:
        """Without a cursor, as what is not part of the log."""
        chunk = {"type": "error", "content": text, "error": text, "code": code, "is_final": True}
        self.socket.send(json.dumps(chunk))

    def cut(self) -> None:
        """The connection breaks without a word."""
        self.socket.close_socket()


Script = Callable[[Peer], None]


@dataclass
class ScriptedServer:
    url: str = ""
    heard: list[dict[str, Any]] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)
    rest: dict[str, Any] = field(default_factory=dict)
    refused_first: list[int] = field(default_factory=list)
    finished: threading.Event = field(default_factory=threading.Event)

    def heard_types(self) -> list[str]:
        return [message["type"] for message in self.heard]


@contextmanager
def playing(*scripts: Script) -> Iterator[ScriptedServer]:
    """Serves until the block ends; a script that failed fails the block."""
    told = ScriptedServer()
    waiting, cursors = iter(scripts), (f"{number}.0-tag" for number in range(1, 100_000))

    def handler(socket: ServerConnection) -> None:
        try:
            next(waiting)(Peer(socket, told.heard, cursors))
            for unexpected in socket:  # until the client leaves
                raise AssertionError(f"Not in the script: {unexpected!r}")
        except ConnectionClosed:
            pass
        except BaseException as failure:
            told.failures.append(failure)
            raise
        finally:
            told.finished.set()

    with serve(handler, "127.0.0.1", 0, process_request=_gate(told), max_size=None) as server:
        told.url = f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield told
        finally:
            server.shutdown()
            thread.join()
    if told.failures:
        raise AssertionError(f"The script was not followed; heard {told.heard}") from told.failures[0]


def _gate(told: ScriptedServer) -> Callable[[ServerConnection, Request], Response | None]:
    def answer(socket: ServerConnection, request: Request) -> Response | None:
        told.requests.append(request)
        if request.headers.get("X-Internal-Auth") != KEY or told.failures:  # a script that failed ends the client too
            return _json(401, {"detail": "unauthorized"})
        if request.path.startswith("/ws/"):
            return socket.respond(HTTPStatus(told.refused_first.pop(0)), "") if told.refused_first else None
        body = told.rest.get(request.path, (404, {"detail": "not here"}))
        return _json(*body) if isinstance(body, tuple) else _json(200, body)

    return answer


def _json(status: int, body: Any) -> Response:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = Headers({"Content-Type": "application/json", "Content-Length": str(len(data)), "Connection": "close"})
    return Response(status, HTTPStatus(status).phrase, headers, data)
