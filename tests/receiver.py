"""Somebody else's server, which webhooks tell things: a real socket that behaves as it is told to."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Behaviour = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Received:
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.body)
        return told


def answering(status: int, **headers: str) -> Behaviour:
    def answer(request: BaseHTTPRequestHandler) -> None:
        body = b"a body that nobody may keep"
        request.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body)

    return answer


def cutting(request: BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"HTTP/1.1 200")
    request.wfile.flush()
    request.connection.shutdown(socket.SHUT_RDWR)


def nonsense(request: BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"\x00\xff no HTTP at all\r\n\r\n")


class Receiver:
    def __init__(self, port: int) -> None:
        self.port = port
        self.came: list[Received] = []
        self.behaves: Behaviour = answering(204)
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def types(self) -> list[str]:
        return [one.json["type"] for one in self.came]

    def hang(self, request: BaseHTTPRequestHandler) -> None:
        """Says nothing until it is released."""
        self.released.wait(60)

    def drip(self, request: BaseHTTPRequestHandler) -> None:
        """Begins to answer, and never ends its headers."""
        request.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while not self.released.wait(0.02):
            request.wfile.write(b"X-More: and more\r\n")
            request.wfile.flush()


@contextmanager
def receiving() -> Iterator[Receiver]:
    class Taker(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            one.came.append(Received(self.path, dict(self.headers), body))
            try:
                one.behaves(self)
            except OSError:  # it has hung up
                return

        def do_GET(self) -> None:
            one.came.append(Received(self.path, dict(self.headers), b"{}"))
            answering(200)(self)

        def log_message(self, *_: Any) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Taker) as server:
        one = Receiver(server.server_port)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield one
        finally:
            one.released.set()
            server.shutdown()
