"""T0agent, the limit in Python: asyncio and httptools, no framework, nothing stored.

`python -m bench.pass_raw PORT MODEL_PORT`. It does what an agent runtime must do at least: reads the agent's request,
asks the model, parses each event and frames its token anew, with one write for everything that one read brought.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import httptools
import orjson
import uvloop

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
REQUEST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: model\r\ncontent-length: %d\r\n\r\n%s"
idle: list[Upstream] = []


def chunk(value: dict[str, Any]) -> bytes:
    data = b"data: %s\n\n" % orjson.dumps(value)
    return b"%x\r\n%s\r\n" % (len(data), data)


class Upstream(asyncio.Protocol):
    """A connection to the model, for one answer after the other."""

    client: Client

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def ask(self, client: Client, body: bytes) -> None:
        self.client, self.out, self.rest = client, [HEAD], b""
        self.parser = httptools.HttpResponseParser(self)
        self.transport.write(REQUEST % (len(body), body))

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)
        if self.out and not self.client.transport.is_closing():  # a write to a client that has gone would raise
            self.client.transport.write(b"".join(self.out))
        self.out = []

    def on_body(self, data: bytes) -> None:
        *events, self.rest = (self.rest + data).split(b"\n\n")
        for event in events:
            if event == b"data: [DONE]":
                self.out.append(chunk({"type": "done", "is_final": True}) + b"0\r\n\r\n")
                continue
            for choice in orjson.loads(event[6:])["choices"]:
                if token := choice["delta"].get("content"):
                    self.out.append(chunk({"type": "assistant_message", "token": token, "is_final": False}))

    def on_message_complete(self) -> None:
        idle.append(self)

    def connection_lost(self, error: Exception | None) -> None:
        if self in idle:
            idle.remove(self)


class Client(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport, self.parser, self.body = transport, httptools.HttpRequestParser(self), b""

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        content, self.body = orjson.loads(self.body)["message"]["content"], b""
        messages = [{"role": "user", "content": content}]
        asking = self.ask(orjson.dumps({"model": "bench", "stream": True, "messages": messages}))
        asyncio.get_running_loop().create_task(asking)

    async def ask(self, body: bytes) -> None:
        if not idle:
            _, upstream = await asyncio.get_running_loop().create_connection(Upstream, "127.0.0.1", int(sys.argv[2]))
            upstream.ask(self, body)
        else:
            idle.pop().ask(self, body)


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Client, "127.0.0.1", int(sys.argv[1]), backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
